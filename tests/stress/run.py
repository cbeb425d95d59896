#!/usr/bin/env python3
"""Many connections on many shards at full speed: nothing lost, nothing twice, nothing out of order.

    run.py [--server BIN] [--backend uring|epoll] [--shards N] [--seconds N] [--seed N] [--only WORD]... [--list]

Which shard a connection lands on is the kernel's choice (SO_REUSEPORT) and not visible, so every case opens dozens. Every case runs
with rings of the default size and with the smallest (`.tiny`), where records overflow: the run proves it by the broker's counters.
A case is one or two processes, each a single loop over its connections, so "after" means after: what one connection sends because
of what another received is ordered by that loop alone.
"""

import argparse
import json
import multiprocessing
import os
import random
import selectors
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "conversation"))
from broker import HOST, Broker, Tally, default_server  # noqa: E402

SMALLEST_RING = 65536
PATIENCE_S = 20  # without any progress: lost
MAX_PAYLOAD = 1 << 20
SIZES = [0, 1, 2, 100, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 8192, 16384, 65535, 65536, 300_000, MAX_PAYLOAD]


class Wrong(AssertionError):
    """The broker broke a promise."""


def check(condition, message):
    if not condition:
        raise Wrong(message)


class Client:
    """A connection in a Loop. on_message(subject, sid, reply, payload) and on_pong() are set by the case."""

    def __init__(self, loop, name):
        self.loop, self.name = loop, name
        self.sock = socket.create_connection((HOST, loop.port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.out, self.inp, self.at = bytearray(), bytearray(), 0
        self.writing = False
        self.pongs = []  # what to do at each PONG expected
        self.on_message = None
        loop.selector.register(self.sock, selectors.EVENT_READ, self)
        self.send(b'CONNECT {"verbose":false,"pedantic":false,"echo":true}\r\n')

    def send(self, data):
        self.out += data
        if not self.writing:
            self.loop.unsent.add(self)

    def publish(self, subject, payload, reply=""):
        head = f"PUB {subject} {reply} {len(payload)}\r\n" if reply else f"PUB {subject} {len(payload)}\r\n"
        self.send(head.encode() + payload + b"\r\n")

    def flush(self, then):
        self.pongs.append(then)
        self.send(b"PING\r\n")

    def write(self):
        while self.out:
            try:
                n = self.sock.send(memoryview(self.out)[:1 << 18])
            except BlockingIOError:
                break
            del self.out[:n]
        waits = bool(self.out)
        if waits != self.writing:
            self.writing = waits
            self.loop.selector.modify(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if waits else 0), self)

    def read(self):
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        check(data, f"{self.name}: the broker closed the connection, last bytes {bytes(self.inp[-200:])!r}")
        self.inp += data
        at, inp = 0, self.inp
        while True:
            end = inp.find(b"\r\n", at)
            if end < 0:
                break
            line = bytes(inp[at:end])
            if line.startswith(b"MSG "):
                words = line.decode().split(" ")
                size = int(words[-1])
                stop = end + 2 + size
                if len(inp) < stop + 2:
                    break
                check(inp[stop:stop + 2] == b"\r\n", f"{self.name}: no line end behind {line!r}")
                payload = bytes(inp[end + 2:stop])
                at = stop + 2
                self.on_message(words[1], int(words[2]), words[3] if len(words) == 5 else "", payload)
                continue
            at = end + 2
            if line == b"PONG":
                check(self.pongs, f"{self.name}: PONG without PING")
                self.pongs.pop(0)()
            elif line == b"PING":
                self.send(b"PONG\r\n")
            else:
                check(line.startswith(b"INFO "), f"{self.name}: {line[:200]!r}")
        del inp[:at]


class Loop:
    def __init__(self, port):
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.unsent = set()

    def clients(self, count, name):
        return [Client(self, f"{name}{n}") for n in range(count)]

    def settle(self, clients):
        """Until all that was sent so far has been acted on."""
        waiting = set(clients)
        for client in clients:
            client.flush(lambda client=client: waiting.discard(client))
        self.run(lambda: not waiting, lambda: f"no PONG for {sorted(c.name for c in waiting)[:8]}")

    def run(self, done, missing):
        """Until done(). `missing()` says what is, when nothing has come for a long time."""
        last = time.monotonic()
        while not done():
            while self.unsent:
                self.unsent.pop().write()
            ready = self.selector.select(1.0)
            for key, mask in ready:
                if mask & selectors.EVENT_WRITE:
                    key.data.write()
                if mask & selectors.EVENT_READ:
                    key.data.read()
            now = time.monotonic()
            if ready:
                last = now
            check(now - last < PATIENCE_S, f"nothing for {PATIENCE_S} s: {missing()}")


# ---------------------------------------------------------------------------------------------------------------------- cases
# Each: (loop, rng, prefix, seconds) -> note. Prefixes keep the processes of a case apart.


def inbox_chains(loop, rng, prefix, seconds):
    """A subscribes a fresh inbox and sends a request to B, B passes it on to C, C answers: always there, once."""
    trios, window = 24, 4
    end = time.monotonic() + seconds
    open_inboxes, counts = {}, {"answers": 0}
    everyone = []

    def trio(n):
        a, b, c = loop.clients(3, f"chain{n}.")
        everyone.extend((a, b, c))
        b.on_message = lambda subject, sid, reply, payload: b.publish(f"{prefix}.c.{n}", payload, reply)
        c.on_message = lambda subject, sid, reply, payload: c.publish(reply, payload)
        b.send(f"SUB {prefix}.b.{n} 1\r\n".encode())
        c.send(f"SUB {prefix}.c.{n} 1\r\n".encode())
        last_sid = 0

        def request():
            nonlocal last_sid
            last_sid += 1
            inbox = f"{prefix}._INBOX.{n}.{last_sid}"
            payload = rng.randbytes(rng.choice((0, 1, 30, 1500, 3000)))
            open_inboxes[inbox] = (last_sid, payload)
            a.send(f"SUB {inbox} {last_sid}\r\n".encode())
            a.publish(f"{prefix}.b.{n}", payload, inbox)

        def answered(subject, sid, _reply, payload):
            check(subject in open_inboxes, f"{subject}: a second answer")
            expected = open_inboxes.pop(subject)
            check(expected == (sid, payload), f"{subject}: another answer than expected")
            a.send(f"UNSUB {sid}\r\n".encode())
            counts["answers"] += 1
            if time.monotonic() < end:
                request()

        a.on_message = answered
        return request

    starts = [trio(n) for n in range(trios)]
    loop.settle(everyone)
    for start in starts:
        for _ in range(window):
            start()
    loop.run(lambda: not open_inboxes, lambda: f"{len(open_inboxes)} requests without answer: {list(open_inboxes)[:5]}")
    loop.settle(everyone)
    return f"{counts['answers']} chains"


def flush_then_flush(loop, rng, prefix, seconds):
    """After `pub; flush` here, a flush there has every message ahead of its PONG."""
    writers, each = 12, 3
    end = time.monotonic() + seconds
    running, counts = set(), {"rounds": 0, "messages": 0}
    everyone = []

    def pair(n):
        writer, *readers = loop.clients(1 + each, f"flush{n}.")
        everyone.extend((writer, *readers))
        sent, had = 0, [0] * each
        for i, reader in enumerate(readers):
            def take(subject, _sid, _reply, payload, i=i):
                check(int(payload[:10]) == had[i], f"{subject}: got {payload[:10]} instead of {had[i]}")
                had[i] += 1
            reader.on_message = take
            reader.send(f"SUB {prefix}.f.{n} 1\r\n".encode())
        running.add(n)

        def round_():
            nonlocal sent
            size = rng.choice((0, 100, 1500, 5000))
            for _ in range(rng.choice((1, 10, 100, 300))):
                writer.publish(f"{prefix}.f.{n}", b"%010d" % sent + b"x" * size)
                sent += 1
                counts["messages"] += 1
            waiting = set(range(each))

            def reader_flushed(i):
                check(had[i] == sent, f"flush{n}: reader {i} had {had[i]} of {sent} at its PONG")
                waiting.discard(i)
                if waiting:
                    return
                counts["rounds"] += 1
                if time.monotonic() < end:
                    round_()
                else:
                    running.discard(n)

            def writer_flushed():
                for i, reader in enumerate(readers):
                    reader.flush(lambda i=i: reader_flushed(i))

            writer.flush(writer_flushed)
        return round_

    starts = [pair(n) for n in range(writers)]
    loop.settle(everyone)
    for start in starts:
        start()
    loop.run(lambda: not running, lambda: f"no PONG in pairs {sorted(running)}")
    return f"{counts['rounds']} rounds, {counts['messages']} messages"


def queue_groups(loop, rng, prefix, seconds):
    """Members come and go; each message reaches exactly one."""
    groups, churners = 6, 5
    end = time.monotonic() + seconds
    missing, running, counts = {}, set(), {"messages": 0, "joins": 0}
    everyone = []

    def group(n):
        publisher, permanent, *others = loop.clients(2 + churners, f"queue{n}.")
        everyone.extend((publisher, permanent, *others))
        subject = f"{prefix}.q.{n}"
        missing[n] = set()
        sent = 0
        flying = False

        def take(who, left):
            def body(_subject, sid, _reply, payload):
                number = int(payload)
                check(sid > left[0], f"{subject}: {who} got {number} for sid {sid} after UNSUB and flush of {left[0]}")
                check(number in missing[n], f"{subject}: {number} twice (or never sent), now at {who}")
                missing[n].discard(number)
            return body

        permanent.on_message = take("the permanent member", [0])
        permanent.send(f"SUB {subject} workers 1\r\n".encode())
        for i, member in enumerate(others):
            left = [0]
            member.on_message = take(f"member {i}", left)
            running.add((n, i))

            def join(member=member, left=left, i=i):
                sid = left[0] + 1
                member.send(f"SUB {subject} workers {sid}\r\n".encode())
                counts["joins"] += 1

                def leave():
                    def gone():
                        left[0] = sid
                        if time.monotonic() < end:
                            join(member, left, i)
                        else:
                            running.discard((n, i))
                    member.send(f"UNSUB {sid}\r\n".encode())
                    member.flush(gone)
                stay = rng.randrange(4)

                def wait():
                    nonlocal stay
                    if stay == 0:
                        return leave()
                    stay -= 1
                    member.flush(wait)
                wait()
            joins.append(join)

        def burst():
            nonlocal sent, flying
            if time.monotonic() >= end:
                running.discard((n, "publisher"))
                return
            # Many in one turn, so that members leave while records are on their way.
            padding = b" " * rng.choice((0, 200))
            for _ in range(rng.choice((1, 20, 1500))):
                missing[n].add(sent)
                publisher.publish(subject, b"%d" % sent + padding)
                sent += 1
                counts["messages"] += 1
            publisher.flush(burst)
        running.add((n, "publisher"))
        return burst

    joins = []
    starts = [group(n) for n in range(groups)]
    loop.settle(everyone)
    for start in joins + starts:
        start()
    loop.run(lambda: not running, lambda: f"still at work: {sorted(map(str, running))}")
    loop.run(lambda: not any(missing.values()),
             lambda: "lost: " + "; ".join(f"group {n}: {len(m)}, first {sorted(m)[:5]}" for n, m in missing.items() if m))
    loop.settle(everyone)
    return f"{counts['messages']} messages, {counts['joins']} joins"


def mixed_payloads(loop, rng, prefix, seconds):
    """Payloads of every size to readers everywhere: order per publisher and every byte."""
    publishers, readers = 6, 8
    ahead = 24 << 20  # bytes a reader may lag: far below max_pending
    end = time.monotonic() + seconds
    block = rng.randbytes(2 * MAX_PAYLOAD)
    writers = loop.clients(publishers, "payload.w")
    takers = loop.clients(readers, "payload.r")
    sent = [[] for _ in range(publishers)]  # (offset, size)
    had = [[0] * publishers for _ in range(readers)]
    got_bytes = [0] * readers
    totals = {"bytes": 0, "messages": 0}
    active = set(range(publishers))

    for r, reader in enumerate(takers):
        def take(subject, _sid, _reply, payload, r=r):
            p = int(subject.rsplit(".", 1)[1])
            k = had[r][p]
            check(k < len(sent[p]), f"{subject}: more than was sent")
            offset, size = sent[p][k]
            check(len(payload) == size and payload == block[offset:offset + size],
                  f"reader {r}: message {k} of publisher {p} differs: {len(payload)} bytes, expected {size}")
            had[r][p] += 1
            got_bytes[r] += size
        reader.on_message = take
        reader.send(f"SUB {prefix}.p.* 1\r\n".encode())
    loop.settle(takers)

    def burst(p):
        if time.monotonic() >= end:
            active.discard(p)
            return
        if totals["bytes"] - min(got_bytes) < ahead:
            small = rng.random() < 0.7  # a flood of what is copied into rings, or a few of any size
            reply = "r" if small and rng.random() < 0.85 else ""  # with a reply each crosses by itself, without in runs
            for _ in range(rng.randrange(1, 400 if small else 12)):
                size = rng.choice(SIZES[:10]) if small else rng.choice(SIZES)
                offset = rng.randrange(MAX_PAYLOAD)
                sent[p].append((offset, size))
                totals["bytes"] += size
                totals["messages"] += 1
                writers[p].publish(f"{prefix}.p.{p}", block[offset:offset + size], reply)
        writers[p].flush(lambda: burst(p))

    for p in range(publishers):
        burst(p)
    loop.run(lambda: not active and all(h == [len(s) for s in sent] for h in had),
             lambda: f"readers had {had} of {[len(s) for s in sent]}")
    loop.settle(writers + takers)
    return f"{totals['messages']} messages, {totals['bytes'] >> 20} MiB to each of {readers}"


def churn(loop, rng, prefix, seconds):
    """Subscriptions come and go beside ordered traffic; from the PONG on they hold, after UNSUB and PONG they do not."""
    streams, changers = 3, 10
    end = time.monotonic() + seconds
    running, counts = set(), {"traffic": 0, "changes": 0, "mass": 0}
    everyone = []

    def stream(n):
        writer, reader = loop.clients(2, f"stream{n}.")
        everyone.extend((writer, reader))
        sent = had = 0

        def take(subject, _sid, _reply, payload):
            nonlocal had
            check(int(payload) == had, f"{subject}: got {payload} instead of {had}")
            had += 1
        reader.on_message = take
        reader.send(f"SUB {prefix}.s.{n} 1\r\n".encode())
        running.add(("stream", n))

        def burst():
            nonlocal sent
            if time.monotonic() >= end:
                def last():
                    check(had == sent, f"stream {n}: had {had} of {sent}")
                    running.discard(("stream", n))
                return reader.flush(last)
            for _ in range(100):
                writer.publish(f"{prefix}.s.{n}", b"%d" % sent)
                sent += 1
            counts["traffic"] += 100
            writer.flush(burst)
        return burst

    def changer(n, many):
        """Subscribes (many subjects at once, or one), lets another connection publish, unsubscribes, lets it publish again."""
        writer, reader = loop.clients(2, f"changer{n}.")
        everyone.extend((writer, reader))
        got = []
        reader.on_message = lambda subject, sid, _reply, payload: got.append((subject, sid))
        running.add(("changer", n))
        generation = 0

        def begin():
            nonlocal generation
            if time.monotonic() >= end:
                return running.discard(("changer", n))
            generation += 1
            base = f"{prefix}.e.{n}.{generation}"
            first = generation * 10_000
            names = {first + i: f"{base}.{i}" for i in range(4000)} if many else {first: f"{base}.0"}
            wild = not many and rng.random() < 0.5
            for sid, subject in names.items():
                reader.send(f"SUB {base + '.*' if wild else subject} {sid}\r\n".encode())
            chosen = rng.sample(sorted(names), min(len(names), 100))
            expected = [(names[sid], sid) for sid in chosen]
            counts["mass" if many else "changes"] += 1

            def publish(then):
                def body():
                    for sid in chosen:
                        writer.publish(names[sid], b"!")
                    writer.flush(lambda: reader.flush(then))
                return body

            def all_there():
                check(got == expected, f"{base}: subscribed and flushed, had {len(got)} of {len(expected)}: "
                      f"first difference {next(((g, e) for g, e in zip(got, expected) if g != e), None)}")
                got.clear()
                for sid in names:
                    reader.send(f"UNSUB {sid}\r\n".encode())
                reader.flush(publish(nothing_there))

            def nothing_there():
                check(not got, f"{base}: unsubscribed and flushed, still got {got[:3]}")
                begin()

            reader.flush(publish(all_there))
        return begin

    starts = [stream(n) for n in range(streams)] + [changer(n, n < 2) for n in range(changers)]
    loop.settle(everyone)
    for start in starts:
        start()
    loop.run(lambda: not running, lambda: f"still at work: {sorted(map(str, running))}")
    return f"{counts['traffic']} messages beside {counts['changes']} changes and {counts['mass']} of 4000 at once"


CASES = [inbox_chains, flush_then_flush, queue_groups, mixed_payloads, churn]
PROCESSES = 2


def work(case, port, seed, number, seconds, result):
    try:
        result.put((None, case(Loop(port), random.Random(seed * PROCESSES + number), f"{case.__name__}.{number}", seconds)))
    except (Wrong, OSError) as error:
        result.put((f"{type(error).__name__}: {error}", ""))
    except Exception as error:  # a mistake of ours must not look like a lost process
        result.put((f"in the test itself: {error!r}", ""))


def overflows(broker):
    """(overflows, repicks, still pending) over all shards."""
    rows = broker.get_json("/varz")["peregrine"]["shard_stats"]
    return tuple(sum(row["rings"][key] for row in rows) for key in ("overflows", "repicks", "overflow_pending"))


def run_case(case, broker, seed, seconds):
    before = overflows(broker)
    result = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=work, args=(case, broker.port, seed, n, seconds, result), daemon=True)
                 for n in range(PROCESSES)]
    for process in processes:
        process.start()
    limit = seconds + 4 * PATIENCE_S
    reasons, notes = [], []
    for _ in processes:
        try:
            reason, note = result.get(timeout=limit)
        except Exception:  # queue.Empty
            reason, note = f"no result within {limit} s", ""
        if reason:
            reasons.append(reason)
        notes.append(note)
    for process in processes:
        process.join(1 if not reasons else 0.1)
        if process.is_alive():
            process.kill()
    if not broker.alive():
        return [f"the broker died: {broker.log_tail()}"], "", 0
    after = overflows(broker)
    overflowed = after[0] - before[0]
    if not reasons and after[2] != 0:
        reasons.append(f"{after[2]} bytes left in overflow lists")
    return reasons, f"{' + '.join(notes)}; {overflowed} overflows, {after[1] - before[1]} repicks", overflowed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=default_server())
    parser.add_argument("--backend", choices=("uring", "epoll"), default=None, help="default: the broker's choice")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20, help="of traffic, over all cases")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", action="append", help="only cases whose name contains this")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    names = [(case, ring, case.__name__ + suffix) for ring, suffix in ((None, ""), (SMALLEST_RING, ".tiny")) for case in CASES]
    if options.list:
        print("\n".join(name for *_, name in names))
        return 0
    server = os.path.abspath(options.server)
    if not os.access(server, os.X_OK):
        parser.error(f"{server} is not an executable")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    args = ["--shards", str(options.shards)] + (["--backend", options.backend] if options.backend else [])
    tally = Tally()
    chosen = [n for n in names if not options.only or any(word in n[2] for word in options.only)]
    seconds = options.seconds / max(len(chosen), 1)
    for ring in (None, SMALLEST_RING):
        cases = [(case, name) for case, r, name in chosen if r == ring]
        if not cases:
            continue
        overflowed = 0
        with Broker(server, f"ring_bytes: {ring}\n" if ring else "", args) as broker:
            for case, name in cases:
                reasons, note, count = run_case(case, broker, seed, seconds)
                overflowed += count
                if not reasons and ring and case is mixed_payloads and count == 0:
                    reasons = ["no record overflowed: this run proves nothing"]
                if reasons:
                    tally.fail(name, f"seed {seed}: {'; '.join(reasons)}")
                else:
                    tally.ok(name, note)
                if not broker.alive():
                    break
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
