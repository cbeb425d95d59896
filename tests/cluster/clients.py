#!/usr/bin/env python3
"""The official clients' tests of tests/clients, against two servers that are one cluster.

    clients.py --pair PN [--server BIN] [--against NATS_SERVER] [--debian NATS_SERVER] [--server-args ARGS] [options of tests/clients/run.py]

A suite asks for a server and gets the address of a relay, which hands its connections to the two nodes in turn: whoever publishes,
answers or listens on a second connection does it from the other side of a route. What a suite does to its server (signals, restarts) it
does to both. The relay holds back what answers a SUB until the neighbour has heard of it, and the PONG after a PUB until what was sent over routes
has arrived, because a client that has flushed may rely on the server it talks to and not on its neighbour, and the tests were written for
one server. Monitoring pages are those of both, added up, and /connz is shown when what it lists is known at the other node, too: a test that
has seen a subscription there publishes.
"""

import asyncio
import http.server
import importlib.util
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from nodes import HOST, POOL, Ports, programs, until  # noqa: E402

# What two servers behind a relay cannot be: one server with one name and one set of client ids. And nats.go's client says nothing when it
# has subscribed again after a reconnect, so that its test publishes too early for the neighbour to know; and nats.py's test asks
# for a connection by a cid that the other server has given somebody else.
NOT_FOR_TWO = {
    ("python", "server_info"), ("go", "server_info"), ("js", "server_info"), ("cli", "server_info"), ("rust", "server_info"),
    ("java", "server_info"), ("go", "monitored"), ("go", "reconnect"), ("python", "auto_unsubscribe"),
}
sys.path.insert(0, str(HERE.parent / "clients"))  # for what run.py imports
SPEC = importlib.util.spec_from_file_location("clients_run", HERE.parent / "clients" / "run.py")
driver = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(driver)

# A SUB that is refused never reaches the neighbour: so long a PONG waits for it, on a machine with nothing else to do.
REFUSED_S = 2.0
pair = []  # two Programs
loop = asyncio.new_event_loop()


async def pump(reader, writer, before_write):
    try:
        while data := await reader.read(1 << 16):
            await before_write(data)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Relay:
    """Listens on the port a suite knows, and gives every connection to the next node."""

    def __init__(self, port, backends, monitors):
        self.port, self.backends, self.monitors = port, backends, monitors
        self.turn = 0
        self.listener = None

    def open(self):
        if self.listener is None:
            self.listener = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.accept, HOST, self.port), loop).result(10)

    def close(self):
        """As a server that ends or is a lame duck: nobody can connect; those who are, stay."""
        if self.listener is not None:
            loop.call_soon_threadsafe(self.listener.close)
            self.listener = None

    async def accept(self, reader, writer):
        turn = self.turn % len(self.backends)
        backend, neighbour = self.backends[turn], self.monitors[1 - turn]
        self.turn += 1
        try:
            down, up = await asyncio.open_connection(HOST, backend)
        except OSError:
            writer.transport.abort()
            return
        subscribed = {}  # by sid; what is taken back at once may be gone before anybody looks
        published = False
        encrypted = None

        async def wait_for(condition):
            deadline = time.monotonic() + REFUSED_S * max(1, os.getloadavg()[0])
            while time.monotonic() < deadline and not await loop.run_in_executor(None, condition):
                await asyncio.sleep(0.01)

        async def note(data):
            nonlocal published, encrypted
            if encrypted is None:
                encrypted = data.startswith(b"\x16")  # a TLS handshake
            for subject, sid in re.findall(rb"(?:^|\n)SUB +(\S+)(?: +\S+)? +(\S+)\r", data):
                subscribed[sid] = subject
            for sid in re.findall(rb"(?:^|\n)UNSUB +(\S+)", data):
                subscribed.pop(sid, None)
            published = published or b"PUB " in data

        async def hold(data):
            nonlocal published
            if data == b"PING\r\n":  # no answer to anything; who hears it late is taken for stale
                return
            if encrypted:  # whatever it says
                await wait_for(lambda: settled(self.monitors))
                return
            for refused in re.findall(rb"for Subscription to \"([^\"]+)\"", data):
                for sid in [sid for sid, subject in subscribed.items() if subject == refused]:
                    del subscribed[sid]
            if subscribed:  # whatever comes next: async-nats asks itself something, others wait for a PONG
                sids = list(subscribed)  # of which some may be taken back meanwhile, or be gone with the one message they were for
                await wait_for(lambda: {subscribed[sid].decode() for sid in sids if sid in subscribed} <= known_to(neighbour))
                for sid in sids:
                    subscribed.pop(sid, None)
            if published and b"PONG" in data:
                published = False
                # Twice: what crosses between shards is counted with the next turn of the shard that answers, at the latest.
                await wait_for(lambda: nothing_between(self.monitors) and nothing_between(self.monitors))
        await asyncio.gather(pump(reader, up, note), pump(down, writer, hold))


def known_to(monitor):
    """The subjects a node knows its neighbour wants."""
    try:
        rows = Pages.fetch(monitor, "/routez?subs=1").get("routes") or []
    except OSError:
        return set()
    return {subject for row in rows for subject in row.get("subscriptions_list") or []}


def nothing_between(monitors):
    """Each has what the other has sent it."""
    def counts(monitor):
        rows = Pages.fetch(monitor, "/routez").get("routes") or []
        return [sum(row[key] for row in rows) for key in ("in_msgs", "out_msgs")]
    try:
        one, two = counts(monitors[0]), counts(monitors[1])
    except OSError:
        return True
    return one == two[::-1]


def settled(monitors):
    """What the clients of each want the other knows."""
    try:
        wanted = [{subject for row in Pages.fetch(monitor, "/connz?subs=1&limit=100000").get("connections") or []
                   for subject in row.get("subscriptions_list") or []} for monitor in monitors]
    except OSError:
        return True
    return all(subjects <= known_to(other) for subjects, other in zip(wanted, reversed(monitors)))


class Processes:
    """Both nodes' processes, as if they were one."""

    def __init__(self, processes, relay):
        self.processes, self.relay = processes, relay
        self.pid = processes[0].pid

    def poll(self):
        ends = [process.poll() for process in self.processes]
        return None if None in ends else ends[0]

    def one_has_ended(self):
        return any(process.poll() is not None for process in self.processes)

    def send_signal(self, number):
        if number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            self.relay.close()
        for process in self.processes:
            process.send_signal(number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=None):
        return max(process.wait(timeout) for process in self.processes)

    @property
    def returncode(self):
        return self.processes[0].returncode


class Pages:
    """The monitoring pages of both, added up."""

    def __init__(self, ports):
        pages = self
        self.ports = ports

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                one, two = (pages.fetch(port, self.path) for port in pages.ports)
                if self.path.startswith("/connz"):
                    until(lambda: settled(pages.ports), REFUSED_S * max(1, os.getloadavg()[0]), 0.01)
                text = json.dumps(pages.add(one, two)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass
        self.listener = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.listener.daemon_threads = True
        self.url = f"http://{HOST}:{self.listener.server_address[1]}"
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    @staticmethod
    def fetch(port, path):
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return json.load(answer)

    @staticmethod
    def add(one, two):
        both = dict(one)
        for key, value in one.items():
            other = two.get(key)
            if key in ("connections", "num_connections", "total", "slow_consumers", "in_msgs", "out_msgs", "in_bytes", "out_bytes",
                       "subscriptions", "num_subscriptions", "total_connections") and type(value) is type(other):
                both[key] = value + other  # counts, or lists of rows
        return both


class Pair(driver.Server):
    """What tests/clients takes for a server: two nodes behind a relay."""

    def __init__(self, number, program, server_args, args, config, port, folder, wire):
        super().__init__(number, program, server_args, args, config, port, folder, wire)
        self.client_ports = [Ports.take(), Ports.take()]
        self.route_ports = [Ports.take(), Ports.take()]
        self.monitor_ports = [Ports.take(), Ports.take()]
        self.relay, self.pages = Relay(port, self.client_ports, self.monitor_ports), None

    def start(self):
        self.starts += 1
        config = []
        # A suite that wants its clients asked ten times a second does not want routes cut that are a moment late. (2.9 knows no such option.)
        routes = "" if any(program.letter == "D" for program in pair) else "cluster { ping_interval: 20s }"
        if self.config is not None:
            path = self.folder / "server.conf"
            path.write_text(f"{self.config.replace('@tls', self.tls()) if '@tls' in self.config else self.config}\n{routes}\n")
            config = ["-c", str(path)]
        processes = []
        for i, program in enumerate(pair):
            command = [program.binary, "-a", HOST, "-p", str(self.client_ports[i]), "-m", str(self.monitor_ports[i]), "--cluster_name", "pair",
                       "-cluster", f"nats://{HOST}:{self.route_ports[i]}", "-routes", f"nats://{HOST}:{self.route_ports[1 - i]}", "--no_advertise",
                       *config, *self.args, *program.arguments]
            with open(self.log_path(), "ab") as log:
                processes.append(subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                                  start_new_session=True))
            driver.started_processes.add(processes[-1])
        self.process = Processes(processes, self.relay)
        if self.pages is None:
            self.pages = Pages(self.monitor_ports)
            self.http = self.pages.url
        deadline = time.monotonic() + driver.START_TIMEOUT_S
        while True:
            if self.process.one_has_ended():
                self.process.kill()
                raise driver.StartError(f"a node ended: {self.log()[-2000:]}")
            if self.joined():
                return self.relay.open()
            if time.monotonic() > deadline:
                self.process.kill()
                raise driver.StartError(f"no cluster after {driver.START_TIMEOUT_S} s: {self.log()[-2000:]}")
            time.sleep(0.02)

    def joined(self):
        """Both have all the routes there will be: accounts are spread over a pool, and $G's is not the first one dialled. Two Peregrines may
        have more, one for each shard."""
        wanted = POOL + 1 if all(program.pools for program in pair) else 1

        def routes():
            try:
                return [Pages.fetch(port, "/routez")["num_routes"] for port in self.monitor_ports]
            except OSError:
                return [0, 1]
        first = routes()
        if first[0] != first[1] or first[0] < wanted:
            return False
        time.sleep(0.15)  # a duplicate may still be on its way out
        return routes() == first

    def restart(self, number, down_ms):
        self.stop(number)
        time.sleep(down_ms / 1000)
        self.start()

    def describe(self):
        return {**super().describe(), "http": self.http}


def run_suite(suite, *rest, original=driver.run_suite):
    outcome = original(suite, *rest)
    for name in [name for name in outcome.tests if (suite.name, name) in NOT_FOR_TWO]:
        del outcome.tests[name]
    driver.say(f"{suite.name}: {outcome.passed()} passed, {outcome.failed()} failed, between two nodes")
    return outcome


def say(line="", original=driver.say):
    if not re.fullmatch(r"\w+: \d+ passed, \d+ failed( \(.*\))?", line) and not any(
            line.startswith(f"{suite}: FAIL {name}:") for suite, name in NOT_FOR_TWO):
        original(line)


def main():
    rest = []
    words = iter(sys.argv[1:])
    values = {}
    for word in words:
        key = word.split("=")[0]
        if key in ("--pair", "--server", "--against", "--debian", "--server-args"):
            values[key] = word.split("=", 1)[1] if "=" in word else next(words)
        else:
            rest.append(word)
    if "--pair" not in values:
        raise SystemExit(__doc__)
    available = programs(values.get("--server"), shlex.split(values.get("--server-args", "")), values.get("--against"), values.get("--debian"))
    pair[:] = [available[letter] for letter in values["--pair"]]
    threading.Thread(target=loop.run_forever, daemon=True).start()
    driver.Server, driver.run_suite, driver.say = Pair, run_suite, say
    driver.Ports = Ports  # one that knows all of them: a port in use may be closed for a moment
    return driver.main(["--server", pair[0].binary, *rest])


if __name__ == "__main__":
    sys.exit(main())
