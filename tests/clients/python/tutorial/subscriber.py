import asyncio
from nats.aio.client import Client as NATS

async def main():
    nc = NATS()
    await nc.connect("nats://127.0.0.1:4222")

    print("Connected to NATS server. Waiting for messages...")

    async def message_handler(msg):
        print(f"Received: {msg.data.decode()}")

    await nc.subscribe("greeting", cb=message_handler)

    while True:
        await asyncio.sleep(1)

if __name__ == "__main__":
    asyncio.run(main())
