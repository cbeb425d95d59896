"""Peers that are none: whatever comes to the route port, it is closed, said why, and nothing else suffers."""

import json
import random
import time

from client import PATIENCE_S
from nodes import Cluster
from registry import case, check, equal


class Peer:
    """A raw connection to a route port."""

    def __init__(self, node, timeout_s=PATIENCE_S):
        self.sock = node.dial_route()
        self.sock.settimeout(timeout_s)
        self.buffer = b""
        self.info = None

    def line(self):
        while b"\r\n" not in self.buffer:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def greet(self):
        line = self.line()
        check(line.startswith(b"INFO "), f"a route port says {line!r} first")
        self.info = json.loads(line[5:])
        return self.info

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass  # closed while we were talking: closed() will show it

    def join(self, name, cluster="c1", **more):
        """As a 2.9 server would: CONNECT and INFO at once, no pool, no compression."""
        self.greet()
        self.send(b"CONNECT " + json.dumps({"echo": True, "verbose": False, "pedantic": False, "tls_required": False, "headers": True,
                                            "name": name, "cluster": cluster, "lnoc": True}).encode() + b"\r\n")
        self.send(b"INFO " + json.dumps({"server_id": name, "server_name": name, "version": "2.9.10", "go": "go1.19", "host": "127.0.0.1",
                                         "port": 1, "headers": True, "max_payload": 1 << 20, "proto": 2, "cluster": cluster, "lnoc": True,
                                         **more}).encode() + b"\r\n")
        return self

    def ping(self):
        """True once everything sent before was taken."""
        self.send(b"PING\r\n")
        while True:
            line = self.line()
            if line == b"PONG":
                return True
            if line == b"PING":
                self.send(b"PONG\r\n")

    def until(self, enough):
        """Lines from here on until there are enough of them, without PINGs and what concerns the system account."""
        lines = []
        while not enough(lines):
            line = self.line()
            if line == b"PING":
                self.send(b"PONG\r\n")
            elif b"$SYS" not in line:
                lines.append(line)
        return lines

    def closed(self):
        """Reads until the server closes; all it said."""
        said = self.buffer
        try:
            while True:
                data = self.sock.recv(1 << 16)
                if not data:
                    return said
                said += data
        except ConnectionError:
            return said
        finally:
            self.sock.close()


def closed_with(node, sent, wanted=b"", join=False):
    """`sent` makes the node close the connection; `wanted` is among the last it says."""
    peer = Peer(node)
    if join:
        peer.join(f"PEER{random.randrange(1 << 30)}")
    else:
        peer.greet()
    peer.send(sent)
    try:
        said = peer.closed()
    except TimeoutError:
        raise AssertionError(f"still open after {sent[:60]!r}") from None
    check(wanted in said, f"after {sent[:60]!r}: {said[-200:]!r}, without {wanted!r}")


def nothing_suffered(cluster, sub, speaker, started):
    """The listener that was there from the start hears every message of the one who speaks on the other node."""
    for n in range(started, started + 50):
        speaker.publish("t.calm", str(n))
    speaker.flush()
    equal([int(m.payload) for m in sub.wait(started + 50)], list(range(started + 50)), "messages between two good nodes")
    cluster.formed()


@case(nodes=2, short=True)
def no_peer_at_all(mix):
    with Cluster(mix) as cluster:
        cluster.start()
        sub, speaker = cluster.client(0).sub("t.calm"), cluster.client(1)
        cluster.settle_interest({0: ["t.calm"]})
        node = cluster[0]
        chance = random.Random(3)
        for sent in (b"GET /routez HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), b"\x00" * 100,
                     b"HELLO\r\n", b"\xff\x06\x00\x00S2sTwO" + bytes(100)):
            closed_with(node, sent)
        for _ in range(20):
            closed_with(node, b"Z" + chance.randbytes(chance.randrange(1, 2000)))
        nothing_suffered(cluster, sub, speaker, 0)


@case(nodes=2, short=True)
def the_wrong_kind_of_peer(mix):
    with Cluster(mix) as cluster:
        cluster.start()
        sub, speaker = cluster.client(0).sub("t.calm"), cluster.client(1)
        cluster.settle_interest({0: ["t.calm"]})
        node = cluster[0]
        connect = {"verbose": False, "pedantic": False, "name": "X", "cluster": "c1"}

        def line(**more):
            return b"CONNECT " + json.dumps({**connect, **more}).encode() + b"\r\n"
        closed_with(node, line(lang="go", protocol=1), b"-ERR 'attempted to connect to")
        closed_with(node, line(gateway="G"), b"-ERR 'Rejecting connection from gateway \"G\" on the Route port'")
        closed_with(node, line(cluster="other"), b"-ERR 'Rejecting connection, cluster name \"other\" does not match \"c1\"'")
        closed_with(node, b"CONNECT {\"cluster\":\r\n")
        closed_with(node, b"CONNECT " + b"[" * 3000 + b"\r\n")
        # Ourselves.
        peer = Peer(node)
        info = peer.greet()
        peer.send(line(name=info["server_id"]) + b"INFO " + json.dumps(info).encode() + b"\r\n")
        peer.closed()
        nothing_suffered(cluster, sub, speaker, 0)


@case(nodes=2, short=True)
def a_peer_that_goes_mad(mix):
    """Joined as it should, then lines that no server writes."""
    with Cluster(mix) as cluster:
        cluster.start()
        sub, speaker = cluster.client(0).sub("t.calm"), cluster.client(1)
        cluster.settle_interest({0: ["t.calm"]})
        node = cluster[0]
        for sent in (b"RS+\r\n", b"RS+ $G\r\n", b"RS+ $G t.x q notanumber more\r\n", b"RS-\r\n", b"RMSG\r\n", b"RMSG $G t.x\r\n",
                     b"RMSG $G t.x notanumber\r\n", b"RMSG $G t.x -5\r\n", b"RMSG $G t.x 99999999999999999999\r\n",
                     b"RMSG $G t.x * q 3\r\nabc\r\n", b"RMSG $G t.x 3\r\nabcde\r\n", b"HMSG $G t.x 3\r\nabc\r\n", b"HMSG $G t.x 9 3\r\nabc\r\n",
                     b"INFO {\"server_id\":\r\n", b"NONSENSE\r\n", b"\r\r\r\r"):
            closed_with(node, sent, join=True)
        nothing_suffered(cluster, sub, speaker, 0)


@case(nodes=2)
def half_a_handshake(mix):
    """A connection that says nothing, or joins and then never answers a PING, goes away by itself; others join meanwhile."""
    with Cluster(mix, ["ping_interval: 1s, ping_max: 1" if mix[0].letter != "D" else "", ""],
                 ["ping_interval: 1s\nping_max: 1", ""]) as cluster:
        cluster.start()
        mute = Peer(cluster[0])
        mute.join("MUTE")
        mute.closed()
        cluster.probe()


@case(nodes=2, short=True)
def cut_at_every_place(mix):
    """A good peer whose bytes come in pieces is no worse for it; and what it asks for, it gets."""
    with Cluster(mix) as cluster:
        cluster.start()
        peer = Peer(cluster[0])
        peer.join("SLOW1")
        said = b"RS+ $G t.slow\r\nRS+ $G t.slow.q workers 2\r\nRS+ $G t.gone\r\nRS- $G t.gone\r\nRMSG $G t.calm 5\r\nhello\r\n"
        sub = cluster.client(0).sub("t.calm")
        for byte in said:
            peer.send(bytes([byte]))
            time.sleep(0.0005)
        peer.ping()
        sub.wait(1)
        equal(sub.payloads(), [b"hello"], "a message in pieces")
        speaker = cluster.client(0)
        speaker.publish("t.slow", b"one")
        speaker.publish("t.slow.q", b"two", headers={"A": "b"})
        speaker.publish("t.gone", b"three")
        speaker.flush()
        lines = []
        while len(lines) < 2:
            line = peer.line()
            if line.startswith((b"RMSG $G t.", b"HMSG $G t.")):
                lines.append(line)
                if line.startswith(b"RMSG"):
                    equal(peer.line(), b"one", "payload")
                else:
                    equal([peer.line() for _ in range(4)], [b"NATS/1.0", b"A: b", b"", b"two"], "headers and payload")
        equal(lines, [b"RMSG $G t.slow 3", b"HMSG $G t.slow.q | workers 18 21"], "what was sent to the peer")
        peer.sock.close()


@case(nodes=2, short=True)
def a_stream_in_any_pieces(mix):
    """Messages come alone and many alike, in one piece and in small ones; every subscriber gets what is meant for it, and the counts
    are true."""
    with Cluster(mix) as cluster:
        cluster.start()
        chance = random.Random(7)
        one, two = cluster.client(0), cluster.client(0)
        subs = [one.sub("t.run.a"), two.sub("t.run.a"), two.sub("t.run.*"), one.sub("t.run.c"), one.sub("t.run.d", "q")]
        wanted = [[] for _ in subs]
        text, count = [], 0
        for _ in range(400):
            subject = "t.run." + chance.choice("aabbccde")
            reply = chance.choice(["", "", "", "", " t.reply"])
            verb = chance.choice([b"RMSG", b"RMSG", b"RMSG", b"rmsg", b"HMSG"])
            groups = chance.random() < 0.1
            size = chance.choice([0, 1, 16, 16, 100, 5000])
            for n in range(chance.choice([1, 2, 30, 200 if size < 1000 else 20])):
                body = chance.choice(b"xyz").to_bytes(1, "big") * (size + (n == 5))
                middle = (" + t.reply q" if reply else " | q") if groups else reply
                headers = b"NATS/1.0\r\nA: b\r\n\r\n" if verb == b"HMSG" else b""
                sizes = f"{len(headers)} {len(headers) + len(body)}" if headers else str(len(body))
                text.append(verb + f" $G {subject}{middle} {sizes}\r\n".encode() + headers + body + b"\r\n")
                count += 1
                for sub, list_of_it in zip(subs, wanted):
                    if (groups if sub.queue else True) and sub.subject in (subject, "t.run.*"):
                        list_of_it.append((subject, reply.strip(), body, b"b" if headers else b""))
        text = b"".join(text)
        for pieces in (1 << 20, 70_000, 1400):
            peer = Peer(cluster[0]).join(f"STREAM{pieces}")
            peer.ping()
            for at in range(0, len(text), pieces):
                peer.send(text[at:at + pieces])
            peer.ping()
            for sub, list_of_it in zip(subs, wanted):
                got = [(m.subject, m.reply or "", m.payload, b"b" if m.headers else b"") for m in sub.wait(len(list_of_it))]
                check(got == list_of_it, f"{sub.subject} in pieces of {pieces}: {len(got)} messages, expected {len(list_of_it)}, alike up to number "
                      f"{next((n for n, (a, b) in enumerate(zip(got, list_of_it)) if a != b), min(len(got), len(list_of_it)))}")
                sub.messages.clear()
            row = cluster[0].routes()[f"STREAM{pieces}"][0]
            equal(row["in_msgs"], count, "in_msgs of the route")
            peer.sock.close()


@case(nodes=2, short=True, needs=lambda mix: mix[0] == "P")
def interest_for_ever(mix):
    """A peer may ask for so many subscriptions of an account; with one more it is cut off, said why, and nothing of it is left."""
    most = 5000
    with Cluster(mix, extra=[f"max_peer_subscriptions: {most}", ""]) as cluster:
        cluster.start()
        sub, speaker = cluster.client(0).sub("t.calm"), cluster.client(1)
        cluster.settle_interest({0: ["t.calm"]})
        node = cluster[0]
        peer = Peer(node).join("GREEDY")
        peer.send(b"".join(b"RS+ $G t.greed.%d\r\n" % n for n in range(most)))
        peer.ping()
        equal(node.routes()["GREEDY"][0]["subscriptions"], most, "subscriptions of a peer at its limit")
        peer.send(b"RS- $G t.greed.1\r\nRS+ $G t.greed.one.more\r\n")
        peer.ping()
        peer.send(b"".join(b"RS+ $G t.more.%d\r\n" % n for n in range(50_000)))
        said = peer.closed()
        check(said.endswith(b"-ERR 'maximum subscriptions exceeded'\r\n"), f"said {said[-200:]!r}")
        # Taken apart over several turns, and the log is written by a thread of its own.
        deadline = time.monotonic() + PATIENCE_S
        for line in (f'maximum subscriptions exceeded: {most} of account "$G"',
                     "Router connection closed: Maximum Subscriptions Exceeded"):
            while line not in node.log():
                check(time.monotonic() < deadline, f"not in the log: {line}")
                time.sleep(0.02)
        nothing_suffered(cluster, sub, speaker, 0)
        check("GREEDY" not in node.routes(), "the peer is still listed")


@case(nodes=2)
def a_peer_that_does_not_read(mix):
    """Nobody waits for it, near or far; it is cut off when too much is pending."""
    with Cluster(mix, extra=["max_pending: 8MB", ""]) as cluster:
        cluster.start()
        peer = Peer(cluster[0]).join("STUCK")
        peer.send(b"RS+ $G t.flood\r\n")
        peer.ping()
        here, there = cluster.client(0).sub("t.flood"), cluster.client(1).sub("t.flood")
        cluster.settle_interest({0: ["t.flood"], 1: ["t.flood"]})
        speaker = cluster.client(0)
        count, payload = 3000, b"f" * 20_000
        for n in range(count):
            speaker.publish("t.flood", payload)
            if n % 100 == 99:  # so that those who read are never behind by as much themselves
                equal((len(here.wait(n + 1)), len(there.wait(n + 1))), (n + 1, n + 1), "messages beside a stuck peer")
        cluster.formed()
        peer.closed()
