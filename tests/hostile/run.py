#!/usr/bin/env python3
"""Bad input and bad clients, each with the answer a broker owes.

    run.py [--server BIN] [--against NATS_SERVER] [--only WORD]... [--list]

Every case starts brokers of its own on random ports, and is held with nats-server too, so that a wrong expectation shows.
What we ask of ourselves beyond nats-server (memory per connection, pace beside a slow reader) is only printed for it.
`--against none` leaves it out; without --against it is taken from $NATS_SERVER or the PATH.
"""

import argparse
import concurrent.futures
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "conversation"))
from broker import (HOST, PATIENCE, Broker, StartError, Tally, Wire, default_server, find_reference,  # noqa: E402
                    raise_file_limit, until)

IDLE_CONNECTIONS = 10_000
IDLE_AT_ONCE = 3000
IDLE_BYTES_MAX = 2048
FLOOD_MESSAGES = 600_000
MEBIBYTE = 1 << 20

UNKNOWN = b"-ERR 'Unknown Protocol Operation'\r\n"
TOO_LONG = b"-ERR 'maximum control line exceeded'\r\n"
TOO_LARGE = b"-ERR 'Maximum Payload Violation'\r\n"

# A ClientHello of OpenSSL: TLS 1.2 record, one cipher suite, no extensions.
CLIENT_HELLO = (b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(range(32)) + b"\x00\x00\x02\x13\x01\x01\x00"
                + b"\x00\x00")

CASES = []


class Shortfall(AssertionError):
    """Less than we ask of ourselves, though no worse than nats-server may be."""


def case(function=None, *, heavy=False):
    """Registers a case. heavy: it measures, so it runs alone."""
    def register(body):
        CASES.append((body.__name__, body, heavy))
        return body
    return register(function) if function else register


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def prefer(condition, message):
    if not condition:
        raise Shortfall(message)


def healthy(broker):
    """A newcomer can still publish to itself."""
    check(broker.alive(), f"server died: {broker.log_tail()}")
    with Wire(broker) as wire:
        wire.send(b"SUB health 1\r\nPUB health 2\r\nok\r\n")
        wire.expect(b"MSG health 1 2\r\nok\r\n")
        wire.sync()


def refused(broker, sent, answer, reason=None, connect='{"verbose":false,"pedantic":false}'):
    """After `sent` the server says exactly `answer` and closes, for `reason`."""
    with Wire(broker, connect) as wire:
        if connect is not None:
            wire.sync()
        try:
            wire.send(sent)
        except OSError:
            pass  # it closed while we were talking
        got = wire.closed()
        check(got == answer, f"{sent[:60]!r}: expected {answer!r} and a close, got {got[:120]!r}")
        wire.close()
        if reason:
            said = broker.close_reason(wire.info["client_id"])
            check(said == reason, f"{sent[:60]!r}: close reason {said!r}, expected {reason!r}")


def reset(sock):
    """Close by RST: ten thousand of these must not leave ten thousand ports in TIME_WAIT."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def backlog():
    """Connections the kernel keeps for a server that does not accept."""
    with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
        return int(file.read())


def connections(broker):
    return broker.get_json("/varz")["connections"]


def settled(broker, count, timeout_s=5):
    check(until(lambda: connections(broker) == count, timeout_s, 0.02),
          f"{connections(broker)} connections instead of {count} after {timeout_s} s")


@case
def oversized_control_line(binary):
    with Broker(binary) as broker:
        reason = "Maximum Control Line Exceeded"
        for line in (b"SUB " + b"x" * 4200 + b" 1\r\n", b"PUB " + b"x" * 4200 + b" 1\r\nx\r\n",
                     b"UNSUB " + b"x" * 4200 + b"\r\n", b"CONNECT " + b'{"name":"' + b"x" * 4200 + b'"}\r\n'):
            refused(broker, line, TOO_LONG, reason)
        before = broker.memory()
        for verb in (b"SUB ", b"PUB ", b"CONNECT "):
            with Wire(broker) as wire:
                try:
                    for _ in range(256):
                        wire.send(verb + b"y" * MEBIBYTE)
                        verb = b""
                except OSError:
                    pass
                check(wire.closed().startswith(TOO_LONG), "an endless line was not refused")
        grown = broker.memory() - before
        check(grown < 32 * MEBIBYTE, f"endless lines cost {grown >> 20} MiB")
        healthy(broker)


@case
def sizes(binary):
    with Broker(binary) as broker:
        headers = '{"verbose":false,"headers":true}'
        for text in (b"-1", b"-9223372036854775808", b"99999999999999999999999999", b"18446744073709551617", b"2147483648",
                     b"4294967298", b"9223372036854775807", b"0x10", b"1e3", b"2.0", b"+2", b"--2", b"-", b"2,", b"\xff"):
            refused(broker, b"PUB foo " + text + b"\r\nhi\r\n", b"", "Protocol Violation")
            refused(broker, b"HPUB foo 0 " + text + b"\r\nhi\r\n", b"", "Protocol Violation", headers)
            refused(broker, b"HPUB foo " + text + b" 2\r\nhi\r\n", b"", "Protocol Violation", headers)
        for text in (b"1048577", b"100000000", b"999999999"):
            refused(broker, b"PUB foo " + text + b"\r\nhi\r\n", TOO_LARGE, "Maximum Message Payload Exceeded")
            refused(broker, b"HPUB foo 0 " + text + b"\r\nhi\r\n", TOO_LARGE, "Maximum Message Payload Exceeded", headers)
        refused(broker, b"HPUB foo 3 2\r\nhi\r\n", b"", "Protocol Violation", headers)
        healthy(broker)


@case
def carriage_return_without_line_feed(binary):
    with Broker(binary) as broker:
        for sent in (b"\r", b"\rPING\r\n", b"PUB foo 2\r\nhi\rx", b"PUB foo 2\r\nhi\r\r", b"PUB foo 0\r\n\rPING\r\n",
                     b"PUB foo 2\r\nhi\n"):
            refused(broker, sent, UNKNOWN, "Protocol Violation")
        with Wire(broker) as wire:
            wire.send(b"SUB foo 1\r")
            time.sleep(0.05)
            wire.send(b"\nPING\r")
            time.sleep(0.05)
            check(not wire.buffer, "PONG before the line ended")
            wire.send(b"\n")
            wire.expect(b"PONG\r\n")
            wire.send(b"PUB foo 2\r\nhi\r")
            time.sleep(0.05)
            wire.send(b"\n")
            wire.expect(b"MSG foo 1 2\r\nhi\r\n")
        healthy(broker)


@case
def binary_garbage(binary):
    rng = random.Random(7)
    verbs = b"PpHhSsUuCcIi+-"
    with Broker(binary) as broker:
        for _ in range(150):
            blob = rng.randbytes(rng.choice((1, 3, 64, 1500, 20000)))
            while blob[0] in verbs:
                blob = rng.randbytes(1) + blob[1:]
            refused(broker, blob, UNKNOWN, connect=None)
        healthy(broker)


@case
def mutated_traffic(binary):
    """Valid traffic with bytes changed, dropped, doubled: anything may be answered, nobody else may notice."""
    rng = random.Random(11)
    valid = (b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB foo.* q 1\r\nSUB foo.> 2\r\nUNSUB 1 3\r\n'
             b"PUB foo.bar reply 5\r\nhello\r\nHPUB foo.baz 22 24\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhi\r\nPING\r\nUNSUB 2\r\n")
    with Broker(binary) as broker:
        with Wire(broker) as witness:
            witness.send(b"SUB witness 1\r\n")
            witness.sync()
            for number in range(300):
                data = bytearray(valid)
                for _ in range(rng.randint(1, 6)):
                    at = rng.randrange(len(data))
                    kind = rng.randrange(3)
                    if kind == 0:
                        data[at] = rng.randrange(256)
                    elif kind == 1:
                        del data[at]
                    else:
                        data[at:at] = data[at:at + rng.randint(1, 40)]
                sock = broker.connect()
                try:
                    sock.sendall(data)
                except OSError:
                    pass
                reset(sock) if number % 2 else sock.close()
                if number % 20 == 0:
                    witness.send(b"PUB witness 2\r\nhi\r\n")
                    witness.expect(b"MSG witness 1 2\r\nhi\r\n")
            witness.sync()
            settled(broker, 1)
        healthy(broker)


@case
def tls_client_hello_on_a_plain_port(binary):
    with Broker(binary) as broker:
        refused(broker, CLIENT_HELLO, UNKNOWN, "Protocol Violation", connect=None)
        refused(broker, CLIENT_HELLO + os.urandom(4000), UNKNOWN, "Protocol Violation", connect=None)
        healthy(broker)


@case
def http_on_the_client_port(binary):
    with Broker(binary) as broker:
        for verb in (b"GET", b"OPTIONS", b"TRACE"):
            refused(broker, verb + b" / HTTP/1.1\r\nHost: a\r\n\r\n", UNKNOWN, "Protocol Violation", connect=None)
        healthy(broker)


def readable(sockets):
    """The descriptors of those with something to read. Not select(): other cases hold ten thousand descriptors."""
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(0)}


@case
def half_a_connect_for_ever(binary):
    """The auth timer counts from accept: bytes that trickle in do not buy time."""
    with Broker(binary, 'authorization { token: "t", timeout: 1 }\n') as broker:
        begin = time.monotonic()
        wires = [Wire(broker, connect=None) for _ in range(40)]
        line = b'CONNECT {"verbose":false,"auth_token":"' + b"t" * 200
        for number, wire in enumerate(wires):
            wire.send(line[:number * 3])
        talking = wires[20:]
        while talking and time.monotonic() - begin < 10 * PATIENCE:
            heard = readable([wire.sock for wire in talking])
            talking = [wire for wire in talking if wire.sock.fileno() not in heard]
            for wire in talking:
                wire.send(b"x")
            time.sleep(0.1)
        check(not talking, "bytes that trickle in bought time")
        for wire in wires:
            got = wire.closed(3)
            check(got == b"-ERR 'Authentication Timeout'\r\n", f"expected the timeout, got {got!r}")
        lasted_s = time.monotonic() - begin
        check(lasted_s > 0.9, f"timeout of 1 s came after {lasted_s:.1f} s")
        check(broker.close_reason(wires[-1].info["client_id"]) == "Authentication Timeout", "close reason")
        for wire in wires:
            wire.close()
        with Wire(broker, '{"verbose":false,"auth_token":"t"}') as wire:
            wire.sync()


@case
def subjects_of_1000_tokens(binary):
    with Broker(binary) as broker:
        with Wire(broker, timeout_s=10) as wire:
            literal = b".".join([b"a"] * 1000)
            wire.send(b"SUB " + literal + b" 1\r\nSUB " + b".".join([b"*"] * 1000) + b" 2\r\nSUB "
                      + b".".join([b"a"] * 999) + b".> 3\r\nSUB a.> 4\r\nSUB " + literal + b".b 5\r\n")
            wire.send(b"PUB " + literal + b" 1\r\nx\r\n")
            sids = set()
            for _ in range(4):
                verb, subject, sid, _ = wire.line().split(b" ")
                check((verb, subject) == (b"MSG", literal), "wrong message")
                sids.add(sid)
                wire.expect(b"x\r\n")
            check(sids == {b"1", b"2", b"3", b"4"}, f"delivered to {sids}")
            wire.sync()
            for number in range(200):
                tokens = [b"%d" % number] + [b"*" if (number >> (i % 8)) & 1 else b"b" for i in range(999)]
                wire.send(b"SUB " + b".".join(tokens) + b" w%d\r\n" % number)
            wire.send(b"UNSUB 2\r\n")
            wire.send(b"PUB 255." + b".".join([b"b"] * 999) + b" 1\r\nx\r\n")
            wire.send(b"PUB 199." + b".".join([b"b"] * 999) + b" 1\r\nx\r\n")
            wire.expect(b"MSG 199." + b".".join([b"b"] * 999) + b" w199 1\r\nx\r\n")
            wire.sync()
            for number in range(200):
                wire.send(b"UNSUB w%d\r\n" % number)
            wire.send(b"PUB 199." + b".".join([b"b"] * 999) + b" 1\r\nx\r\n")
            wire.sync()
        healthy(broker)


@case
def every_wildcard_shape_of_a_subject(binary):
    """A client may subscribe all 2^11 patterns of one subject: each gets it once, and in time."""
    width = 11
    with Broker(binary) as broker, Wire(broker, timeout_s=15) as wire:
        for mask in range(1 << width):
            wire.send(b"SUB " + b".".join(b"*" if mask >> i & 1 else b"a" for i in range(width)) + b" %d\r\n" % mask)
        wire.send(b"PUB " + b".".join([b"a"] * width) + b" 1\r\nx\r\nPING\r\n")
        sids = set()
        for _ in range(1 << width):
            line = wire.line()
            check(line.startswith(b"MSG "), f"got {line!r}")
            sids.add(int(line.split(b" ")[2]))
            wire.expect(b"x\r\n")
        wire.expect(b"PONG\r\n")
        check(sids == set(range(1 << width)), "some pattern was missed")
        healthy(broker)


KILLED_CLIENT = r"""
import socket, sys, time
held = []
for number in range(120):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.sendall((b'CONNECT {"verbose":false}\r\nSUB killed.%d 1\r\nSUB killed.> q 2\r\nPUB witness 1000\r\nhalf a mess' % number,
                  b'CONNECT {"verb', b'CONNECT {"verbose":false}\r\nPUB witn', b'CONNECT {"verbose":false}\r\nPUB witness 2\r\nhi\r'
                  )[number % 4])
    held.append(sock)
print("ready", flush=True)
time.sleep(60)
"""


@case
def killed_in_mid_message(binary):
    with Broker(binary) as broker, Wire(broker) as witness:
        witness.send(b"SUB witness 1\r\n")
        witness.sync()
        before = broker.get_json("/varz")["subscriptions"]
        for _ in range(3):
            child = subprocess.Popen([sys.executable, "-c", KILLED_CLIENT, str(broker.port)], stdout=subprocess.PIPE)
            check(child.stdout.readline() == b"ready\n", "the client did not get ready")
            check(until(lambda: connections(broker) == 121, 5, 0.02), "the clients did not all arrive")
            child.kill()
            child.wait()
            child.stdout.close()
            settled(broker, 1)
            check(until(lambda: broker.get_json("/varz")["subscriptions"] == before, 3),
                  "subscriptions of the dead are still there")
        witness.sync()  # and so nothing half came through
        witness.send(b"PUB killed.1 reply 1\r\nx\r\n")
        witness.sync()
        healthy(broker)


@case
def connections_reset(binary):
    with Broker(binary) as broker:
        for number in range(600):
            sock = broker.connect()
            if number % 3 == 1:
                sock.recv(4096)
            elif number % 3 == 2:
                sock.sendall(b"CONNECT {}\r\nSUB a 1\r\nPUB a 1\r\nx\r\n")
            reset(sock)
        settled(broker, 0)
        healthy(broker)


@case
def announced_but_never_sent(binary):
    """A thousand announcements of 1 MiB must not cost a gigabyte."""
    with Broker(binary) as broker:
        before = broker.memory()
        wires = [Wire(broker) for _ in range(1000)]
        for wire in wires:
            wire.send(b"PUB foo 1048576\r\nx")
        settled(broker, 1000)
        time.sleep(0.3)
        grown = broker.memory() - before
        for wire in wires:
            reset(wire.sock)
        check(grown < 128 * MEBIBYTE, f"1000 announcements cost {grown >> 20} MiB")
        settled(broker, 0)
        healthy(broker)
        return f"{grown >> 20} MiB"


@case
def out_of_file_descriptors(binary):
    limit = 72
    with Broker(binary, limits=(limit, limit)) as broker:
        old = [Wire(broker) for _ in range(10)]
        for number, wire in enumerate(old):
            wire.send(b"SUB old 1\r\n")
            wire.sync()
        crowd = []
        for _ in range(limit + 30):
            sock = broker.connect()
            crowd.append(sock)
        time.sleep(0.3)

        def talk():
            old[0].send(b"PUB old 2\r\nhi\r\n")
            for wire in old:
                wire.expect(b"MSG old 1 2\r\nhi\r\n")
                wire.sync()

        talk()
        unserved = 0
        for sock in crowd:
            sock.settimeout(0.01)
            try:
                unserved += not sock.recv(4096)
            except (socket.timeout, ConnectionError):
                unserved += 1
        check(unserved >= 20, f"only {unserved} of {len(crowd)} went unserved: the limit was not reached")
        cpu_s = broker.cpu_s()
        time.sleep(1)
        cpu_s = broker.cpu_s() - cpu_s
        talk()
        check(broker.alive(), f"server died: {broker.log_tail()}")
        for sock in crowd:
            reset(sock)

        def served():
            try:
                with Wire(broker, timeout_s=0.5) as wire:
                    wire.sync()
                return True
            except (AssertionError, EOFError, OSError):
                return False

        check(until(served, 10, 0.05), "no new connection is served after the others left")
        talk()
        for wire in old:
            wire.close()
        settled(broker, 0)
        check(cpu_s < 0.7, f"{cpu_s:.2f} s of CPU in one second without descriptors")
        return f"{cpu_s * 100:.0f} % CPU while full"


class Flood(threading.Thread):
    """Publishes `batch` again and again until told to stop, never more than `ahead` messages ahead of `sink`."""

    def __init__(self, wire, batch, messages, sink, ahead):
        super().__init__(daemon=True)
        self.wire, self.batch, self.messages = wire, batch, messages
        self.sink, self.ahead = sink, ahead
        self.sent = 0
        self.done = threading.Event()
        self.error = None

    def run(self):
        try:
            self.wire.sock.settimeout(30)
            while not self.done.is_set():
                if self.sent - self.sink.messages > self.ahead:
                    time.sleep(0.0005)
                    continue
                self.wire.sock.sendall(self.batch)
                self.sent += self.messages
            self.wire.send(b"PING\r\n")
            self.wire.expect(b"PONG\r\n", 30)
        except (OSError, EOFError, AssertionError) as error:
            self.error = error


class Sink(threading.Thread):
    """Counts bytes of messages that all have the same size."""

    def __init__(self, wire, size):
        super().__init__(daemon=True)
        self.wire, self.size = wire, size
        self.bytes = 0
        self.stopped = False

    def run(self):
        self.wire.sock.settimeout(0.2)
        buffer = bytearray(1 << 20)
        while not self.stopped:
            try:
                count = self.wire.sock.recv_into(buffer)
            except socket.timeout:
                continue
            except OSError:
                return
            if not count:
                return
            self.bytes += count

    @property
    def messages(self):
        return self.bytes // self.size


@case(heavy=True)
def a_subscriber_that_never_reads(binary):
    """It is closed as slow consumer; a reader of the same subject loses nothing and keeps its pace."""
    payload = b"z" * 1000
    with Broker(binary, "max_pending: 16MB\nwrite_deadline: \"30s\"\n") as broker:
        fast, slow, publisher = Wire(broker), Wire(broker, receive_buffer=16384), Wire(broker)
        fast.send(b"SUB flood 1\r\n")
        fast.sync()
        message = b"MSG flood 1 1000\r\n" + payload + b"\r\n"
        sink = Sink(fast, len(message))
        flood = Flood(publisher, (b"PUB flood 1000\r\n" + payload + b"\r\n") * 60, 60, sink, 8000)  # half of max_pending
        sink.start()
        flood.start()

        def rate(time_s):
            count, begin = sink.messages, time.monotonic()
            time.sleep(time_s)
            return (sink.messages - count) / (time.monotonic() - begin)

        rate(0.3)
        alone = rate(1.0)
        slow.send(b"SUB flood 1\r\n")
        with_slow = rate(1.0)
        cid = slow.info["client_id"]
        reason = broker.close_reason(cid, 10)
        flood.done.set()
        flood.join(30)
        check(not flood.error, f"publisher: {flood.error}")
        check(until(lambda: sink.messages == flood.sent, 10),
              f"reader got {sink.messages} of {flood.sent} messages ({sink.bytes % len(message)} bytes over)")
        sink.stopped = True
        sink.join()
        check(reason == "Slow Consumer (Pending Bytes)", f"close reason {reason!r}")
        varz = broker.get_json("/varz")
        # nats-server may count it twice: for its pending bytes, and for the write that was under way.
        check(varz["slow_consumers"] in (1, 2), f"slow_consumers is {varz['slow_consumers']}")
        check(varz["slow_consumer_stats"]["clients"] == varz["slow_consumers"], "slow_consumer_stats.clients")
        data = slow.closed(10)
        check(b"-ERR" not in data, "a slow consumer gets no -ERR")
        prefer(with_slow > alone * 0.2, f"reader fell from {alone:.0f} to {with_slow:.0f} messages a second")
        for wire in (fast, slow, publisher):
            wire.close()
        healthy(broker)
        return f"{alone:.0f}/s alone, {with_slow:.0f}/s beside it"


@case(heavy=True)
def a_subscriber_that_stops_reading_is_alone_in_it(binary):
    """Small max_pending, many slow ones: all go, the others stay."""
    with Broker(binary, "max_pending: 1MB\nwrite_deadline: \"30s\"\n") as broker:
        slow = [Wire(broker, receive_buffer=16384) for _ in range(30)]
        good = Wire(broker, timeout_s=20)
        publisher = Wire(broker, timeout_s=20)
        for wire in (*slow, good):
            wire.send(b"SUB s 1\r\n")
            wire.sync()
        payload = b"q" * 8000
        sink = Sink(good, len(b"MSG s 1 8000\r\n" + payload + b"\r\n"))
        sink.start()
        for number in range(1, 161):
            publisher.send((b"PUB s 8000\r\n" + payload + b"\r\n") * 10)
            publisher.sync()
            # It keeps up by construction, so that only the others can be too slow.
            check(until(lambda: sink.messages == number * 10, 10, 0.001),
                  f"the reader got {sink.messages} of {number * 10}; closed: "
                  f"{[(row['cid'], row['reason']) for row in broker.get_json('/connz?state=closed')['connections']]}")
        sink.stopped = True
        sink.join()
        settled(broker, 2, 10)
        count = broker.get_json("/varz")["slow_consumers"]
        check(30 <= count <= 60, f"slow_consumers is {count}, 30 were closed")
        for wire in slow:
            reset(wire.sock)
        healthy(broker)


@case(heavy=True)
def flood_of_random_subjects(binary):
    """Subjects nobody names twice, with and without interest: memory stays where it was, hot subjects are delivered."""
    rng = random.Random(3)
    with Broker(binary) as broker:
        with Wire(broker, timeout_s=20) as publisher, Wire(broker, timeout_s=20) as reader:
            reader.send(b"SUB hot 1\r\nSUB seen.*.> 2\r\nSUB other.*.x 3\r\n")
            reader.sync()
            rounds, size = 30, FLOOD_MESSAGES // 30
            before = 0
            for number in range(rounds):
                # As many subjects without interest as make the index search wildcards.
                lines = [b"PUB other.%x.%x 1\r\nx\r\n" % (rng.getrandbits(64), rng.getrandbits(40)) if i & 1 else
                         b"PUB a%x.b.%x 1\r\nx\r\n" % (rng.getrandbits(32), rng.getrandbits(64)) for i in range(size)]
                lines.append(b"PUB hot 1\r\nh\r\n")
                publisher.send(b"".join(lines))
                publisher.sync(20)
                reader.expect(b"MSG hot 1 1\r\nh\r\n", 20)
                if number == 5:
                    before = broker.memory()
            grown = broker.memory() - before
            seen = [b"PUB seen.%x.y 0\r\n\r\n" % rng.getrandbits(60) for _ in range(20000)]
            publisher.send(b"".join(seen))
            publisher.sync(20)
            reader.send(b"PING\r\n")
            count = 0
            while (line := reader.line(20)) != b"PONG":
                count += line.startswith(b"MSG seen.")
            check(count == len(seen), f"{count} of {len(seen)} random subjects with interest were delivered")
        check(grown < 24 * MEBIBYTE, f"{FLOOD_MESSAGES} random subjects cost {grown / MEBIBYTE:.1f} MiB")
        healthy(broker)
        return f"{grown / MEBIBYTE:+.1f} MiB after {FLOOD_MESSAGES} subjects"


@case(heavy=True)
def idle_connections(binary):
    """Ten thousand that send nothing: what each costs the server, after its first PING went out too.

    The first come while the server is stopped, all in one moment: what it needs for that moment it must give back.
    """
    limit = raise_file_limit()
    count = min(IDLE_CONNECTIONS, limit - 200)
    with Broker(binary, "max_connections: 20000\n") as broker:
        healthy(broker)
        settled(broker, 0)
        before = broker.memory()
        socks = []
        try:
            broker.signal(signal.SIGSTOP)
            try:
                for _ in range(min(IDLE_AT_ONCE, backlog() * 3 // 4)):
                    socks.append(broker.connect(15))
            finally:
                broker.signal(signal.SIGCONT)
            while len(socks) < count:
                socks.append(broker.connect(15))
            settled(broker, count, 20)
            time.sleep(3)
            each = (broker.memory() - before) / count
            for sock in socks[::1000]:
                check(sock.recv(5) == b"INFO ", "a connection was forgotten")
            cids = [row["cid"] for row in broker.get_json("/connz?limit=20000")["connections"]]
            check(len(cids) == count and cids == sorted(cids), f"/connz shows {len(cids)} of {count}")
            for offset in (0, 3000, count - 3):
                page = broker.get_json(f"/connz?offset={offset}&limit=7&subs=1")
                check([row["cid"] for row in page["connections"]] == cids[offset:offset + 7], f"/connz from {offset}")
                check(page["total"] == count, f"/connz: {page['total']} in all")
            cpu_s = broker.cpu_s()
            time.sleep(1)
            cpu_s = broker.cpu_s() - cpu_s
            healthy(broker)
        finally:
            for sock in socks:
                reset(sock)
        settled(broker, 0, 15)
        healthy(broker)
        note = f"{count} connections, {each:.0f} bytes of RSS each, {cpu_s * 100:.0f} % CPU"
        check(count == IDLE_CONNECTIONS, f"file limit {limit} allows only {note}")
        prefer(each <= IDLE_BYTES_MAX, f"{note}; at most {IDLE_BYTES_MAX} bytes wanted")
        return note


FAILURES = (AssertionError, EOFError, OSError, StartError, KeyError, ValueError)


def run_case(body, server, against):
    """(reason or None, note)."""
    try:
        note = body(server) or ""
    except FAILURES as error:
        return f"[{os.path.basename(server)}] {error or type(error).__name__}", ""
    if against:
        try:
            theirs = body(against)
        except Shortfall as error:
            theirs = str(error)
        except FAILURES as error:
            return f"[{os.path.basename(against)}, to compare with] {error or type(error).__name__}", ""
        if theirs:
            note = f"{note}; nats-server: {theirs}"
    return None, note


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=default_server(), help="broker under test")
    parser.add_argument("--against", default=find_reference(), help="nats-server to compare with, or none")
    parser.add_argument("--only", action="append", help="only cases whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(name for name, *_ in CASES))
        return 0
    server = os.path.abspath(options.server)
    against = None if options.against in (None, "none") else os.path.abspath(options.against)
    for binary in filter(None, [server, against]):
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not an executable")
    raise_file_limit()

    tally = Tally()
    lock = threading.Lock()

    def run(name, body):
        reason, note = run_case(body, server, against)
        with lock:
            if reason:
                tally.fail(name, reason)
            else:
                tally.ok(name, note)

    chosen = [c for c in CASES if not options.only or any(word in c[0] for word in options.only)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(run, name, body) for name, body, heavy in chosen if not heavy]:
            job.result()
    for name, body, heavy in chosen:
        if heavy:
            run(name, body)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
