"""What scripts/dpdk-demo shows with nats-py: messages in order, requests, a large payload. NATS_URL says where the server is."""

import asyncio
import os
import time

import nats

MESSAGES = 20000
REQUESTS = 500


async def main():
    url = os.environ["NATS_URL"]
    publisher = await nats.connect(url)
    subscriber = await nats.connect(url)
    print(f"connected to {url}: {publisher.connected_url.netloc}, server {publisher.connected_server_version}")

    seen = []
    done = asyncio.Event()

    async def on_message(message):
        seen.append(int(message.data))
        if len(seen) == MESSAGES:
            done.set()

    await subscriber.subscribe("demo.count", cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await subscriber.flush()
    started = time.monotonic()
    for number in range(MESSAGES):
        await publisher.publish("demo.count", b"%d" % number)
    await publisher.flush()
    await asyncio.wait_for(done.wait(), 60)
    assert seen == list(range(MESSAGES)), "messages lost or out of order"
    print(f"{MESSAGES} messages in order, {MESSAGES / (time.monotonic() - started):.0f}/s (the client is the limit)")

    async def on_request(message):
        await message.respond(message.data)

    await subscriber.subscribe("demo.echo", cb=on_request)
    await subscriber.flush()
    times = []
    for number in range(REQUESTS):
        started = time.monotonic()
        answer = await publisher.request("demo.echo", b"%d" % number, timeout=5)
        assert answer.data == b"%d" % number
        times.append(time.monotonic() - started)
    times.sort()
    print(f"{REQUESTS} requests answered, median {times[REQUESTS // 2] * 1e6:.0f} us, "
          f"99th percentile {times[REQUESTS * 99 // 100] * 1e6:.0f} us")

    large = os.urandom(1 << 20)
    answer = await publisher.request("demo.echo", large, timeout=10)
    assert answer.data == large
    print("1 MiB there and back, byte for byte")
    await publisher.close()
    await subscriber.close()


asyncio.run(main())
