"""The broker started as a case wants it, and the list of cases."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "conversation"))
from broker import CERTIFICATE, HOST, PATIENCE, Broker, Wire, free_port, until  # noqa: E402, F401

CERT, KEY = CERTIFICATE["TEST_CERT"], CERTIFICATE["TEST_KEY"]
LOG_LINE = re.compile(r"\[(\d+)\] (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) \[(INF|DBG|WRN|ERR|FTL|TRC)\] .*")
READY_S = 10

CASES = []


def case(function):
    CASES.append((function.__name__, function))
    return function


def check(condition, message):
    if not condition:
        raise AssertionError(message)


class Started(Broker):
    """The broker started with exactly these arguments in a directory of its own."""

    def __init__(self, exe, *args, config=None, env=None, wait=True, ports_dir=True):
        self.binary = exe.path
        self.directory = tempfile.mkdtemp(prefix="launch-")
        self.log_path = os.path.join(self.directory, "stderr.log")
        self.out_path = os.path.join(self.directory, "stdout.log")
        args = list(args)
        if config is not None:
            self.write("test.conf", config)
            args = ["-c", "test.conf", *args]
        if ports_dir:
            args += ["--ports_file_dir", "."]
        with open(self.log_path, "wb") as log, open(self.out_path, "wb") as out:
            self.process = subprocess.Popen([exe.path, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                            cwd=self.directory, env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.port = self.monitor_port = None
        if wait:
            try:
                self._wait()
            except Exception:
                self.stop()
                raise

    def _wait(self):
        self._read_ports()
        with open(self.ports_path(), encoding="utf-8") as file:
            self.ports = json.load(file)

    def ports_path(self):
        found = glob.glob(os.path.join(self.directory, f"*_{self.pid}.ports"))
        return found[0] if found else None

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def exits(self, timeout_s=5):
        try:
            return self.process.wait(timeout_s * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s} s: {self.log_tail()}") from None

    def logged(self, pattern, timeout_s=5, name="stderr.log"):
        found = until(lambda: re.search(pattern, self.read(name), re.M) if os.path.exists(self.path(name)) else None,
                      timeout_s, 0.02)
        if not found:
            tail = self.read(name)[-500:] if os.path.exists(self.path(name)) else "no such file"
            raise AssertionError(f"no line like {pattern!r} in {name}: {tail}")
        return found


class Exe:
    """A broker binary under some name."""

    def __init__(self, path, reference):
        self.path = path
        self.reference = reference
        self.name = os.path.basename(path)

    def run(self, *args, cwd=None, timeout_s=10):
        """A start that is to end by itself."""
        try:
            return subprocess.run([self.path, *args], capture_output=True, text=True, cwd=cwd, timeout=timeout_s * PATIENCE,
                                  stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{' '.join(args)}: did not exit in {timeout_s} s") from None

    def start(self, *args, **options):
        return Started(self, *args, **options)


def loopback(*args):
    return ("-a", HOST, "-p", "-1", *args)


class Scratch:
    """A directory of files for a start that ends at once."""

    def __init__(self, **files):
        self.files = files

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="launch-")
        for name, text in self.files.items():
            with open(os.path.join(self.directory, name.replace("_", ".")), "wb") as file:
                file.write(text if isinstance(text, bytes) else text.encode())
        return self.directory

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)
