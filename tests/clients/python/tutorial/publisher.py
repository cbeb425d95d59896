import asyncio
from nats.aio.client import Client as NATS

async def main():
    nc = NATS()
    await nc.connect("nats://127.0.0.1:4222")

    print("Connected to NATS server. Publishing messages...")

    count = 0
    while True:
        message = f"Hello World {count}"
        await nc.publish("greeting", message.encode())
        print(f"Published: {message}")
        count += 1
        await asyncio.sleep(1)

if __name__ == "__main__":
    asyncio.run(main())
