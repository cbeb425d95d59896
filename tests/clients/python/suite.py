"""nats-py against a broker. The contract with run.py is in ../README.md."""

import asyncio
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import time
import traceback

import nats
from nats import errors

from broker import WAIT_S, Broker, Raw, wait_for

TEST_LIMIT_S = 90
tests = []
shared = None  # the broker of the tests that need no special one
subjects = 0


def test(function):
    tests.append(function)
    return function


def subject():
    """A subject no other test uses."""
    global subjects
    subjects += 1
    return f"py.t{subjects}"


class Connected:
    """`async with Connected() as nc`: a client that keeps what its callbacks were told, and is closed at the end."""

    def __init__(self, broker=None, **options):
        self.broker = broker or shared
        self.options = {"connect_timeout": 10, "max_reconnect_attempts": 600, "reconnect_time_wait": 0.05, **options}

    async def __aenter__(self):
        self.nc = await connect(self.broker, **self.options)
        return self.nc

    async def __aexit__(self, *_):
        if not self.nc.is_closed:
            await self.nc.close()


async def connect(broker, **options):
    heard = {"errors": [], "closed": 0, "disconnected": 0, "reconnected": 0, "lame_duck": 0}

    def counting(name):
        async def callback():
            heard[name] += 1
        return callback

    async def on_error(error):
        heard["errors"].append(error)

    nc = await nats.connect(broker.url, error_cb=on_error, closed_cb=counting("closed"),
                            disconnected_cb=counting("disconnected"), reconnected_cb=counting("reconnected"),
                            lame_duck_mode_cb=counting("lame_duck"), **options)
    nc.heard = heard
    return nc


async def flush(nc):
    """Until the broker has seen everything. One flush() of nats-py is not enough: its PING is written at once, ahead of
    commands that still wait for the flusher; the second one's follows them."""
    await nc.flush(WAIT_S)
    await nc.flush(WAIT_S)


async def collect(sub, count):
    return [await sub.next_msg(timeout=WAIT_S) for _ in range(count)]


async def nothing_more(sub, nc):
    """Everything the broker had for this connection has arrived by the time its PONG has."""
    await flush(nc)
    assert sub.pending_msgs == 0, f"{sub.pending_msgs} messages too many"


def equal(got, wanted):
    assert got == wanted, f"got {got!r:.300}, wanted {wanted!r:.300}"


async def raises(kind, awaitable):
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")


@test
async def publish_subscribe():
    async with Connected() as publisher, Connected() as subscriber:
        name = subject()
        sub = await subscriber.subscribe(name)
        await flush(subscriber)
        for payload in (b"hello", b"", b"\x00\r\nPING\r\n\xff"):
            await publisher.publish(name, payload)
        await publisher.publish(name + ".other", b"not ours")
        await flush(publisher)
        got = await collect(sub, 3)
        equal([(msg.subject, msg.data) for msg in got], [(name, b"hello"), (name, b""), (name, b"\x00\r\nPING\r\n\xff")])
        await nothing_more(sub, subscriber)


@test
async def no_echo():
    async with Connected(no_echo=True) as quiet, Connected() as other:
        name = subject()
        own, foreign = await quiet.subscribe(name), await other.subscribe(name)
        await flush(other)
        await quiet.publish(name, b"x")
        await flush(quiet)
        equal((await foreign.next_msg(WAIT_S)).data, b"x")
        await nothing_more(own, quiet)


@test
async def wildcard_star():
    async with Connected() as nc:
        name = subject()
        middle, last = await nc.subscribe(f"{name}.*.end"), await nc.subscribe(f"{name}.*")
        for tail in ("a.end", "b.end", "a.b.end", "end", "a.endless", "one", "a.end.more"):
            await nc.publish(f"{name}.{tail}", tail.encode())
        equal([msg.data for msg in await collect(middle, 2)], [b"a.end", b"b.end"])
        equal([msg.data for msg in await collect(last, 2)], [b"end", b"one"])
        await nothing_more(middle, nc)
        await nothing_more(last, nc)


@test
async def wildcard_full():
    async with Connected() as nc:
        name = subject()
        sub = await nc.subscribe(f"{name}.>")
        await nc.publish(name, b"too short")
        for tail in ("a", "a.b", "a.b.c.d.e.f.g"):
            await nc.publish(f"{name}.{tail}", tail.encode())
        equal([msg.subject for msg in await collect(sub, 3)], [f"{name}.{tail}" for tail in ("a", "a.b", "a.b.c.d.e.f.g")])
        await nothing_more(sub, nc)


@test
async def queue_group():
    count, members = 3000, 3
    async with Connected() as publisher, Connected() as a, Connected() as b, Connected() as c, Connected() as plain:
        name = subject()
        got = [[] for _ in range(members)]

        def into(where):
            async def callback(msg):
                where.append(int(msg.data))
            return callback

        everything = []
        for n, member in enumerate((a, b, c)):
            await member.subscribe(name, queue="workers", cb=into(got[n]))
        await plain.subscribe(name, cb=into(everything))
        for member in (a, b, c, plain):
            await flush(member)
        for n in range(count):
            await publisher.publish(name, str(n).encode())
        await flush(publisher)
        await wait_for("queue messages", lambda: sum(map(len, got)) >= count and len(everything) >= count)
        for member in (a, b, c, plain):
            await flush(member)
        equal(sorted(sum(got, [])), list(range(count)))
        equal(everything, list(range(count)))
        for share in got:
            assert len(share) > count / members / 3, f"unfair shares {[len(share) for share in got]}"
            equal(share, sorted(share))


async def answering(nc, name):
    async def answer(msg):
        await msg.respond(b"re:" + msg.data)
    await nc.subscribe(name, cb=answer)
    await flush(nc)


@test
async def request_inbox():
    async with Connected() as service, Connected() as nc:
        name = subject()
        await answering(service, name)
        for n in range(50):
            msg = await nc.request(name, str(n).encode(), timeout=WAIT_S, old_style=True)
            equal(msg.data, f"re:{n}".encode())
        inbox = nc.new_inbox()
        sub = await nc.subscribe(inbox)
        await nc.publish(name, b"by hand", reply=inbox)
        equal((await sub.next_msg(WAIT_S)).data, b"re:by hand")


@test
async def request_mux():
    async with Connected() as service, Connected() as nc:
        name = subject()
        await answering(service, name)
        answers = await asyncio.gather(*(nc.request(name, str(n).encode(), timeout=WAIT_S) for n in range(500)))
        equal([msg.data for msg in answers], [f"re:{n}".encode() for n in range(500)])


@test
async def no_responders():
    async with Connected() as nc:
        name = subject()
        started = time.monotonic()
        await raises(errors.NoRespondersError, nc.request(name, b"", timeout=WAIT_S))
        assert time.monotonic() - started < WAIT_S / 2, "no responders was not said, only waited for"
        inbox = nc.new_inbox()
        sub = await nc.subscribe(inbox)
        await nc.publish(name, b"", reply=inbox)
        msg = await sub.next_msg(WAIT_S)
        equal((msg.data, msg.headers.get("Status")), (b"", "503"))
        # A subscriber elsewhere ends it, its leaving brings it back.
        async with Connected() as service:
            await answering(service, name)
            equal((await nc.request(name, b"x", timeout=WAIT_S)).data, b"re:x")
        async def gone():
            try:
                await nc.request(name, b"x", timeout=1)
            except errors.NoRespondersError:
                return True
            except errors.TimeoutError:
                return False
        await wait_for("no responders after the service left", gone)


@test
async def headers():
    async with Connected() as nc, Connected() as other:
        name = subject()
        sub = await other.subscribe(name)
        await flush(other)
        wanted = {"Kind": "test", "X-Empty": "", "X-Text": "a: b, c; Grüße"}
        await nc.publish(name, b"payload", headers=wanted)
        await nc.publish(name, b"", headers={"Only": "header"})
        await nc.publish(name, b"plain")
        got = await collect(sub, 3)
        equal([(msg.data, msg.headers) for msg in got], [(b"payload", wanted), (b"", {"Only": "header"}), (b"plain", None)])

        async def answer(msg):
            await msg.respond(msg.headers["Ask"].encode())
        await other.subscribe(name + ".service", cb=answer)
        await flush(other)
        equal((await nc.request(name + ".service", b"", timeout=WAIT_S, headers={"Ask": "why"})).data, b"why")
        # Somebody without headers gets the payload alone.
        raw = await Raw.open(shared, headers=False)
        raw.send(f"SUB {name}.old 1\r\nPING\r\n".encode())
        await raw.until(b"PONG")
        await nc.publish(name + ".old", b"bare", headers={"A": "b"})
        equal(await raw.until(b"MSG"), f"MSG {name}.old 1 4".encode())
        equal(await raw.line(), b"bare")
        raw.close()


@test
async def drain():
    async with Connected() as publisher, Connected() as nc:
        name = subject()
        got = []

        async def slowly(msg):
            await asyncio.sleep(0.002)
            got.append(int(msg.data))

        sub = await nc.subscribe(name, cb=slowly)
        await flush(nc)
        for n in range(200):
            await publisher.publish(name, str(n).encode())
        await flush(publisher)
        await sub.drain()
        equal(got, list(range(200)))
        await publisher.publish(name, b"999")
        await flush(publisher)
        await flush(nc)
        equal(len(got), 200)

        got.clear()
        await nc.subscribe(name, cb=slowly)
        await flush(nc)
        for n in range(200):
            await publisher.publish(name, str(n).encode())
        await flush(publisher)
        await nc.drain()
        equal(got, list(range(200)))
        assert nc.is_closed and nc.heard["closed"] == 1
        await raises(errors.ConnectionClosedError, nc.publish(name, b"late"))
        equal(nc.heard["errors"], [])


@test
async def auto_unsubscribe():
    async with Connected() as publisher, Connected() as nc:
        name = subject()
        early, late = await nc.subscribe(name), await nc.subscribe(name)
        witness = await publisher.subscribe(name)
        await early.unsubscribe(limit=5)
        await flush(nc)
        for n in range(3):
            await publisher.publish(name, str(n).encode())
        await flush(publisher)
        await collect(late, 3)
        await late.unsubscribe(limit=7)  # three of the seven have come already
        await flush(nc)
        for n in range(3, 20):
            await publisher.publish(name, str(n).encode())
        await collect(witness, 20)
        await flush(nc)
        equal([int(msg.data) for msg in await collect(early, 5)], [0, 1, 2, 3, 4])
        equal([int(msg.data) for msg in await collect(late, 4)], [3, 4, 5, 6])
        equal((early.pending_msgs, late.pending_msgs), (0, 0))

        async def forgotten():
            return (await shared.monitor(f"/connz?cid={nc.client_id}"))["connections"][0]["subscriptions"] == 0
        await wait_for("end of both subscriptions in /connz", forgotten)


@test
async def max_payload_exact():
    broker = await Broker.start(config="max_payload: 65536")
    async with Connected(broker) as nc:
        equal(nc.max_payload, 65536)
        sub = await nc.subscribe("big")
        payload = os.urandom(65536)
        await nc.publish("big", payload)
        equal((await sub.next_msg(WAIT_S)).data == payload, True)
    async with Connected() as nc:
        equal(nc.max_payload, 1048576)
        name = subject()
        sub = await nc.subscribe(name)
        payload = os.urandom(1048576)
        await nc.publish(name, payload)
        equal((await sub.next_msg(WAIT_S)).data == payload, True)
    await broker.stop()


@test
async def max_payload_exceeded():
    async with Connected(allow_reconnect=False) as nc:
        await raises(errors.MaxPayloadError, nc.publish(subject(), bytes(nc.max_payload + 1)))
        await flush(nc)
        # The client does not count the header block: this one gets as far as the broker, which ends the connection.
        await nc.publish(subject(), bytes(nc.max_payload), headers={"A": "b"})
        await wait_for("closed connection", lambda: nc.is_closed)
    raw = await Raw.open(shared)
    raw.send(f"PUB x {raw.info['max_payload'] + 1}\r\n".encode())
    equal(await raw.until(b"-ERR"), b"-ERR 'Maximum Payload Violation'")
    equal(await asyncio.wait_for(raw.reader.read(), WAIT_S), b"")
    raw.close()


@test
async def reconnect():
    broker = await Broker.start()
    async with Connected(broker) as nc, Connected(broker) as publisher:
        got, requests = [], []

        async def keep(msg):
            got.append(msg.data)

        async def answer(msg):
            requests.append(msg.data)
            await msg.respond(b"here")

        await nc.subscribe("again.*", cb=keep)
        await nc.subscribe("service", queue="q", cb=answer)
        limited = await nc.subscribe("limited")
        await limited.unsubscribe(limit=4)
        await flush(nc)
        for name in ("again.a", "limited", "limited"):
            await publisher.publish(name, b"before")
        await flush(publisher)
        await collect(limited, 2)
        for how in ("KILL", "TERM"):
            await broker.restart(signal=how)
            await wait_for("reconnects", lambda: nc.is_connected and publisher.is_connected and
                           nc.heard["reconnected"] == publisher.heard["reconnected"] == (1 if how == "KILL" else 2))
            await flush(nc)
            await publisher.publish("again.b", how.encode())
            equal((await publisher.request("service", b"?", timeout=WAIT_S)).data, b"here")
            await wait_for("message after the restart", lambda: got and got[-1] == how.encode())
        # What is left of the allowance has moved to the new broker.
        for _ in range(4):
            await publisher.publish("limited", b"after")
        await flush(publisher)
        await collect(limited, 2)
        await nothing_more(limited, nc)
        equal(got, [b"before", b"KILL", b"TERM"])
    await broker.stop()


@test
async def slow_consumer():
    broker = await Broker.start(config="max_pending: 4MB\nwrite_deadline: \"2s\"")
    raw = await Raw.open(broker, name="never-reads")
    raw.send(b"SUB flood 1\r\nPING\r\n")
    await raw.until(b"PONG")
    raw.reader._transport.pause_reading()
    async with Connected(broker) as nc, Connected(broker) as publisher:
        sub = await nc.subscribe("flood")
        await flush(nc)
        payload = bytes(65536)
        sent = received = 0
        while (await broker.monitor("/varz"))["slow_consumers"] == 0:
            assert sent < 8000, "half a gigabyte and nobody is too slow"
            # Bounded by what the healthy subscriber took, or it might be the slow one.
            for _ in range(16):
                await publisher.publish("flood", payload)
                sent += 1
            await flush(publisher)
            received += len(await collect(sub, sent - received))
        equal(received, sent)
        varz = await broker.monitor("/varz")
        equal(varz["slow_consumers"], 1)

        async def closed():
            connections = (await broker.monitor("/connz?state=closed"))["connections"]
            return [conn["reason"] for conn in connections if conn.get("name") == "never-reads"]
        reasons = await wait_for("closed connection in /connz", closed)
        assert len(reasons) == 1 and reasons[0].startswith("Slow Consumer"), reasons
        equal(nc.heard["disconnected"] + publisher.heard["disconnected"], 0)
        # Cut off means cut off: its socket ends once what is in flight has been read.
        raw.reader._transport.resume_reading()
        try:
            while await asyncio.wait_for(raw.reader.read(1 << 20), WAIT_S):
                pass
        except ConnectionError:
            pass
    raw.close()
    await broker.stop()


@test
async def auth_user_pass():
    broker = await Broker.start("--user", "ada", "--pass", "s3cret")
    async with Connected(broker, user="ada", password="s3cret") as nc:
        sub = await nc.subscribe("x")
        await nc.publish("x", b"in")
        equal((await sub.next_msg(WAIT_S)).data, b"in")
    url = f"nats://ada:s3cret@{broker.host}:{broker.port}"
    nc = await nats.connect(url, connect_timeout=10)
    await flush(nc)
    await nc.close()
    await broker.stop()
    hashed = "$2a$04$rAoi9GMFb7ZXkrnqnyhFi.0N.mWk8ZJt7nYN0sGlf./e7lE/SsG.S"  # of "s3cret"
    broker = await Broker.start(config=f"""
        authorization {{
          users = [ {{ user: ada, password: "{hashed}" }}, {{ user: bob, password: "plain" }} ]
        }}""")
    for user, password in (("ada", "s3cret"), ("bob", "plain")):
        async with Connected(broker, user=user, password=password) as nc:
            await flush(nc)
    await refused(broker, user="ada", password="plain")
    await broker.stop()


@test
async def auth_token():
    broker = await Broker.start("--auth", "t0ken")
    async with Connected(broker, token="t0ken") as nc:
        sub = await nc.subscribe("x")
        await nc.publish("x", b"in")
        equal((await sub.next_msg(WAIT_S)).data, b"in")
    await broker.stop()


async def refused(broker, **options):
    """The error of a connection that the broker refuses."""
    heard = []

    async def on_error(error):
        heard.append(error)

    error = await raises((errors.Error, ConnectionError),
                         nats.connect(broker.url, error_cb=on_error, allow_reconnect=False, connect_timeout=10, **options))
    text = " ".join(map(str, [error, *heard])).lower()
    assert "authorization" in text, f"refused with {text!r}"


@test
async def auth_failure():
    for args, options in ((["--user", "ada", "--pass", "s3cret"], [{"user": "ada", "password": "wrong"},
                                                                    {"user": "eve", "password": "s3cret"}, {}]),
                          (["--auth", "t0ken"], [{"token": "wrong"}, {"user": "ada", "password": "t0ken"}, {}])):
        broker = await Broker.start(*args)
        for option in options:
            await refused(broker, **option)

        async def gone():
            return (await broker.monitor("/varz"))["connections"] == 0
        await wait_for("end of the refused connections in /varz", gone)
        await broker.stop()


@test
async def permissions_violation():
    broker = await Broker.start(config="""
        authorization {
          users = [
            { user: limited, password: p, permissions: { publish: ["open.>", "_INBOX.>"], subscribe: { deny: "secret.*" } } }
            { user: all, password: p }
          ]
        }""")
    async with Connected(broker, user="limited", password="p") as nc, Connected(broker, user="all", password="p") as other:
        witness = await other.subscribe(">")
        await flush(other)
        await nc.publish("closed.a", b"no")
        await wait_for("publish violation", lambda: len(nc.heard["errors"]) == 1)
        denied = await nc.subscribe("secret.plan")
        await wait_for("subscribe violation", lambda: len(nc.heard["errors"]) == 2)
        texts = [str(error).lower() for error in nc.heard["errors"]]
        assert 'permissions violation for publish to "closed.a"' in texts[0], texts
        assert 'permissions violation for subscription to "secret.plan"' in texts[1], texts
        sub = await nc.subscribe("open.*")
        await flush(nc)
        await other.publish("secret.plan", b"x")
        await flush(other)
        await nc.publish("open.b", b"yes")
        equal([(msg.subject, msg.data) for msg in await collect(witness, 2)], [("secret.plan", b"x"), ("open.b", b"yes")])
        equal((await sub.next_msg(WAIT_S)).data, b"yes")
        await nothing_more(denied, nc)
        assert nc.is_connected and nc.heard["disconnected"] == 0
    await broker.stop()


@test
async def large_payload():
    async with Connected() as service, Connected() as nc:
        name = subject()

        async def answer(msg):
            await msg.respond(msg.data)
        await service.subscribe(name, cb=answer)
        await flush(service)
        for size in (1048576, 1048575, 65537, 1):
            payload = os.urandom(size)
            msg = await nc.request(name, payload, timeout=WAIT_S)
            assert msg.data == payload, f"{size} bytes came back as {len(msg.data)}, changed"


@test
async def ordering_100k():
    count = 100_000
    async with Connected() as publisher, Connected() as subscriber:
        name = subject()
        expected = 0
        wrong = []

        async def check(msg):
            nonlocal expected
            if int(msg.data) != expected:
                wrong.append((int(msg.data), expected))
            expected = int(msg.data) + 1

        await subscriber.subscribe(name, cb=check, pending_msgs_limit=count + 1, pending_bytes_limit=1 << 30)
        await flush(subscriber)
        for n in range(count):
            await publisher.publish(name, b"%d" % n)
            if n % 2000 == 0:
                await asyncio.sleep(0)
        await flush(publisher)
        await wait_for("all messages", lambda: expected == count or wrong)
        equal(wrong, [])
        equal(subscriber.heard["errors"], [])


@test
async def flush_rtt():
    async with Connected() as nc, Connected() as other:
        name = subject()
        sub = await other.subscribe(name)
        await flush(other)
        for _ in range(50):
            await nc.publish(name, b"x")
            await flush(nc)
            # Whoever flushes after that has the message ahead of his own PONG.
            await flush(other)
            equal(sub.pending_msgs, 1)
            await sub.next_msg(WAIT_S)
        times = [await nc.rtt(WAIT_S) for _ in range(5)]
        assert all(0 < rtt < 5 for rtt in times), times


@test
async def server_info():
    async with Connected() as nc, Connected() as other:
        version = nc.connected_server_version
        assert (version.major, version.minor) >= (2, 9), version
        assert nc.client_id > 0 and other.client_id > 0 and nc.client_id != other.client_id
        equal(str(nc.client_ip), shared.client_ip)
        equal(nc.connected_url.port, shared.port)
        info = nc._server_info
        equal({key: info.get(key) for key in ("host", "port", "headers", "max_payload", "proto")},
              {"host": shared.host, "port": shared.port, "headers": True, "max_payload": 1048576, "proto": 1})
        assert info["server_id"].startswith("N") and len(info["server_id"]) == 56, info["server_id"]
        equal((await shared.monitor("/varz"))["server_id"], info["server_id"])
        name, answer = "named client", await shared.monitor(f"/connz?cid={nc.client_id}")
        equal((answer["connections"][0]["lang"], answer["connections"][0]["ip"]), ("python3", shared.client_ip))
    async with Connected(name=name) as nc:
        equal((await shared.monitor(f"/connz?cid={nc.client_id}"))["connections"][0]["name"], name)
    broker = await Broker.start("--client_advertise", "example.test:4333", "--name", "advertised")
    async with Connected(broker) as nc:
        info = nc._server_info
        equal((info["host"], info["port"], info["server_name"]), ("example.test", 4333, "advertised"))
    await broker.stop()


@test
async def lame_duck():
    broker = await Broker.start(config='lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"')
    async with Connected(broker) as nc:
        sub = await nc.subscribe("x")
        await flush(nc)
        await broker.signal("USR2")
        await wait_for("lame duck notice", lambda: nc.heard["lame_duck"] == 1)
        # Nobody new is let in, and who is in may go on until it is his turn to leave.
        try:
            _, writer = await asyncio.open_connection(broker.host, broker.port)
            writer.close()
            raise AssertionError("a lame duck took a new connection")
        except ConnectionError:
            pass
        if nc.is_connected:
            await nc.publish("x", b"still here")
            equal((await sub.next_msg(WAIT_S)).data, b"still here")
        await wait_for("end of the connection", lambda: nc.heard["disconnected"] == 1)
    equal(await broker.stop("KILL") in (0, -9), True)


def trust(certificate=False):
    context = ssl.create_default_context(cafile=os.environ["CLIENTS_CA"])
    if certificate:
        context.load_cert_chain(os.environ["CLIENTS_CERT"], os.environ["CLIENTS_KEY"])
    return context


async def secure(more=""):
    broker = await Broker.start(config=f"tls {{ @tls{more} }}")
    broker.url = broker.url.replace("nats://", "tls://")
    return broker


async def talk(nc, other):
    name = subject()
    sub = await other.subscribe(name)
    await answering(other, f"{name}.service")
    payloads = [b"", b"hello", os.urandom(16384), os.urandom(nc.max_payload)]
    for payload in payloads:
        await nc.publish(name, payload)
    equal([msg.data == payload for msg, payload in zip(await collect(sub, len(payloads)), payloads)], [True] * len(payloads))
    equal((await nc.request(f"{name}.service", b"?", timeout=WAIT_S)).data, b"re:?")


async def talk_over_tls(broker, **options):
    async with Connected(broker, **options) as nc, Connected(broker, **options) as other:
        await talk(nc, other)
        rows = (await broker.monitor("/connz"))["connections"]
        equal([row.get("tls_version") for row in rows], ["1.3", "1.3"])
        await broker.restart()
        await wait_for("reconnects", lambda: nc.heard["reconnected"] == other.heard["reconnected"] == 1)
        await talk(nc, other)


async def refused_over_tls(broker, context):
    await raises((ssl.SSLError, errors.Error, OSError), nats.connect(broker.url.replace("nats://", "tls://"), tls=context,
                                                                     allow_reconnect=False, connect_timeout=WAIT_S))


@test
async def tls():
    broker = await secure()
    await talk_over_tls(broker, tls=trust())
    await refused_over_tls(broker, ssl.create_default_context())
    await broker.stop("KILL")


@test
async def tls_verify():
    broker = await secure(", verify: true")
    await talk_over_tls(broker, tls=trust(certificate=True))
    await refused_over_tls(broker, trust())
    await broker.stop("KILL")


@test
async def tls_first():
    broker = await secure(", handshake_first: true")
    await talk_over_tls(broker, tls=trust(), tls_handshake_first=True)
    await broker.stop("KILL")


@test
async def pedantic_verbose():
    """+OK after every verb must not confuse the client."""
    async with Connected(verbose=True, pedantic=True) as nc:
        name = subject()
        sub = await nc.subscribe(name)
        for n in range(100):
            await nc.publish(name, b"%d" % n)
        equal([int(msg.data) for msg in await collect(sub, 100)], list(range(100)))
        equal(nc.heard["errors"], [])


@test
async def tutorial():
    """The tutorial's programs word for word; they know no other port than 4222, so they get a network of their own."""
    unshare = shutil.which("unshare") or "/usr/bin/unshare"
    separate = [unshare, "--net"] if os.geteuid() == 0 else [unshare, "--net", "--map-root-user"]
    # Raising lo is all that the namespace needs; ioctl numbers are not in Python's library, `ip` is in every Debian.
    program = [*separate, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    possible = subprocess.run([*program, "true"], capture_output=True, check=False).returncode == 0
    command = [sys.executable, "-B", str(pathlib.Path(__file__).parent / "tutorial" / "in_namespace.py"),
               os.environ["CLIENTS_SERVER"], *json.loads(os.environ["CLIENTS_SERVER_ARGS"])]
    if not possible:
        print("# no network namespace to be had: the tutorial uses this machine's port 4222", flush=True)
    process = await asyncio.create_subprocess_exec(*(program if possible else []), *command, stdin=subprocess.DEVNULL,
                                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0 and output.strip().endswith(b"tutorial ok"), output.decode(errors="replace")[-500:]


async def main():
    global shared
    only = [name for name in os.environ.get("CLIENTS_ONLY", "").split(",") if name]
    chosen = [function for function in tests if not only or function.__name__ in only]
    print(f"plan {len(chosen)}", flush=True)
    shared = await Broker.start()
    failed = 0
    for function in chosen:
        started = time.monotonic()
        try:
            await asyncio.wait_for(function(), TEST_LIMIT_S)
            print(f"ok {function.__name__}", flush=True)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {function.__name__}: {reason[:400]}", flush=True)
        print(f"# {function.__name__} took {time.monotonic() - started:.1f} s", flush=True)
    await shared.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
