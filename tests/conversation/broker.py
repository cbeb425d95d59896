"""A broker under test as a child process, and the few raw pieces every runner here needs.

Owns: the process, its temporary directory, its log. Ports are always random and learned from the ports file, so any
number of runners may work at the same time. Nothing here knows which broker it starts.
"""

import contextlib
import glob
import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients"))
import wires  # noqa: E402

START_TIMEOUT_S = 60
# Timeouts in the tests say what a machine with nothing else to do needs at most. A busy one gets this many times more:
# what is broken does not come at all.
PATIENCE = 6
HOST = "127.0.0.1"
# For configs that need a certificate: `cert_file: $TEST_CERT`, `key_file: $TEST_KEY`. For localhost and 127.0.0.1.
CERTIFICATE = {f"TEST_{part.upper()}": os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{part}.pem")
               for part in ("cert", "key")}


class StartError(Exception):
    """The broker exited, or did not write its ports file in time."""


def find_reference():
    """The nats-server to compare with: $NATS_SERVER, else the one in PATH, else None."""
    return os.environ.get("NATS_SERVER") or shutil.which("nats-server")


def default_server():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.path.join(root, "build", "peregrine")


def is_reference(binary):
    """True for a real nats-server; asked of the binary, because a link may carry any name."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    return "peregrine" not in (text.stdout + text.stderr).lower() and os.path.basename(
        os.path.realpath(binary)) != "peregrine"


def raise_file_limit():
    """Lift this process's soft limit to the hard one; children inherit it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


_ports_taken = set()


def free_port(host="127.0.0.1"):
    """A port nobody listens on, for what takes no -1. Below Linux's ephemeral range: no outgoing connection takes it meanwhile."""
    while True:
        port = random.randrange(10000, 32000)
        if port in _ports_taken:
            continue
        _ports_taken.add(port)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port


@contextlib.contextmanager
def port_that_answers_no_syn():
    """One whose accept queue is full."""
    with socket.socket() as listener, contextlib.ExitStack() as queue:
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def until(condition, timeout_s=5.0, step_s=0.01):
    """Poll until condition() is truthy; its value, or None at PATIENCE times the timeout."""
    end = time.monotonic() + timeout_s * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            return None
        time.sleep(step_s)


class Broker:
    """One started broker. `config` is NATS grammar; ports, ports file and monitoring are added to it. `wire`: the way clients reach
    it (../clients/wires.py), the caller's; none is loopback."""

    wire = wires.Loopback()  # of who starts otherwise, too
    host = wire.host

    def __init__(self, binary, config="", args=(), monitor=True, limits=None, wire=None):
        self.binary = binary
        if wire is not None:
            self.wire, self.host = wire, wire.host
        self.directory = tempfile.mkdtemp(prefix="broker-")
        self.log_path = os.path.join(self.directory, "stderr.log")
        config_path = os.path.join(self.directory, "test.conf")
        with open(config_path, "w", encoding="utf-8") as file:
            file.write(f'listen: "{self.host}:-1"\nports_file_dir: "{self.directory}"\n')
            file.write(self.wire.config() or "")
            if monitor and not self.wire.own_tcp:
                file.write(f'http: "{HOST}:-1"\n')
            file.write(config)
        self.wire.taken()
        preexec = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)) if limits else None
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([binary, "-c", config_path, *args], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.directory, preexec_fn=preexec,
                                            env={**os.environ, **CERTIFICATE})
        self.pid = self.process.pid
        try:
            self._read_ports()
            self.wire.started()
        except Exception:
            self.stop()
            raise

    def _read_ports(self):
        pattern = os.path.join(self.directory, f"*_{self.pid}.ports")
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            if self.process.poll() is not None:
                raise StartError(f"{self.binary} exited with {self.process.returncode}: {self.log_tail()}")
            for path in glob.glob(pattern):
                try:
                    with open(path, encoding="utf-8") as file:
                        ports = json.load(file)
                except ValueError:
                    continue
                self.port = urllib.parse.urlsplit(ports["nats"][0]).port
                monitoring = ports.get("monitoring") or []
                self.monitor_port = urllib.parse.urlsplit(monitoring[0]).port if monitoring else None
                return
            if time.monotonic() > end:
                raise StartError(f"no ports file after {START_TIMEOUT_S} s: {self.log_tail()}")
            time.sleep(0.01)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def log_tail(self):
        return self.log()[-600:].strip()

    def logged_at(self, *texts):
        """When the log first said all of these in one line, in seconds of the day; None: never."""
        for line in self.log().splitlines():
            if all(text in line for text in texts):
                hours, minutes, seconds = line.split()[2].split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        return None

    def connect(self, timeout_s=5.0, receive_buffer=None):
        sock = socket.socket()
        sock.settimeout(timeout_s * PATIENCE)
        if receive_buffer:  # before connect, or the window is negotiated without it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect((self.host, self.port))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def get(self, path):
        """(status, body) of a monitoring page."""
        connection = http.client.HTTPConnection(HOST, self.monitor_port, timeout=10 * PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def get_json(self, path):
        return json.loads(self.get(path)[1])

    def close_reason(self, cid, timeout_s=3.0):
        """The reason /connz gives for a closed connection, or None."""
        def look():
            for row in self.get_json("/connz?state=closed&limit=10000").get("connections") or []:
                if row["cid"] == cid:
                    return row.get("reason")
            return None
        return until(look, timeout_s)

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def cpu_s(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        code = self.process.returncode
        self.wire.left()
        shutil.rmtree(self.directory, ignore_errors=True)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Wire:
    """A raw client: bytes out, lines in. Raises AssertionError with what it saw instead."""

    def __init__(self, broker, connect='{"verbose":false,"pedantic":false}', timeout_s=5.0, receive_buffer=None):
        self.broker = broker
        self.timeout_s = timeout_s
        self.sock = broker.connect(timeout_s, receive_buffer)
        self.buffer = b""
        line = self.line()
        if not line.startswith(b"INFO "):
            raise AssertionError(f"expected INFO, got {line!r}")
        self.info = json.loads(line[5:])
        if connect is not None:
            self.send(b"CONNECT " + connect.encode() + b"\r\n")

    def send(self, data):
        self.sock.sendall(data)

    def _fill(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise AssertionError(f"timeout, buffered {self.buffer[:120]!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(1 << 16)
        except socket.timeout:
            raise AssertionError(f"timeout, buffered {self.buffer[:120]!r}") from None
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError(f"closed, buffered {self.buffer[:120]!r}")
        self.buffer += data

    def line(self, timeout_s=None):
        """The next line that is no PING; those are answered here, as any client would."""
        end = time.monotonic() + (timeout_s or self.timeout_s) * PATIENCE
        while True:
            while b"\r\n" not in self.buffer:
                self._fill(end)
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            if line != b"PING":
                return line
            self.send(b"PONG\r\n")

    def expect(self, data, timeout_s=None):
        """The next bytes are `data`, apart from PINGs before it."""
        end = time.monotonic() + (timeout_s or self.timeout_s) * PATIENCE
        while len(self.buffer) < len(data) or self.buffer.startswith(b"PING\r\n"):
            if self.buffer.startswith(b"PING\r\n"):
                self.buffer = self.buffer[6:]
                self.send(b"PONG\r\n")
            elif data.startswith(self.buffer) or b"PING\r\n".startswith(self.buffer):
                self._fill(end)
            else:
                break
        if not self.buffer.startswith(data):
            raise AssertionError(f"expected {data[:120]!r}, got {self.buffer[:120]!r}")
        self.buffer = self.buffer[len(data):]

    def sync(self, timeout_s=None):
        self.send(b"PING\r\n")
        self.expect(b"PONG\r\n", timeout_s)

    def closed(self, timeout_s=None):
        """Read until the peer closes; the bytes that came before."""
        end = time.monotonic() + (timeout_s or self.timeout_s) * PATIENCE
        try:
            while True:
                self._fill(end)
        except EOFError:
            data, self.buffer = self.buffer, b""
            return data

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Tally:
    """Prints `ok NAME` / `FAIL NAME: reason` and the closing line every runner ends with."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def ok(self, name, note=""):
        self.passed += 1
        print(f"ok {name}" + (f" ({note})" if note else ""), flush=True)

    def fail(self, name, reason):
        self.failed += 1
        print(f"FAIL {name}: {reason}", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
