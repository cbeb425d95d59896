#!/usr/bin/env python3
"""Run the real NATS clients against a broker. README.md beside this file is the contract with the suites.

One process: it fills the cache, serves the control port from which suites start and stop brokers, runs the suites and
counts what they report. A suite that reports less than it planned, or that lacks a test every suite must have, has failed.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import wires

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
sys.path.append(str(REPO / "tests" / "conversation"))
from certificates import Certificates  # noqa: E402
SUITES = ["python", "js", "cli", "go", "rust", "java"]

REQUIRED = [
    "publish_subscribe", "wildcard_star", "wildcard_full", "queue_group", "request_inbox", "request_mux",
    "no_responders", "headers", "drain", "auto_unsubscribe", "max_payload_exact", "max_payload_exceeded", "reconnect",
    "slow_consumer", "auth_user_pass", "auth_token", "auth_failure", "permissions_violation", "large_payload",
    "ordering_100k", "flush_rtt", "server_info", "lame_duck", "tls", "tls_verify", "tls_first",
]

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20
# Below Linux's ephemeral range: a port must survive the moment in which its broker is down, and a client that dials out
# meanwhile must not be given it.
PORTS = range(10000, 32000)

print_lock = threading.Lock()
certificates_lock = threading.Lock()
started_processes = set()  # what a signal must not leave behind
temporary_root = None
certificates = None  # of all servers and clients of this run


def say(line=""):
    with print_lock:
        print(line, flush=True)


class StartError(Exception):
    pass


class Ports:
    """Hands out client ports; remembers them so that a broker that is down for a moment keeps its own."""

    def __init__(self):
        self.taken = set()
        self.lock = threading.Lock()

    def take(self):
        with self.lock:
            for _ in range(1000):
                port = random.choice(PORTS)
                if port in self.taken:
                    continue
                with socket.socket() as probe:
                    try:
                        probe.bind(("127.0.0.1", port))
                    except OSError:
                        continue
                self.taken.add(port)
                return port
        raise StartError("no free port")


class Server:
    """One broker process under the control port. Calls on one server come from one suite, so they need no lock."""

    def __init__(self, number, program, server_args, args, config, port, folder, wire):
        self.id = str(number)
        self.program = program
        self.server_args = server_args
        self.args = args
        self.config = config
        self.port = port
        self.wire = wire
        self.folder = folder
        self.starts = 0
        self.process = None
        self.http = None

    def start(self):
        self.starts += 1
        ports_dir = self.folder / f"ports{self.starts}"
        ports_dir.mkdir(parents=True)
        command = [self.program, *self.wire.arguments(self.port), "--ports_file_dir", str(ports_dir)]
        config = [text for text in (self.wire.config(), self.config) if text is not None]
        config = [text.replace("@tls", self.tls()) if "@tls" in text else text for text in config]
        if config:
            path = self.folder / "server.conf"
            path.write_text("\n".join(config))
            command += ["-c", str(path)]
        command += self.args + self.server_args
        self.wire.taken()
        with open(self.log_path(), "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        started_processes.add(self.process)
        deadline = time.monotonic() + START_TIMEOUT_S
        reachable = False
        while True:
            ready = self.read_ports(ports_dir)
            if ready and not reachable:
                self.wire.started()
                reachable = True
            if ready and self.greets():
                self.http = ready["monitoring"][0].rstrip("/")
                return
            if self.process.poll() is not None:
                raise StartError(f"broker ended with {self.process.returncode}: {self.log()[-2000:]}")
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise StartError(f"broker not ready after {START_TIMEOUT_S} s: {self.log()[-2000:]}")
            time.sleep(0.02)

    def tls(self):
        """What a configuration's tls block begins with."""
        with certificates_lock:
            pair = certificates.pair(f"server-{self.wire.host}", f"DNS:localhost,IP:{self.wire.host}")
        return f'{pair}, ca_file: "{certificates.authority}", timeout: 30'

    @staticmethod
    def read_ports(ports_dir):
        for path in ports_dir.glob("*.ports"):
            try:
                ports = json.loads(path.read_text())
            except ValueError:
                continue  # half written
            if ports.get("nats") and ports.get("monitoring"):
                return ports
        return None

    def greets(self):
        try:
            with socket.create_connection((self.wire.host, self.port), timeout=5) as client:
                if "handshake_first" in (self.config or ""):
                    return True  # says nothing until it is spoken to
                client.settimeout(5)
                with client.makefile("rb") as lines:
                    return lines.readline().startswith(b"INFO ")
        except OSError:
            return False

    def stop(self, number):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise StartError(f"broker did not end within {STOP_TIMEOUT_S} s of signal {int(number)}") from None
        self.wire.left()
        return self.process.returncode

    def restart(self, number, down_ms):
        # A kernel says goodbye for a process that was killed. TCP of the process's own dies with it: clients would only
        # notice by their next ping, which is no test of reconnecting.
        self.stop(signal.SIGTERM if self.wire.own_tcp else number)
        time.sleep(down_ms / 1000)
        for attempt in range(20):
            try:
                return self.start()
            except StartError:
                # Somebody else may sit on the port for a moment.
                if "address already in use" not in self.log().lower() or attempt == 19:
                    raise
                time.sleep(0.5)

    def log_path(self):
        return self.folder / "server.log"

    def log(self):
        try:
            return self.log_path().read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def describe(self):
        return {"id": self.id, "pid": self.process.pid, "host": self.wire.host, "port": self.port,
                "url": f"nats://{self.wire.host}:{self.port}", "http": self.http, "client_ip": self.wire.client_ip}


def signal_number(name):
    return signal.Signals["SIG" + name.upper().removeprefix("SIG")]


class Control:
    """The control port of one suite's run. Owns the brokers that the suite started."""

    def __init__(self, program, server_args, ports, folder, network):
        self.network = network
        self.program = program
        self.server_args = server_args
        self.ports = ports
        self.folder = folder
        self.servers = {}
        self.lock = threading.Lock()
        control = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                try:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    answer, status = control.call(self.path, json.loads(body or b"{}")), 200
                except Exception as error:  # the suite shall read what went wrong, whatever it was
                    answer, status = {"error": f"{type(error).__name__}: {error}"}, 500
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.listener.server_address[1]}"
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def call(self, path, body):
        if path == "/start":
            return self.start(body.get("args", []), body.get("config")).describe()
        server = self.servers[str(body["id"])]
        if path == "/stop":
            return {"exit_code": server.stop(signal_number(body.get("signal", "TERM")))}
        if path == "/restart":
            server.restart(signal_number(body.get("signal", "KILL")), body.get("down_ms", 300))
            return server.describe()
        if path == "/signal":
            server.process.send_signal(signal_number(body["signal"]))
            return {}
        if path == "/log":
            return {"log": server.log()}
        raise ValueError(f"unknown call {path}")

    def start(self, args, config):
        for attempt in range(5):
            with self.lock:
                number = len(self.servers) + 1
                server = Server(number, self.program, self.server_args, args, config, self.ports.take(),
                                self.folder / f"server{number}", self.network.wire())
                self.servers[server.id] = server
            server.folder.mkdir()
            try:
                server.start()
                return server
            except StartError as error:
                server.wire.close()
                if "address already in use" not in str(error).lower() or attempt == 4:
                    raise
        raise AssertionError("unreachable")

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()
        for server in list(self.servers.values()):
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.process.wait()
            server.wire.close()


class Suite:
    def __init__(self, name, cache_root, jobs):
        self.name = name
        self.folder = HERE / name
        self.cache = cache_root / name
        self.jobs = jobs
        self.spec = json.loads((self.folder / "suite.json").read_text())
        self.not_exposed = self.spec.get("not_exposed", {})

    def expand(self, text):
        for key, value in (("{suite}", self.folder), ("{cache}", self.cache), ("{jobs}", self.jobs)):
            text = text.replace(key, str(value))
        return text

    def environment(self):
        env = dict(os.environ)
        env.update({key: self.expand(value) for key, value in self.spec.get("env", {}).items()})
        env["CLIENTS_CACHE"] = str(self.cache)
        env["CLIENTS_SUITE"] = str(self.folder)
        return env

    def stamp(self):
        """What the prepared cache depends on: the suite's files, and the version of its language."""
        digest = hashlib.sha256(f"{self.cache}\n{sys.version}\n".encode())
        if "version" in self.spec:
            digest.update(subprocess.run([self.expand(word) for word in self.spec["version"]], env=self.environment(),
                                         stdout=subprocess.PIPE, check=False).stdout)
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(self.folder)).encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def prepare(self):
        """Returns None, or what went wrong."""
        self.cache.mkdir(parents=True, exist_ok=True)
        stamp_path = self.cache / "prepared"
        try:
            stamp = self.stamp()
        except OSError as error:
            return f"cannot prepare: {error}"
        if stamp_path.exists() and stamp_path.read_text() == stamp:
            return None
        stamp_path.unlink(missing_ok=True)
        started = time.monotonic()
        log_path = self.cache / "prepare.log"
        with open(log_path, "wb") as log:
            for command in self.spec.get("prepare", []):
                command = [self.expand(word) for word in command]
                log.write(f"$ {shlex.join(command)}\n".encode())
                log.flush()
                try:
                    code = subprocess.run(command, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=subprocess.STDOUT, check=False).returncode
                except OSError as error:
                    return f"cannot prepare: {error}"
                if code != 0:
                    log.flush()
                    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-25:])
                    return f"cannot prepare: {shlex.join(command)} ended with {code} ({log_path}):\n{tail}"
        stamp_path.write_text(stamp)
        say(f"# {self.name}: prepared in {time.monotonic() - started:.0f} s")
        return None


class Outcome:
    """What one suite reported against one broker: name -> None (passed) or the reason it failed."""

    def __init__(self):
        self.tests = {}

    def passed(self):
        return sum(1 for reason in self.tests.values() if reason is None)

    def failed(self):
        return len(self.tests) - self.passed()


def end_group(process):
    """Ends a program and whatever it started. Only for one that was not waited for yet: after that its id may be anybody's."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def keep_tail(stream, lines):
    for line in stream:
        lines.append(line.rstrip("\n"))
        del lines[:-200]


def run_suite(suite, program, ports, options):
    outcome = Outcome()
    only = set(options.only)

    def report(name, reason):
        if only and name not in only and reason is None:
            return
        outcome.tests[name] = reason
        say(f"{suite.name}: ok {name}" if reason is None else f"{suite.name}: FAIL {name}: {reason}")

    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{suite.name}-", dir=temporary_root))
    control = Control(program, options.server_args, ports, folder, options.network)
    process = None
    started = time.monotonic()
    errors = []
    try:
        env = suite.environment()
        env["CLIENTS_CONTROL"] = control.url
        env.update(CLIENTS_CA=certificates.authority, CLIENTS_CERT=certificates.path("client.pem"),
                   CLIENTS_KEY=certificates.path("client-key.pem"))
        env["CLIENTS_SERVER"] = program
        env["CLIENTS_SERVER_ARGS"] = json.dumps(options.server_args)
        if only:
            env["CLIENTS_ONLY"] = ",".join(sorted(only))
        work = folder / "work"
        work.mkdir()
        process = subprocess.Popen([suite.expand(word) for word in suite.spec["run"]], cwd=work, env=env, text=True,
                                   errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        started_processes.add(process)
        limit_s = suite.spec.get("timeout_s", 120) * options.patience
        timed_out = threading.Event()

        def expire():
            timed_out.set()
            end_group(process)

        timer = threading.Timer(limit_s, expire)
        timer.start()
        reader = threading.Thread(target=keep_tail, args=(process.stderr, errors), daemon=True)
        reader.start()
        planned = None
        for line in process.stdout:
            line = line.rstrip("\n")
            if found := re.fullmatch(r"plan (\d+)", line):
                planned = int(found[1])
            elif found := re.fullmatch(r"ok (\w+)", line):
                name = found[1]
                report(name, "reported twice" if name in outcome.tests else None)
            elif found := re.fullmatch(r"FAIL (\w+): (.*)", line):
                report(found[1], found[2] or "no reason given")
            elif options.verbose:
                say(f"{suite.name}: {line}")
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        end_group(process)
        code = process.wait()
        reader.join(5)
        if timed_out.is_set():
            report("suite_ends", f"killed after {limit_s:.0f} s")
        elif code != 0 and outcome.failed() == 0:
            report("suite_ends", f"exit code {code}")
        if planned is None:
            report("suite_plans", "no plan line")
        elif not only and planned != len([name for name in outcome.tests if not name.startswith("suite_")]):
            report("suite_plans", f"planned {planned} tests, reported {len(outcome.tests)}")
        for name in REQUIRED:
            if name not in outcome.tests and name not in suite.not_exposed and (not only or name in only):
                report(name, "not reported")
    except OSError as error:
        report("suite_starts", str(error))
    finally:
        if process is not None and process.returncode is None:
            end_group(process)
            process.wait()
        control.close()
        if outcome.failed():
            for line in errors[-40:]:
                say(f"{suite.name}: stderr: {line}")
            if options.keep:
                say(f"{suite.name}: kept {folder}")
        if not (options.keep and outcome.failed()):
            shutil.rmtree(folder, ignore_errors=True)
    for name, reason in suite.not_exposed.items():
        if options.verbose:
            say(f"{suite.name}: -- {name}: not exposed by this client: {reason}")
    took = f" ({time.monotonic() - started:.0f} s)" if options.verbose else ""
    say(f"{suite.name}: {outcome.passed()} passed, {outcome.failed()} failed{took}")
    return outcome


def run_all(suites, program, options):
    ports = Ports()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {suite.name: pool.submit(run_suite, suite, program, ports, options) for suite in suites}
        return {name: future.result() for name, future in running.items()}


def stop_at_signal(number, _):
    for process in list(started_processes):
        if process.poll() is None:
            end_group(process)
    shutil.rmtree(temporary_root, ignore_errors=True)
    certificates.remove()
    os._exit(128 + number)  # suites still run in threads; nothing is left to wait for


def find_program(text):
    path = shutil.which(text) if "/" not in text else text
    if path is None or not os.access(path, os.X_OK):
        raise SystemExit(f"run.py: no such program: {text}")
    return str(pathlib.Path(path).absolute())


def parse(argv):
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description="Run the real NATS clients against a broker (README.md beside this file).")
    parser.add_argument("--server", metavar="PATH", default=str(REPO / "build" / "peregrine"), help="broker to test")
    parser.add_argument("--against", metavar="PATH", help="a real nats-server that must pass the same tests")
    parser.add_argument("--suite", metavar="A,B", default=None, help="default: all that are there: " + ",".join(SUITES))
    parser.add_argument("--server-args", metavar="ARGS", default="", help="more arguments for --server, e.g. '--shards 2'")
    parser.add_argument("--over", type=wires.check, default="loopback", metavar="WIRE",
                        help="loopback, or dpdk:af_packet[:QUEUES], dpdk:af_xdp or dpdk:tap[:QUEUES]: over veth pairs or TAP devices in a network namespace")
    parser.add_argument("--only", metavar="TEST,TEST", default="", help="only these tests")
    parser.add_argument("--cache", metavar="DIR", default=str(REPO / "build" / "clients-cache"))
    parser.add_argument("--jobs", type=int, default=cores, help=f"suites at once (default {cores}, the cores)")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on the suites' time limits")
    parser.add_argument("--prepare", action="store_true", help="only fill the cache")
    parser.add_argument("--keep", action="store_true", help="keep logs of suites that failed")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(argv)
    options.server_args = shlex.split(options.server_args)
    options.only = [name for name in options.only.split(",") if name]
    present = [name for name in SUITES if (HERE / name / "suite.json").exists()]
    options.suite = options.suite.split(",") if options.suite else present
    for name in options.suite:
        if name not in present:
            raise SystemExit(f"run.py: no suite {name}; there are {', '.join(present)}")
    options.network = wires.Network(options.over)
    if options.against and options.network.separate:
        raise SystemExit("run.py: --against has no DPDK; leave --over away")
    if options.jobs < 1:
        raise SystemExit("run.py: --jobs must be at least 1")
    return options


def main(argv):
    options = parse(argv)
    global temporary_root
    if not options.prepare:
        programs = [("server", find_program(options.server))]
        if options.against:
            programs.append(("against", find_program(options.against)))
    suites = [Suite(name, pathlib.Path(options.cache).resolve(), max(1, len(os.sched_getaffinity(0)))) for name in options.suite]
    broken = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for suite, problem in zip(list(suites), pool.map(Suite.prepare, list(suites))):
            if problem:
                say(f"{suite.name}: FAIL suite_prepares: {problem}")
                say(f"{suite.name}: 0 passed, 1 failed")
                suites.remove(suite)
                broken += 1
    if options.prepare:
        return 1 if broken else 0
    options.network.enter([sys.executable, "-B", str(pathlib.Path(__file__).resolve()), *argv])
    temporary_root = tempfile.mkdtemp(prefix="clients-")
    global certificates
    certificates = Certificates()
    certificates.pair("client")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_at_signal)
    outcomes = []
    for role, program in programs:
        if len(programs) > 1:
            say(f"== {program}")
        if role == "against":
            options.server_args = []
        outcomes.append(run_all(suites, program, options))
    if len(outcomes) == 2:
        for suite in suites:
            ours, theirs = outcomes[0][suite.name].tests, outcomes[1][suite.name].tests
            for name in sorted(set(ours) | set(theirs)):
                if (ours.get(name, "") is None) != (theirs.get(name, "") is None):
                    better = programs[0 if ours.get(name, "") is None else 1][1]
                    say(f"differs: {suite.name} {name}: passes only on {better}")
    certificates.remove()
    if not any(os.scandir(temporary_root)):
        os.rmdir(temporary_root)
    passed = sum(outcome.passed() for run in outcomes for outcome in run.values())
    failed = sum(outcome.failed() for run in outcomes for outcome in run.values()) + broken
    say(f"{passed} passed, {failed} failed")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
