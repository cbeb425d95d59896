"""Contenders: how each is started, found and stopped. Every run gets a fresh process, on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from . import wire
from .metrics import ALL_CORES


class StartFailure(Exception):
    pass


@dataclass
class Contender:
    name: str
    command: list[str] = field(default_factory=list)  # empty: a server that runs already
    url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    relay: bool = False
    ours: bool = False
    reference: bool = False  # what ours is compared with
    setup: str = ""  # "one core" or "all cores"
    over: str = ""  # "cable" instead of loopback (wire.py), or the DPDK driver at the cable's end
    shards: int = 1  # over DPDK
    cores: Optional[list[int]] = None  # the server runs on these (None: anywhere)
    load_cores: Optional[list[int]] = None  # the generator, when it measures this one
    rows: tuple[str, ...] = ()  # takes part in these scenarios only, and stands beside: it is shown, not judged

    def with_cores(self, n: int) -> "Contender":
        """The same program made to use n cores: shards of ours, GOMAXPROCS of nats-server."""
        if n == 0:
            return self
        if not self.ours:
            return replace(self, environment={**self.environment, "GOMAXPROCS": str(n)})
        command = list(self.command)
        if "--shards" in command:
            at = command.index("--shards")
            del command[at : at + 2]
        return replace(self, command=[*command, "--shards", str(n)])

    @property
    def remote(self) -> bool:
        return not self.command


class Server:
    """A running contender. Use as a context manager: it is stopped by its pid, whatever happens."""

    def __init__(self, contender: Contender, config: str = "") -> None:
        self.contender = contender
        self.url = contender.url
        self.pid: Optional[int] = None
        self.monitor = ""  # http://host:port
        self.facts: dict[str, str] = {}  # what it says of itself in its log: backend, shards
        self._config = config
        self.crash = ""  # after the with block: how it ended, if not in peace
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._dir: Optional[tempfile.TemporaryDirectory[str]] = None

    def __enter__(self) -> "Server":
        if not self.contender.remote:
            try:
                self._start()
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()

    def _start(self) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="peregrine-bench-")
        ports_dir = Path(self._dir.name)
        command = list(self.contender.command)
        driver = self.contender.over if self.contender.over != "cable" else ""
        host, port = (wire.SERVER, wire.PORT) if self.contender.over else ("127.0.0.1", "-1")
        text = self._config + (wire.config(driver, self.contender.shards) if driver else "")
        if self.contender.relay:
            command += ["--ports_file_dir", str(ports_dir)] + (["--host", host] if self.contender.over else [])
        else:
            command += ["-a", host, "-p", port, "--ports_file_dir", str(ports_dir)]
            if not driver:
                command += ["-m", "-1"]
            if text:
                config = ports_dir / "server.conf"
                config.write_text(text)
                command += ["-c", str(config)]
        if self.contender.over:
            wire.occupy(driver)
            command = wire.prefix() + command
        log = open(ports_dir / "log", "wb")
        # The child inherits its cores from us: no shell, no taskset, the pid is the server's.
        before = os.sched_getaffinity(0)
        if self.contender.cores:
            os.sched_setaffinity(0, self.contender.cores)
        try:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.contender.environment},
                start_new_session=True,
            )
        except OSError as e:
            raise StartFailure(f"{command[0]}: {e.strerror}") from e
        finally:
            os.sched_setaffinity(0, before)
            log.close()
        self.pid = self._process.pid
        self._await_ports(ports_dir)

    def _await_ports(self, ports_dir: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StartFailure(
                    f"{self.contender.name} ended with {self._process.returncode}: {self._log_tail(ports_dir)}"
                )
            for path in ports_dir.glob("*.ports"):
                try:
                    ports = json.loads(path.read_text())
                    self.url = ports["nats"][0]
                    self.monitor = ports.get("monitoring", [""])[0]
                    self._read_facts(ports_dir)
                    return
                except (ValueError, KeyError, IndexError):
                    pass  # half written
            time.sleep(0.02)
        raise StartFailure(f"{self.contender.name} wrote no ports file within 15 s: {self._log_tail(ports_dir)}")

    def _read_facts(self, ports_dir: Path) -> None:
        log = (ports_dir / "log").read_text(errors="replace")
        for name, pattern in (("backend", r"backend: (.+)"), ("shards", r"[Ss]hards: (.+)")):
            if found := re.search(pattern, log):
                self.facts[name] = found.group(1).strip()

    @staticmethod
    def _log_tail(ports_dir: Path) -> str:
        text = (ports_dir / "log").read_text(errors="replace").strip()
        return text[-600:] or "(nothing logged)"

    def _stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=180)  # freeing ten million subscriptions takes its time
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self.crash = "did not end within 180 s of SIGTERM"
        code = self._process.returncode if self._process else 0
        if code < 0 and code != -signal.SIGTERM and not self.crash:
            self.crash = f"ended by {signal.Signals(-code).name}"
        if self._dir:
            self._dir.cleanup()
            self._dir = None


def version_of(command: list[str], environment: dict[str, str]) -> str:
    try:
        out = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=10, env={**os.environ, **environment}
        )
        lines = (out.stdout or out.stderr).strip().splitlines()
        return lines[0] if lines else "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def greeting_of(url: str) -> str:
    """The version a server that runs somewhere says it has."""
    host, _, port = url.split("://", 1)[1].rpartition("@")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as connection:
            line = connection.makefile("rb").readline(65536).decode()
        return "v" + str(json.loads(line.removeprefix("INFO "))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "of unknown version,"


def parse_server(text: str) -> Contender:
    """NAME=COMMAND, COMMAND, NAME=nats://host:port or nats://host:port."""
    name, separator, rest = text.partition("=")
    if not separator or "/" in name or " " in name or name.startswith("-"):
        name, rest = "", text
    if "://" in rest.split()[0]:
        return Contender(name or rest.split("://", 1)[1], url=rest, setup=ALL_CORES)
    command = shlex.split(rest)
    return Contender(name or Path(command[0]).name, command=command, setup=ALL_CORES)
