#!/usr/bin/env python3
"""How long a shard is busy at a stretch while a million subscriptions come, are told to a new route, and go.

    scripts/cluster turns [--subscriptions 1000000] [--shards 1] [--fifo] [--server BIN] [--server-args ARGS]

Two nodes, each on a core of its own, and on each a client that says PING a thousand times a second and looks how long the PONG takes.
Then, one after the other: a client of A subscribes to everything; B is killed and comes back (the snapshot); the client hangs up (the
withdrawal); it subscribes again, and A is killed (B withdraws what the route brought). For each part: how long it took, the CPU time of
both nodes for each subscription, the longest turns by B's and A's own account (/varz: turns_shorter_than_us), the slowest PONG on each. On a machine that does
other things, too, what those take counts as well; --fifo (root) puts the nodes before everything else, from their first instruction on,
and lifts the kernel's limit for such threads meanwhile: it would stop them for 50 ms of every second they are busy.
"""

import argparse
import atexit
import contextlib
import multiprocessing
import os
import pathlib
import shlex
import signal
import socket
import sys
import threading
import time

from nodes import HOST, Cluster, die_with_parent, programs, until

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\n'


class Pinger:
    """In a process of its own: a PING a millisecond, whatever happens."""

    def __init__(self, port, fifo):
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=self.run, args=(port, fifo, theirs), daemon=True)
        self.process.start()

    @staticmethod
    def run(port, fifo, pipe):
        def ahead(of_all):
            if fifo:
                os.sched_setscheduler(0, os.SCHED_FIFO if of_all else os.SCHED_OTHER, os.sched_param(2 if of_all else 0))

        sock = socket.create_connection((HOST, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = sock.makefile("rb")
        lines.readline()
        sock.sendall(CONNECT)
        took = []
        ahead(True)
        try:
            while True:
                began = time.monotonic_ns()
                sock.sendall(b"PING\r\n")
                while True:
                    line = lines.readline()
                    if not line:
                        raise ConnectionError
                    if line.startswith(b"PONG"):
                        break
                    if line.startswith(b"PING"):
                        sock.sendall(b"PONG\r\n")
                took.append(time.monotonic_ns() - began)
                if pipe.poll():
                    ahead(False)  # a node waits for this otherwise
                    pipe.recv()
                    pipe.send(sorted(took))
                    took = []
                    ahead(True)
                time.sleep(0.001)
        except OSError:
            pass
        with contextlib.suppress(EOFError):  # the node was killed, or the measure is over
            pipe.recv()
            pipe.send(sorted(took))

    def report(self):
        self.pipe.send(None)
        took = self.pipe.recv() if self.pipe.poll(10) else []
        return f"PONG p50 {took[len(took) // 2] / 1e3:.0f} us, slowest {took[-1] / 1e3:.0f} us of {len(took)}" if took else "no PONG"


def cpu_s(node):
    return time.clock_gettime(~node.pid << 3 | 2) if node.running() else 0.0


class Part:
    """Prints what happened while it was open."""

    def __init__(self, name, nodes, pingers, count):
        self.name, self.nodes, self.pingers, self.count = name, nodes, pingers, count
        for pinger in pingers.values():
            pinger.report()
        self.turns = {node.name: self.turns_of(node) for node in nodes if node.running()}
        self.cpu = {node.name: cpu_s(node) for node in nodes}
        self.began = time.monotonic()

    @staticmethod
    def turns_of(node):
        stats = node.get_json("/varz")["peregrine"]["shard_stats"]
        return {(row["shard"], int(us)): n for row in stats for us, n in row.get("turns_shorter_than_us", {2048: row["long_turns"]}).items()}

    def end(self, fresh=()):
        """fresh: nodes that have been started since."""
        print(f"{self.name}: {time.monotonic() - self.began:.2f} s")
        for node in self.nodes:
            if not node.running():
                continue
            before = {} if node in fresh else self.turns[node.name]
            turns = {}
            for (shard, us), n in self.turns_of(node).items():
                more = n - before.get((shard, us), 0)
                if more:
                    turns[us] = turns.get(us, 0) + more
            most = " ".join(f"<{us}: {turns[us]}" for us in sorted(turns)[-4:])
            cpu = cpu_s(node) - (0 if node in fresh else self.cpu[node.name])
            pings = self.pingers[node.name].report() if node.name in self.pingers and self.pingers[node.name].process.is_alive() else ""
            print(f"  {node.name}: {cpu * 1e9 / self.count:6.0f} ns each; turns by us: {most}; {pings}", flush=True)


def known(node):
    """Subscriptions this node knows of its neighbour."""
    return sum(row["subscriptions"] for row in node.get_json("/routez").get("routes") or [])


def wait_known(node, count):
    if not until(lambda: known(node) == count, 300, 0.05):
        raise SystemExit(f"{node.name} knows {known(node)} instead of {count}")


def subscribe(name, nodes, pingers, count):
    """A client of the first node subscribes to everything, until the second knows. Returns its connection."""
    sock = socket.create_connection((HOST, nodes[0].port))
    sock.sendall(CONNECT)
    text = b"".join(b"SUB t.many.%x.%d %d\r\n" % (n * 0x9E3779B97F4A7C15 & 0xFFFFFFFF, n, n + 1) for n in range(count)) + b"PING\r\n"
    part = Part(name, nodes, pingers, count)
    threading.Thread(target=lambda: b"PONG" in sock.recv(1 << 16), daemon=True).start()
    sock.sendall(text)
    wait_known(nodes[1], count)
    part.end()
    return sock


def no_throttling():
    """Of SCHED_FIFO threads, until this process ends."""
    path = pathlib.Path("/proc/sys/kernel/sched_rt_runtime_us")
    before = path.read_text()
    path.write_text("-1")
    atexit.register(path.write_text, before)


def give_cores(node, cores, fifo):
    """A node lives on cores of its own from the start: what a shard waits for a core it shares until somebody moves it would count as a
    turn, for it may wait between two lines of a neighbour that has the core."""
    def prepare():
        die_with_parent()
        os.sched_setaffinity(0, cores)
        if fifo:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    node.prepare = prepare


def shards_only(node):
    """What else there is of a node goes wherever there is room, and waits."""
    for task in os.listdir(f"/proc/{node.pid}/task"):
        if not pathlib.Path(f"/proc/{task}/comm").read_text().startswith("shard"):
            os.sched_setscheduler(int(task), os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(int(task), os.sched_getaffinity(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscriptions", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--fifo", action="store_true")
    parser.add_argument("--server")
    parser.add_argument("--server-args", default="")
    parser.add_argument("--against", help=argparse.SUPPRESS)
    parser.add_argument("--debian", help=argparse.SUPPRESS)
    args = parser.parse_args()
    program = programs(args.server, ["--shards", str(args.shards), *shlex.split(args.server_args)])["P"]
    count = args.subscriptions
    cores = sorted(os.sched_getaffinity(0))
    if args.fifo:
        no_throttling()

    with Cluster([program, program]) as cluster:
        a, b = cluster.nodes
        for index, node in enumerate(cluster.nodes):
            give_cores(node, {cores[index % len(cores)]} if args.shards == 1 else set(cores), args.fifo)
        cluster.start()
        for node in cluster.nodes:
            shards_only(node)
        pingers = {node.name: Pinger(node.port, args.fifo) for node in cluster.nodes}
        time.sleep(0.5)
        part = Part("nothing", cluster.nodes, pingers, count)
        time.sleep(3)
        part.end()

        sock = subscribe("a client of A subscribes", cluster.nodes, pingers, count)

        b.end(signal.SIGKILL)
        del pingers[b.name]
        time.sleep(1)
        part = Part("B comes back: the snapshot", cluster.nodes, pingers, count)
        b.start()
        shards_only(b)
        pingers[b.name] = Pinger(b.port, args.fifo)
        wait_known(b, count)
        part.end(fresh=[b])

        part = Part("the client hangs up: the withdrawal", cluster.nodes, pingers, count)
        sock.close()
        wait_known(b, 0)
        part.end()

        sock = subscribe("it subscribes again", cluster.nodes, pingers, count)

        part = Part("A is killed: B withdraws", cluster.nodes, pingers, count)
        a.end(signal.SIGKILL)
        if not until(lambda: sum(row["subscriptions"] for row in b.get_json("/varz")["peregrine"]["shard_stats"]) == 0 and known(b) == 0, 120, 0.05):
            raise SystemExit(f"B still knows something: {b.get_json('/subsz')}")
        time.sleep(0.2)
        part.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
