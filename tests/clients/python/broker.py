"""Brokers of the control port, and a bare socket for what no client would do."""

import asyncio
import json
import os
import urllib.error
import urllib.request

WAIT_S = 30


def call(path, **body):
    request = urllib.request.Request(os.environ["CLIENTS_CONTROL"] + path, json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error).get("error")) from None


class Broker:
    def __init__(self, answer):
        self.__dict__.update(answer)

    @classmethod
    async def start(cls, *args, config=None):
        return cls(await asyncio.to_thread(call, "/start", args=list(args), config=config))

    async def restart(self, **how):
        self.__dict__.update(await asyncio.to_thread(call, "/restart", id=self.id, **how))

    async def stop(self, signal="TERM"):
        return (await asyncio.to_thread(call, "/stop", id=self.id, signal=signal))["exit_code"]

    async def signal(self, name):
        await asyncio.to_thread(call, "/signal", id=self.id, signal=name)

    async def monitor(self, path):
        def get():
            with urllib.request.urlopen(self.http + path, timeout=30) as answer:
                return json.load(answer)
        return await asyncio.to_thread(get)


class Raw:
    """A connection that says and reads exactly what a test wants."""

    @classmethod
    async def open(cls, broker, **connect):
        raw = cls()
        raw.reader, raw.writer = await asyncio.open_connection(broker.host, broker.port, limit=65536)
        info = await raw.line()
        assert info.startswith(b"INFO {"), info
        raw.info = json.loads(info[5:])
        options = {"verbose": False, "pedantic": False, "protocol": 1, "headers": True, **connect}
        raw.send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        await raw.until(b"PONG")
        return raw

    def send(self, data):
        self.writer.write(data)

    async def line(self):
        return (await asyncio.wait_for(self.reader.readuntil(b"\n"), WAIT_S)).rstrip(b"\r\n")

    async def until(self, start):
        while True:
            line = await self.line()
            if line.startswith(start):
                return line

    def close(self):
        self.writer.transport.abort()


async def wait_for(what, condition):
    """Until `condition`, plain or async, holds."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert asyncio.get_running_loop().time() < deadline, f"no {what} within {WAIT_S} s"
        await asyncio.sleep(0.02)
