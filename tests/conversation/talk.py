r"""Talks: what clients say to a broker and what must come back, byte for byte.

A .talk file is one server config and any number of talks held with servers of that config:

    # comment                                       at the start of a line, or blank lines, anywhere
    later tls                                       a broker that refuses this key by name is not judged by this file yet
    server {                                        NATS config grammar up to a line that is only `}`
      max_payload: 16
    }

    == pub then sub  @whole                         a talk and its options, see below
    C1> PUB foo 2\r\nhi\r\n                         send exactly these bytes (escapes \r \n \t \\ \xHH, ${text*N} repeats)
    C1< +OK                                         the next bytes are exactly these and CR LF (escapes as above)
    C1< ~MSG foo \d+ 2                              the next line matches the whole regular expression
    C1 C2 C3 one of< MSG foo 1 2\r\nhi              exactly one of these gets it, the others stay as they are
    C1 hello {"user":"a"}                           CONNECT (verbose, pedantic off, plus these fields) and a PING; wants PONG
    C1 info auth_required=true nonce=~.{15} ldm=none   fields of the last INFO: JSON value, ~regex, or `none` for absent
    C1 gets info                                    the next line is INFO (the first one is read when C1 is opened)
    C1 open                                         connect now; otherwise a connection opens where it is first named
    C1 refused                                      connect is refused
    C1 sync                                         PING, and nothing but its PONG comes back
    C1 silent 200ms                                 nothing arrives for that long
    C1 closed [within 3s] [after 500ms]             the server closes; no unread bytes before that
    C1 drop                                         the client closes
    C1 reason "Parse Error"                         /connz says why this connection was closed
    server signal USR2                              a signal to the server (wants @own)
    server exits 0 [within 3s]                      the server ends with this code (wants @own)
    wait 100ms                                      time passes

Every talk is held with the bytes of each send in one piece, cut at seeded places, and one by one. Options: `@whole`
only in one piece (the answer depends on how bytes arrive), `@own` on a server of its own, `@loose` answers of two
servers may differ (chance is involved), `@pings` PINGs of the server are part of the talk; elsewhere they are
answered and left out. Connections still open at the end must have no unread bytes.
"""

import json
import random
import re
import select
import signal
import socket
import time

from broker import PATIENCE, until

ANSWER_TIMEOUT_S = 30.0
# One by one costs a system call and a pause per byte: long runs (oversized lines) send their middle at once.
BYTEWISE_EDGE = 96

SEND = re.compile(r"^(C\d+)> ?(.*)$")
EXPECT = re.compile(r"^(C\d+)< ?(.*)$")
ONE_OF = re.compile(r"^((?:C\d+ )+)one of< ?(.*)$")
VERB = re.compile(r"^(C\d+) (\w+) ?(.*)$")
SERVER = re.compile(r"^server (\w+) (.*)$")


class TalkError(Exception):
    """A .talk file is malformed."""


class Mismatch(Exception):
    """The broker answered something else."""


class Talk:
    def __init__(self, name, options):
        self.name = name
        self.options = options
        self.steps = []  # (line number, text)


class TalkFile:
    def __init__(self, path):
        self.path = path
        self.config = ""
        self.later = None
        self.talks = []
        with open(path, encoding="utf-8") as file:
            self._parse(file.read().split("\n"))

    def _parse(self, lines):
        in_config = False
        for number, line in enumerate(lines, 1):
            if in_config:
                if line == "}":
                    in_config = False
                else:
                    self.config += line + "\n"
            elif not line.strip() or line.startswith("#"):
                continue
            elif line.startswith("later ") and not self.talks:
                self.later = line[6:].strip()
            elif line == "server {":
                in_config = True
            elif line.startswith("== "):
                words = line[3:].split()
                options = {word for word in words if word.startswith("@")}
                if unknown := options - {"@whole", "@own", "@loose", "@pings"}:
                    raise TalkError(f"{self.path}:{number}: unknown option {unknown}")
                self.talks.append(Talk(" ".join(word for word in words if word not in options), options))
            elif not self.talks:
                raise TalkError(f"{self.path}:{number}: step before the first == talk")
            else:
                self.talks[-1].steps.append((number, line.rstrip()))
        if in_config:
            raise TalkError(f"{self.path}: server {{ is not closed")


def unescape(text):
    """The bytes a line of a talk stands for."""
    text = re.sub(r"\$\{(.+?)\*(\d+)\}", lambda m: m[1] * int(m[2]), text)
    out = bytearray()
    data = text.encode("utf-8")
    i = 0
    while i < len(data):
        if data[i] != 0x5C:
            out.append(data[i])
            i += 1
            continue
        kind = data[i + 1:i + 2]
        if kind == b"x":
            out.append(int(data[i + 2:i + 4], 16))
            i += 4
            continue
        try:
            out += {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}[kind]
        except KeyError:
            raise TalkError(f"unknown escape in {text!r}") from None
        i += 2
    return bytes(out)


def duration_s(text):
    match = re.fullmatch(r"(\d+)(ms|s)", text)
    if not match:
        raise TalkError(f"not a duration: {text!r}")
    return int(match[1]) / (1000 if match[2] == "ms" else 1)


class Whole:
    name = "whole"
    paced = False

    def pieces(self, data):
        return [data]


class Cut:
    """Up to four cuts per send, the places drawn from a seed that the report names."""

    paced = True

    def __init__(self, seed):
        self.name = f"cut seed {seed}"
        self.random = random.Random(seed)

    def pieces(self, data):
        count = min(len(data) - 1, self.random.randint(1, 4))
        cuts = sorted(self.random.sample(range(1, len(data)), count)) if count > 0 else []
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]


class Bytewise:
    name = "byte by byte"
    paced = True

    def pieces(self, data):
        if len(data) <= 2 * BYTEWISE_EDGE:
            return [data[i:i + 1] for i in range(len(data))]
        head, middle, tail = data[:BYTEWISE_EDGE], data[BYTEWISE_EDGE:-BYTEWISE_EDGE], data[-BYTEWISE_EDGE:]
        return [*(head[i:i + 1] for i in range(len(head))), middle, *(tail[i:i + 1] for i in range(len(tail)))]


class Connection:
    def __init__(self, broker, name, splitter, count_pings):
        self.name = name
        self.splitter = splitter
        self.count_pings = count_pings
        self.buffer = b""
        self.eof = False
        self.heard = []  # what the talk consumed, for comparing two brokers
        self.info = {}
        self.wire = broker.wire
        self.sock = socket.create_connection((broker.host, broker.port), ANSWER_TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened = time.monotonic()

    def pump(self, wait_s):
        """Take what has arrived, waiting up to wait_s for something. False when nothing came."""
        if self.eof:
            return False
        if not select.select([self.sock], [], [], max(0.0, wait_s))[0]:
            return False
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        self.eof = not data
        self.buffer += data
        return bool(data)

    def skip_pings(self):
        while not self.count_pings and self.buffer.startswith(b"PING\r\n"):
            self.buffer = self.buffer[6:]
            self._write(b"PONG\r\n")

    def _write(self, data):
        try:
            self.sock.settimeout(ANSWER_TIMEOUT_S)
            self.sock.sendall(data)
        except OSError:
            return False  # closed by the server: what it said before is judged, not the refusal to listen on
        return True

    def send(self, data):
        for piece in self.splitter.pieces(data):
            if self.eof or not self._write(piece):
                return
            if self.splitter.paced:
                self.pump(0.0002)

    def take(self, size):
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        self.heard.append(data)
        return data

    def expect(self, wanted, timeout_s=ANSWER_TIMEOUT_S):
        end = time.monotonic() + timeout_s
        while True:
            if not wanted.startswith(b"PING"):
                self.skip_pings()
            if self.buffer.startswith(wanted):
                self.take(len(wanted))
                return
            if not wanted.startswith(self.buffer) and not b"PING\r\n".startswith(self.buffer):
                raise Mismatch(f"{self.name}: expected {shown(wanted)}, got {shown(self.buffer)}")
            if self.eof:
                raise Mismatch(f"{self.name}: expected {shown(wanted)}, closed after {shown(self.buffer)}")
            if not self.pump(end - time.monotonic()) and time.monotonic() >= end:
                raise Mismatch(f"{self.name}: expected {shown(wanted)}, only {shown(self.buffer)} came")

    def line(self, timeout_s=ANSWER_TIMEOUT_S):
        end = time.monotonic() + timeout_s
        while True:
            self.skip_pings()
            at = self.buffer.find(b"\r\n")
            if at >= 0:
                return self.take(at + 2)[:-2]
            if self.eof:
                raise Mismatch(f"{self.name}: expected a line, closed after {shown(self.buffer)}")
            if not self.pump(end - time.monotonic()) and time.monotonic() >= end:
                raise Mismatch(f"{self.name}: expected a line, only {shown(self.buffer)} came")

    def read_info(self):
        line = self.line()
        if not line.startswith(b"INFO {") or not line.endswith(b"} "):
            raise Mismatch(f"{self.name}: expected `INFO {{json}} `, got {shown(line)}")
        self.info = json.loads(as_loopback(line[5:], self.wire))

    def silent(self, time_s):
        end = time.monotonic() + time_s
        while (left := end - time.monotonic()) > 0:
            self.pump(left)
            self.skip_pings()
            if self.buffer or self.eof:
                raise Mismatch(f"{self.name}: expected silence, got {shown(self.buffer)}{' and EOF' * self.eof}")

    def closed(self, within_s, after_s):
        end = time.monotonic() + within_s
        while not self.eof and time.monotonic() < end:
            self.pump(end - time.monotonic())
        self.skip_pings()
        if self.buffer:
            raise Mismatch(f"{self.name}: expected only a close, got {shown(self.buffer)}")
        if not self.eof:
            raise Mismatch(f"{self.name}: not closed within {within_s} s")
        lasted_s = time.monotonic() - self.opened
        if lasted_s < after_s:
            raise Mismatch(f"{self.name}: closed {lasted_s:.2f} s after it was opened, not before {after_s} s expected")
        self.heard.append(b"<closed>")

    def finish(self):
        self.pump(0)
        self.skip_pings()
        self.sock.close()
        if self.buffer:
            raise Mismatch(f"{self.name}: unread at the end: {shown(self.buffer)}")


def as_loopback(data, wire):
    """What was said over another wire, with the addresses it would have named over loopback."""
    for address in (wire.host, wire.client_ip):
        data = data.replace(address.encode(), b"127.0.0.1")
    return data


def shown(data):
    text = repr(bytes(data[:160]))[1:]
    return text + ("…" if len(data) > 160 else "")


class Player:
    """Holds one talk with one broker. `heard` afterwards: connection name → bytes consumed, in order."""

    def __init__(self, broker, talk, splitter):
        self.broker = broker
        self.talk = talk
        self.splitter = splitter
        self.connections = {}
        self.heard = {}

    def play(self):
        where = 0
        try:
            for where, text in self.talk.steps:
                self.step(text)
            for name, connection in self.connections.items():
                connection.finish()
                self.heard[name] = connection.heard
            self.heard.update({name: c.heard for name, c in self.connections.items()})
        except (Mismatch, TalkError, ValueError) as error:
            raise Mismatch(f"line {where}: {error}") from None
        except OSError as error:
            raise Mismatch(f"line {where}: {error} (server {'alive' if self.broker.alive() else 'gone'})") from None
        finally:
            for connection in self.connections.values():
                connection.sock.close()

    def connection(self, name):
        if name not in self.connections:
            self.connections[name] = Connection(self.broker, name, self.splitter, "@pings" in self.talk.options)
            self.connections[name].read_info()
        return self.connections[name]

    def step(self, text):
        if match := SEND.match(text):
            self.connection(match[1]).send(unescape(match[2]))
        elif match := EXPECT.match(text):
            connection = self.connection(match[1])
            if match[2].startswith("~"):
                line = connection.line().decode("utf-8", "replace")
                if not re.fullmatch(match[2][1:], line):
                    raise Mismatch(f"{match[1]}: expected a line like {match[2][1:]}, got {shown(line.encode())}")
            else:
                connection.expect(unescape(match[2]) + b"\r\n")
        elif match := ONE_OF.match(text):
            self.one_of([self.connection(name) for name in match[1].split()], unescape(match[2]) + b"\r\n")
        elif match := SERVER.match(text):
            self.server(match[1], match[2])
        elif match := VERB.match(text):
            self.verb(match[1], match[2], match[3])
        elif text.startswith("wait "):
            time.sleep(duration_s(text[5:]))
        else:
            raise TalkError(f"not a step: {text!r}")

    def verb(self, name, verb, rest):
        if verb == "refused":
            def refused():
                try:
                    socket.create_connection((self.broker.host, self.broker.port), 1).close()
                except ConnectionError:
                    return True
                except OSError:
                    return self.broker.wire.own_tcp  # a TCP of the process's own ends with it, and then nobody refuses
                return False
            if not until(refused):
                raise Mismatch(f"{name}: connection was accepted")
            return
        connection = self.connection(name)
        if verb == "hello":
            fields = {"verbose": False, "pedantic": False, **json.loads(rest or "{}")}
            connection.send(b"CONNECT " + json.dumps(fields).encode() + b"\r\nPING\r\n")
            connection.expect(b"PONG\r\n")
        elif verb == "info":
            check_info(name, connection.info, rest)
        elif verb == "gets" and rest == "info":
            connection.read_info()
        elif verb == "sync":
            connection.send(b"PING\r\n")
            connection.expect(b"PONG\r\n")
        elif verb == "silent":
            connection.silent(duration_s(rest))
        elif verb == "closed":
            match = re.fullmatch(r"(?:within (\w+))? ?(?:after (\w+))?", rest)
            connection.closed(duration_s(match[1]) * PATIENCE if match[1] else ANSWER_TIMEOUT_S,
                              duration_s(match[2]) if match[2] else 0)
        elif verb == "drop":
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.eof = True
        elif verb == "reason":
            if connection.eof:
                connection.sock.close()  # a server may wait a while for that before it books the connection as closed
            reason = self.broker.close_reason(connection.info["client_id"])
            if reason != json.loads(rest):
                raise Mismatch(f"{name}: close reason {reason!r}, expected {rest}")
        elif verb != "open":
            raise TalkError(f"unknown verb {verb!r}")

    def server(self, verb, rest):
        if verb == "signal":
            self.broker.signal(getattr(signal, "SIG" + rest))
        elif verb == "exits":
            match = re.fullmatch(r"(\d+)(?: within (\w+))?", rest)
            if until(lambda: not self.broker.alive(), duration_s(match[2]) if match[2] else 5) is None:
                raise Mismatch("server still runs")
            if self.broker.process.returncode != int(match[1]):
                raise Mismatch(f"server exited with {self.broker.process.returncode}, expected {match[1]}")
        else:
            raise TalkError(f"unknown server verb {verb!r}")

    def one_of(self, candidates, wanted):
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            having = [c for c in candidates if c.buffer.startswith(wanted)]
            if len(having) > 1:
                raise Mismatch(f"{' and '.join(c.name for c in having)} both got {shown(wanted)}")
            if having:
                having[0].take(len(wanted))
                return
            ready = select.select([c.sock for c in candidates if not c.eof], [], [], max(0, end - time.monotonic()))[0]
            if not ready:
                raise Mismatch(f"none of {', '.join(c.name for c in candidates)} got {shown(wanted)}")
            for candidate in candidates:
                candidate.pump(0)
                candidate.skip_pings()


def check_info(name, info, rest):
    for part in rest.split():
        key, _, wanted = part.partition("=")
        value = info.get(key)
        if wanted == "none":
            good = key not in info
        elif wanted.startswith("~"):
            text = value if isinstance(value, str) else json.dumps(value)
            good = key in info and re.fullmatch(wanted[1:], text) is not None
        else:
            good = key in info and value == json.loads(wanted) and type(value) is type(json.loads(wanted))
        if not good:
            raise Mismatch(f"{name}: INFO {key} is {json.dumps(value) if key in info else 'absent'}, expected {wanted}")
