"""Clusters of real servers: any mix of programs, one after the other on the same ports when a node is replaced.

Owns: the processes, a folder per node, the ports. A node keeps its name and its ports for life, whatever program it is.
"""

import collections
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conversation"))
from broker import Broker, StartError, default_server, until  # noqa: E402
from client import PATIENCE_S, Client  # noqa: E402

HOST = "127.0.0.1"
MESH_S = 90
# Below Linux's ephemeral range: a port must survive the moment in which its server is down.
PORTS = range(10000, 32000)
POOL = 3  # nats-server's default


class Program:
    """A server to make clusters of. letter: P Peregrine, N the newest nats-server, D Debian's nats-server 2.9, O nats-server 2.8, the last
    whose gateways guess (optimistic mode)."""

    def __init__(self, letter, binary, arguments=()):
        self.letter, self.binary, self.arguments = letter, str(binary), list(arguments)
        self.pools = letter not in "DO"
        self.compresses = letter not in "DO"
        self.own = letter == "P"

    def with_arguments(self, *more):
        return Program(self.letter, self.binary, [*self.arguments, *more])


def programs(server=None, arguments=(), newest=None, debian=None, optimistic=None):
    """The programs there are, by letter."""
    found = {}
    for letter, binary in (("P", server or default_server()), ("N", newest or os.environ.get("NATS_SERVER") or shutil.which("nats-server")),
                           ("D", debian or "/usr/sbin/nats-server"), ("O", optimistic or os.environ.get("NATS_SERVER_28"))):
        if binary and os.path.exists(binary):
            found[letter] = Program(letter, os.path.abspath(binary), arguments if letter == "P" else ())
    return found


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a runner that is killed leaves nothing behind


class Ports:
    taken = set()

    @classmethod
    def take(cls):
        while True:
            port = random.choice(PORTS)
            if port in cls.taken:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((HOST, port))
                except OSError:
                    continue
            cls.taken.add(port)
            return port


class Node(Broker):
    """One place in a cluster. `where` (world.Host) puts it in a network namespace."""

    names = {}  # by server id: 2.9 does not show names of remotes

    def __init__(self, name, program, where=None):  # the parent's constructor starts a server at once; start() does here
        self.name, self.program, self.where = name, program, where
        self.directory = tempfile.mkdtemp(prefix=f"cluster-{name}-")
        self.log_path = os.path.join(self.directory, "server.log")
        self.process = None
        self.pid = None
        self.port, self.route_port, self.monitor_port = (4222, 6222, 8222) if where else (Ports.take(), Ports.take(), Ports.take())
        self.config = ""
        self.format = "conf"
        self.arguments = None  # instead of a file
        self.starts = 0
        self.prepare = die_with_parent  # called in the child, before it becomes the program

    @property
    def binary(self):
        return self.program.binary

    @property
    def route_url(self):
        return f"nats-route://{self.where.name if self.where else HOST}:{self.route_port}"

    def start(self, wait=True):
        self.starts += 1
        if self.arguments is not None:
            arguments = self.arguments
        else:
            path = os.path.join(self.directory, f"server.{self.format}")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.config)
            arguments = ["-c", path]
        command = [self.binary, *arguments, *self.program.arguments]
        if self.where:
            command = self.where.command(command)
        with open(self.log_path, "ab") as log:
            log.write(f"---- {self.program.letter} {' '.join(command)}\n".encode())
            self.process = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=self.prepare)
        self.pid = self.process.pid
        if wait:
            self.ready()
        return self

    def ready(self):
        def look():
            if self.process.poll() is not None:
                raise StartError(f"{self.name} ({self.binary}) ended with {self.process.returncode}: {self.log_tail()}")
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self.id = self.get_json("/varz")["server_id"]
                self.names[self.id] = self.name
                return True
            return None
        if not until(look, 20, 0.02):
            raise StartError(f"{self.name} is not up after 20 s: {self.log_tail()}")

    def dial(self, port=None):
        """A connection to the client port, made where the node lives."""
        with self.where.entered() if self.where else contextlib.nullcontext():
            return socket.create_connection((HOST, port or self.port), timeout=PATIENCE_S)

    def dial_route(self):
        return self.dial(self.route_port)

    def connect(self, timeout_s=5.0, receive_buffer=None):
        sock = self.dial()
        sock.settimeout(timeout_s)
        return sock

    def client(self, **options):
        return Client(self.dial, **{"name": f"client of {self.name}", **options})

    def get(self, path):
        connection = http.client.HTTPConnection(HOST, self.monitor_port, timeout=PATIENCE_S)
        connection.sock = self.dial(self.monitor_port)
        connection.sock.settimeout(PATIENCE_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def routes(self, query=""):
        """{name of the remote: [its rows of /routez]}"""
        rows = collections.defaultdict(list)
        for row in self.get_json("/routez" + query).get("routes") or []:
            rows[self.names.get(row["remote_id"], row["remote_id"])].append(row)
        return dict(rows)

    def interest(self, prefix="t."):
        """{name of the remote: subjects it wants, those with `prefix`}, as /routez lists them."""
        found = collections.defaultdict(list)
        for name, rows in self.routes("?subs=1").items():
            for row in rows:
                for subject in row.get("subscriptions_list") or []:
                    if subject.startswith(prefix):
                        found[name].append(subject)
        return {name: sorted(subjects) for name, subjects in found.items()}

    def running(self):
        return self.process is not None and self.process.poll() is None

    def end(self, number=signal.SIGTERM, timeout_s=PATIENCE_S):
        """Ends the process, keeps the place. Returns the exit code."""
        if self.running():
            self.process.send_signal(number)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self.name} did not end {timeout_s} s after signal {number}") from None
        return self.process.returncode if self.process else None

    def log_tail(self):
        return self.log()[-1500:].strip()

    def remove(self):
        if self.running():
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Cluster:
    """Nodes that know each other. options: what stands in every node's cluster block; extra: what stands beside it."""

    def __init__(self, mix, options="", extra="", name="c1", hosts=None, format="conf"):
        self.nodes = [Node(f"n{i + 1}", program, hosts[i] if hosts else None) for i, program in enumerate(mix)]
        self.options = [options] * len(mix) if isinstance(options, str) else list(options)
        self.extra = [extra] * len(mix) if isinstance(extra, str) else list(extra)
        self.cluster_name = [name] * len(mix) if isinstance(name, str) or name is None else list(name)
        self.known = [[other.route_url for other in self.nodes if other is not node] for node in self.nodes]
        self.format = format
        self.clients = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for client in self.clients:
            with contextlib.suppress(Exception):
                client.close()
        if kind is not None and os.environ.get("CLUSTER_LOGS"):
            for node in self.nodes:
                print(f"==== log of {node.name}\n{node.log()}", file=sys.stderr)
        for node in self.nodes:
            node.remove()

    def __getitem__(self, index):
        return self.nodes[index]

    def __len__(self):
        return len(self.nodes)

    def configure(self, index):
        node = self.nodes[index]
        listen = "0.0.0.0" if node.where else HOST
        name = self.cluster_name[index]
        if node.arguments is not None:
            return
        if self.format == "yaml" and node.program.own:
            node.format = "yaml"
            lines = [f"server_name: {node.name}", f"listen: {listen}:{node.port}", f"http: {listen}:{node.monitor_port}", "cluster:"]
            lines += [f"  name: {name}"] if name else []
            lines += [f"  listen: {listen}:{node.route_port}", "  routes:", *[f"    - {url}" for url in self.known[index]]]
            node.config = "\n".join(lines) + "\n"
            return
        node.config = "\n".join([
            f"server_name: {node.name}", f'listen: "{listen}:{node.port}"', f'http: "{listen}:{node.monitor_port}"', self.extra[index],
            "cluster {", f"  name: {name}" if name else "", f'  listen: "{listen}:{node.route_port}"',
            "  routes = [" + ", ".join(f'"{url}"' for url in self.known[index]) + "]", self.options[index], "}", ""])

    def start(self, order=None, formed=True):
        for index in order if order is not None else range(len(self.nodes)):
            self.configure(index)
            self.nodes[index].start()
        if formed:
            self.formed()
        return self

    def restart(self, index, program=None, formed=True):
        node = self.nodes[index]
        node.end()
        if program:
            node.program = program
        self.configure(index)
        node.start()
        if formed:
            self.formed()

    def connections(self, a, b):
        """(fewest, most) route connections between two nodes."""
        pooled = [option_of(options, "pool_size", POOL) for options in (self.options[a], self.options[b])]
        if not (self.nodes[a].program.pools and self.nodes[b].program.pools) or min(pooled) < 0:
            return 1, 1
        accounts = 1 + sum(len(options.split("accounts:")[1].split("]")[0].split(",")) if "accounts:" in options else 0
                           for options in self.options[a:a + 1])
        count = max(pooled) + accounts  # the system account has a connection of its own
        # Two Peregrines may agree on more, one for each shard.
        return (count, count + 64) if self.nodes[a].program.own and self.nodes[b].program.own else (count, count)

    def mesh_problem(self):
        """What is missing for the mesh to be complete; None when it is."""
        live = [i for i, node in enumerate(self.nodes) if node.running()]
        seen = {i: self.nodes[i].routes() for i in live}
        for a in live:
            others = {self.nodes[b].name for b in live if b != a}
            if set(seen[a]) != others:
                return f"{self.nodes[a].name} has routes to {sorted(seen[a])}, not to {sorted(others)}"
            for b in live:
                if a == b:
                    continue
                low, high = self.connections(a, b)
                count, back = len(seen[a][self.nodes[b].name]), len(seen[b].get(self.nodes[a].name, []))
                if not low <= count <= high or count != back:
                    return f"{self.nodes[a].name} to {self.nodes[b].name}: {count} connections, back {back}, expected {low}..{high}"
        return None

    def formed(self, timeout_s=MESH_S):
        """Waits for the full mesh, and that it stays: a duplicate may still be on its way out."""
        problem = "nothing seen"
        good = 0
        deadline = time.monotonic() + timeout_s
        while good < 2:
            try:
                problem = self.mesh_problem()
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = repr(error)
            good = good + 1 if problem is None else 0
            if good < 2:
                if time.monotonic() > deadline:
                    logs = "\n".join(f"{node.name}: {node.log_tail()[-400:]}" for node in self.nodes if node.process)
                    raise AssertionError(f"no mesh after {timeout_s} s: {problem}\n{logs}")
                time.sleep(0.1)
        return self

    def client(self, index, **options):
        client = self.nodes[index].client(**options)
        self.clients.append(client)
        return client

    def roaming(self, index, **options):
        """A client of one node that goes to any other when it has to."""
        nodes = self.nodes[index:] + self.nodes[:index]
        client = Client(*[node.dial for node in nodes], **{"reconnect": True, "name": f"roaming from {nodes[0].name}", **options})
        self.clients.append(client)
        return client

    def settle_interest(self, expected, prefix="t.", timeout_s=15):
        """Waits until every live node knows exactly `expected` ({index: subjects wanted there}) of every other."""
        problem = None

        def look():
            nonlocal problem
            problem = None
            for a, node in enumerate(self.nodes):
                if not node.running():
                    continue
                seen = node.interest(prefix)
                for b, other in enumerate(self.nodes):
                    if a != b and other.running() and seen.get(other.name, []) != sorted(expected.get(b, [])):
                        problem = f"{node.name} thinks {other.name} wants {seen.get(other.name, [])}, it wants {sorted(expected.get(b, []))}"
                        return False
            return True
        if not until(look, timeout_s, 0.05):
            raise AssertionError(problem)

    def probe(self, subject="t.probe"):
        """A message from every live node to every live node: each exactly once. Waits for the interest first."""
        live = [i for i, node in enumerate(self.nodes) if node.running()]
        clients = [self.nodes[i].client() for i in live]
        try:
            listeners = [client.sub(subject) for client in clients]
            self.settle_interest_of(subject, live)
            for client, i in zip(clients, live):
                client.publish(subject, f"from {i}")
                client.flush()
            wanted = sorted(f"from {i}".encode() for i in live)
            for client, listener in zip(clients, listeners):
                listener.wait(len(live))
                client.flush()
                got = sorted(listener.payloads())
                assert got == wanted, f"{client.name} got {got}, not {wanted}"
        finally:
            for client in clients:
                client.close()

    def settle_interest_of_one(self, subject, index):
        """Waits until everybody else knows that one node wants `subject`."""
        name = self.nodes[index].name
        others = [node for i, node in enumerate(self.nodes) if i != index]
        assert until(lambda: all(subject in node.interest(subject).get(name, []) for node in others), 15, 0.03), f"nobody heard of {subject}"

    def settle_interest_of(self, subject, live=None):
        """Waits until every live node knows that every other wants `subject`."""
        live = live if live is not None else [i for i, node in enumerate(self.nodes) if node.running()]

        def look():
            for a in live:
                seen = self.nodes[a].interest(subject)
                if any(subject not in seen.get(self.nodes[b].name, []) for b in live if b != a):
                    return False
            return True
        assert until(look, 15, 0.03), f"interest in {subject} did not reach everybody"


def option_of(options, key, default):
    found = re.search(rf"\b{key}: *(-?\d+)", options)
    return int(found.group(1)) if found else default
