"""What run.py does from the client's namespace, one function per scene; each prints one line of JSON. Plain sockets: the
scenes are about bytes, and no client library is as fast, or stops reading when told to."""

import contextlib
import errno
import json
import os
import resource
import select
import socket
import struct
import sys
import threading
import time

def address_of(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


# SERVERS in the environment: HOST:PORT,... of others than the broker.
SERVERS = [address_of(text) for text in os.environ.get("SERVERS", "10.66.0.2:4222").split(",")]
SERVER = SERVERS[0]
PIECE = 1 << 18
WINDOW = 16 << 20  # bytes on their way: less than what makes a slow consumer


class Client:
    def __init__(self, timeout=120, receive_buffer=None, server=SERVER):
        self.socket = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(server)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 20)
        assert self.file.readline().startswith(b"INFO ")
        self.send(b'CONNECT {"verbose":false,"headers":true}\r\n')
        self.flush()

    def send(self, data):
        self.socket.sendall(data)

    def flush(self):
        self.send(b"PING\r\n")
        while (line := self.file.readline()) != b"PONG\r\n":
            assert line == b"PING\r\n", line
            self.send(b"PONG\r\n")

    def answer_pings(self):
        """For one who only writes: who never answers is a stale connection after some minutes."""
        while select.select([self.socket], [], [], 0)[0]:
            line = self.file.readline()
            assert line == b"PING\r\n", line
            self.send(b"PONG\r\n")

    def message(self):
        """The payload of the next message."""
        return self.subject_and_message()[1]

    def subject_and_message(self):
        while True:
            line = self.file.readline()
            if line == b"PING\r\n":
                self.send(b"PONG\r\n")
                continue
            if not line.startswith(b"MSG "):
                raise AssertionError(f"expected a message, got {line!r}")
            size = int(line.split()[-1])
            payload = self.file.read(size + 2)
            assert len(payload) == size + 2 and payload.endswith(b"\r\n"), "cut short"
            return line.split()[1], memoryview(payload)[:size]


class Pattern:
    """Payloads that differ everywhere and are cheap to make and to check."""

    def __init__(self):
        self.noise = os.urandom(2 * PIECE)

    def piece(self, n):
        at = n * 4099 % PIECE
        return n.to_bytes(8, "big") + self.noise[at:at + PIECE - 8]


def transfer(megabytes):
    """Through the broker and back: every byte crosses the wire in both directions."""
    pattern, pieces = Pattern(), megabytes * (1 << 20) // PIECE
    reader, writer = Client(), Client()
    reader.send(b"SUB bulk 1\r\n")
    reader.flush()
    room = threading.Semaphore(WINDOW // PIECE)
    failed = []

    def write():
        try:
            for n in range(pieces):
                while not room.acquire(timeout=1):
                    if failed:
                        return
                writer.send(b"PUB bulk %d\r\n" % PIECE + pattern.piece(n) + b"\r\n")
                writer.answer_pings()
        except (OSError, AssertionError) as error:
            failed.append(error)

    started = time.monotonic()
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for n in range(pieces):
            got = reader.message()
            assert got == pattern.piece(n), f"piece {n} differs"
            room.release()
    except BaseException as error:
        failed.append(error)
        raise
    thread.join()
    writer.flush()
    took = time.monotonic() - started
    print(json.dumps({"mbytes_per_s": round(megabytes * 1.048576 / took, 2), "seconds": round(took, 2)}))


def crowd(count):
    """Many connections at once, each with a subscription; every one gets its message."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1000, count + 1000))
    started = time.monotonic()
    sockets = []
    for first in range(0, count, 500):
        group = []
        for n in range(first, min(first + 500, count)):
            each = socket.socket()
            each.setblocking(False)
            # One address has some 28,000 ports; more clients come from more addresses.
            each.connect_ex(SERVER)
            group.append(each)
        for n, each in enumerate(group):
            each.setblocking(True)
            each.settimeout(60)
            each.sendall(b'CONNECT {"verbose":false}\r\nSUB crowd.%d 1\r\nSUB all 2\r\nPING\r\n' % (first + n))
        for each in group:
            heard = b""
            while b"PONG\r\n" not in heard:
                data = each.recv(4096)
                assert data, "closed"
                heard += data
        sockets += group
    connected = time.monotonic() - started
    publisher = Client()
    publisher.send(b"PUB all 5\r\nhello\r\n")
    started = time.monotonic()
    for each in sockets:
        heard = b""
        while not heard.endswith(b"hello\r\n"):
            data = each.recv(4096)
            assert data, "closed"
            heard += data
        assert heard.replace(b"PING\r\n", b"") == b"MSG all 2 5\r\nhello\r\n", heard
    print(json.dumps({"connections": count, "connect_s": round(connected, 2), "fan_out_s": round(time.monotonic() - started, 2)}),
          flush=True)
    if "hold" in sys.argv:
        sys.stdin.readline()


def leftovers(count):
    """Connects from ports of its own choice; told that the broker has been killed and is back, closes what it has and connects from
    the same ports: each as soon as its old connection is gone, which its kernel learns from nobody but the new broker."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1000, count + 1000))
    first, sockets = 20000, {}

    def attempt(port):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind(("", port))
            each.settimeout(60)
            each.connect(SERVER)
        except OSError as error:  # the port's last connection is there still
            each.close()
            return error.errno if error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ECONNRESET) else "refused"
        assert each.recv(4096).startswith(b"INFO ")
        sockets[port] = each
        return 0

    started = time.monotonic()
    assert not any(attempt(port) for port in range(first, first + count)), "a port is taken"
    print(json.dumps({"first_s": round(time.monotonic() - started, 2)}), flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    for each in sockets.values():
        each.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):  # unread bytes would make the end a reset of its own
            each.recv(65536)
        each.close()
    sockets.clear()
    ports, turns = list(range(first, first + count)), 0
    while ports and time.monotonic() - started < 300:
        turns += 1
        ports = [port for port in ports if attempt(port)]
    print(json.dumps({"connections": len(sockets), "again_s": round(time.monotonic() - started, 2), "turns": turns}), flush=True)


def stopped_reader(seconds):
    """A reader that stops for a while with a small window, then reads on: nothing is missing, others are not held up."""
    stopped, other, writer = Client(receive_buffer=65536), Client(), Client()
    stopped.send(b"SUB slow 1\r\n")
    stopped.flush()
    other.send(b"SUB quick 1\r\n")
    other.flush()
    pattern, pieces = Pattern(), 64  # 16 MiB: the broker keeps it
    for n in range(pieces):
        writer.send(b"PUB slow %d\r\n" % PIECE + pattern.piece(n) + b"\r\n")
    writer.flush()
    worst, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.monotonic()
        writer.send(b"PUB quick 2\r\nok\r\n")
        assert other.message() == b"ok"
        worst = max(worst, time.monotonic() - started)
        time.sleep(0.05)
    for n in range(pieces):
        assert stopped.message() == pattern.piece(n), f"piece {n} differs"
    print(json.dumps({"others_worst_ms": round(worst * 1e3, 1)}))


def cut_off():
    """A reader that stops for longer than it may: its connection ends, the others' do not."""
    stopped, writer = Client(receive_buffer=65536), Client()
    stopped.send(b"SUB slow 1\r\n")
    stopped.flush()
    pattern, pieces = Pattern(), 64
    started = time.monotonic()
    for n in range(pieces):
        writer.send(b"PUB slow %d\r\n" % PIECE + pattern.piece(n) + b"\r\n")
    while True:
        writer.flush()
        time.sleep(0.1)
        state = stopped.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state != 1:  # no longer established
            break
        assert time.monotonic() - started < 60, "not cut off"
    print(json.dumps({"seconds": round(time.monotonic() - started, 1)}))


def steady(number=0):
    """Messages all the time, checked for order; ends with its input. Says how many got through in each second. Several at a time
    have a number each."""
    subject = b"tick%d" % number if number else b"tick"
    reader, writer = Client(), Client()
    reader.send(b"SUB %s 1\r\n" % subject)
    reader.flush()
    end = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), end.set()), daemon=True).start()
    counts, n, second, times = [], 0, time.monotonic(), []
    print("going", flush=True)
    while not end.is_set():
        batch = b"".join(b"PUB %s 8\r\n%08d\r\n" % (subject, n + k) for k in range(100))
        writer.send(batch)
        for _ in range(100):
            assert reader.message() == b"%08d" % n, "lost or out of order"
            n += 1
        if time.monotonic() - second >= 1:
            counts.append(n - sum(counts))
            second = time.monotonic()
        times.append((time.monotonic(), n))
    print(json.dumps({"messages": n, "per_second": counts, "times": times}))


def mesh(count):
    """Every server of SERVERS publishes to subscribers at every other: all get everything, once, in order, and requests are
    answered from anywhere."""
    subscribers = [Client(server=server) for server in SERVERS]
    publishers = [Client(server=server) for server in SERVERS]
    for n, each in enumerate(subscribers):
        each.send(b"SUB all.* 1\r\nSUB ask.%d 2\r\n" % n)
        each.flush()
    # Interest takes a moment to get to all; until one from everywhere has been seen everywhere, nothing counts.
    deadline = time.monotonic() + 30
    for n, publisher in enumerate(publishers):
        for subscriber in subscribers:
            subscriber.socket.settimeout(1)
            while True:
                assert time.monotonic() < deadline, f"server {n} is not heard everywhere"
                publisher.send(b"PUB all.%d 5\r\nready\r\n" % n)
                publisher.flush()
                try:
                    subscriber.message()
                    break
                except TimeoutError:
                    subscriber.file = subscriber.socket.makefile("rb", 1 << 20)
    started = time.monotonic()
    for k in range(count):
        for n, publisher in enumerate(publishers):
            publisher.send(b"PUB all.%d 8\r\n%08d\r\n" % (n, k))
    for publisher in publishers:
        publisher.flush()
    for subscriber in subscribers:
        subscriber.socket.settimeout(60)
        expected = {n: 0 for n in range(len(publishers))}
        while any(next_one < count for next_one in expected.values()):
            subject, payload = subscriber.subject_and_message()
            if payload == b"ready":
                continue
            n = int(subject.split(b".")[1])
            assert int(bytes(payload)) == expected[n], f"from {n}: {bytes(payload)}, not {expected[n]}"
            expected[n] += 1
    took = time.monotonic() - started
    # A request at every server, answered at every other.
    for n, asker in enumerate(publishers):
        asker.send(b"SUB reply.%d 3\r\n" % n)
        asker.flush()
    time.sleep(1)
    for n, asker in enumerate(publishers):
        for m, answerer in enumerate(subscribers):
            asker.send(b"PUB ask.%d reply.%d 1\r\n?\r\n" % (m, n))
            asker.flush()
            answerer.message()
            answerer.send(b"PUB reply.%d 1\r\n!\r\n" % n)
            assert asker.message() == b"!"
    print(json.dumps({"servers": len(SERVERS), "messages": count * len(SERVERS) ** 2, "seconds": round(took, 2)}))


def switch(vlan):
    """A switch with an access port, r2, and a trunk, r0: not every kernel has VLANs. Ends with its input."""
    ends = {}
    for name in ("r0", "r2"):
        end = ends[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.bind((name, 0))
        end.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes tags off before we see a frame
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    trunk, access = ends["r0"], ends["r2"]
    tag = struct.pack("!HH", 0x8100, vlan)
    print("going", flush=True)
    while True:
        for end in select.select([trunk, access, sys.stdin], [], [])[0]:
            if end is sys.stdin:
                return
            frame, controls, _, (_, _, kind, _, _) = end.recvmsg(2048, 64)
            if kind == 4:  # our own
                continue
            try:
                if end is access:
                    trunk.send(frame[:12] + tag + frame[12:])
                    continue
                status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", controls[0][2])
                if status & 0x10 and tci & 0xfff == vlan:
                    access.send(frame)
            except OSError:
                pass  # a full queue loses frames, as switches do


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def inject(client_port, count):
    """Somebody who knows both addresses and ports, and nothing else: resets and data with numbers by chance, and ARP requests from
    everybody. The broker's MAC is the last word of the command line."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    end.bind(("r0", 0))
    mac = bytes.fromhex(sys.argv[-1].replace(":", ""))
    client, broker = socket.inet_aton("10.66.1.2"), socket.inet_aton(SERVER[0])

    def tcp(flags, payload):
        seq, ack = int.from_bytes(os.urandom(4), "big"), int.from_bytes(os.urandom(4), "big")
        head = struct.pack("!HHIIBBHHH", client_port, SERVER[1], seq, ack, 0x50, flags, 1000, 0, 0)
        total = checksum(client + broker + struct.pack("!HH", 6, len(head) + len(payload)) + head + payload)
        head = head[:16] + struct.pack("!H", total) + head[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0, client, broker)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        end.send(mac + b"\2\0\0\0\0\x63" + b"\x08\0" + ip + head + payload)

    for n in range(count):
        tcp(0x04, b"")
        tcp(0x18, b"PUB tick 8\r\nforged!!\r\n")
        sender = b"\2" + os.urandom(5)
        end.send(mac + sender + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + sender
                 + b"\x0a\x42\0" + bytes([3 + n % 200]) + bytes(6) + broker)
        if n % 64 == 0:
            time.sleep(0.002)
    print(json.dumps({"each": count}))


def ended():
    """Connections that do nothing but wait for their end."""
    clients = [Client() for _ in range(20)]
    print("connected", flush=True)
    for each in clients:
        while line := each.file.readline():
            assert line.startswith((b"INFO ", b"PING", b"-ERR")), line
    print(json.dumps({"connections": len(clients), "ended": len(clients)}))


def hello():
    """One connection, from nothing to an answer."""
    started = time.monotonic()
    Client().flush()
    print(json.dumps({"ms": round((time.monotonic() - started) * 1e3, 1)}))


if __name__ == "__main__":
    globals()[sys.argv[1]](*[int(word) for word in sys.argv[2:] if word.isdigit()])
