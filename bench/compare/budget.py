"""The budget table: instructions per message at each of the eight stops of the walk (README.md), counted by callgrind.

Exact across noise, so what a change costs or saves shows on any machine, however busy. The whole server runs under it, with
the load generator outside; user space only: what the kernel does is the floor's (relay.cc) and every server's. Code is
attributed to the source file it stands in, also where it was inlined, so the build needs debug information.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from .scenarios import SCENARIOS
from .servers import Contender, Server
from .table import Table

# Source files of each stop; the first pattern that fits decides.
STOPS = [
    ("1 acquire: backend, receive", r"net/(epoll|uring|tcp)/|net/(backend|listen|receive)"),
    ("2 turn: reactor, shard, timers", r"net/|core/(shard\.|server|timer_wheel|snapshot|load|placement)"),
    ("3 parse", r"core/(parser|protocol)"),
    (
        "4 session: limits, permissions",
        r"core/(client_|session|permissions|subject|account|sid_table|subscription)",
    ),
    ("5 match: cache, index", r"core/(sublist|match|hash|interest|shard_interest)"),
    ("6 deliver", r"core/(delivery|run\.|deal\.)"),
    ("7 ring, to other shards", r"core/(ring|mailbox|crossing|literal_batch)"),
    ("8 outbox, send", r"core/(outbox|buffer)"),
    ("copying (memcpy, memmove)", r"core/bytes|/mem(cpy|move|ccpy)|memmove|memcpy"),
]
REST = "library, the rest"
SCENARIOS_COUNTED = ("pub-16", "1to1-16", "1to1-1024", "subjects-4096", "own-write", "fan-100", "request-16", "churn")


def _stop(source: str) -> str:
    return next((name for name, pattern in STOPS if re.search(pattern, source)), REST)


def _self_costs(path: Path) -> Counter[str]:
    """Instructions by source file out of callgrind's format: what a called function costs is not counted twice."""
    names: dict[str, str] = {}
    out: Counter[str] = Counter()
    current, home, function, skip = "", "", "", False
    for line in path.read_text(errors="replace").splitlines():
        if found := re.match(r"(fl|fi|fe|fn)=\((\d+)\)(?: (.*))?", line):
            kind, number, name = found.groups()
            space = "fn" if kind == "fn" else "file"  # ids of functions and of files are counted apart
            if name:
                names[f"{space}{number}"] = name
            if kind == "fn":
                function = names.get(f"fn{number}", "")
            else:
                current = names.get(f"file{number}", "")
                home = current if kind == "fl" else home
        elif found := re.match(r"(cfi|cfl|cfn)=\((\d+)\)(?: (.*))?", line):
            kind, number, name = found.groups()
            if name:
                names[f"{'fn' if kind == 'cfn' else 'file'}{number}"] = name
        elif line.startswith("calls="):
            skip = True
        elif found := re.match(r"(?:[+-]?\d+|\*) (\d+)", line):
            if not skip:
                # Inlined from a library's header: of the function it stands in. Not inlined: its own name tells more.
                ours = next((f for f in (current, home) if re.search(r"(core|net|config)/", f)), "")
                out[ours or f"{current}/{function}"] += int(found.group(1))
            skip = False
    return out


def _count(peregrine: str, load: str, name: str) -> tuple[Counter[str], float]:
    scenario = next(s for s in SCENARIOS if s.name == name)
    with tempfile.TemporaryDirectory(prefix="peregrine-budget-") as directory:
        out = Path(directory) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", peregrine]
        command += ["--shards", "1", "--backend", "epoll", "--idle", "park"]
        with Server(Contender("peregrine under callgrind", command), scenario.config) as server:
            switch = ["callgrind_control", "-i"]
            subprocess.run([*switch, "on", str(server.pid)], check=True, capture_output=True)
            run = [load, "--server", server.url, "--warmup", "0", "--duration", "3", *scenario.args]
            done = subprocess.run(run, capture_output=True, text=True, timeout=200)
            subprocess.run([*switch, "off", str(server.pid)], check=True, capture_output=True)
            result = json.loads(done.stdout)
            if not result.get("ok"):
                raise SystemExit(f"{name}: {result.get('error')}")
        verified = result["verified"]
        window = result["window"]
        if "answered" in verified:
            messages = 4.0 * verified["answered"]
        elif name == "churn":
            messages = window["messages_in"] + window["messages_out"]
        else:
            messages = float(verified["sent"] + verified["received"])
        costs: Counter[str] = Counter()
        for part in Path(directory).glob("callgrind.out*"):
            for source, cost in _self_costs(part).items():
                costs[_stop(source)] += cost
        return costs, messages


def text(peregrine: str, load: str, wanted: list[str]) -> str:
    names = wanted or list(SCENARIOS_COUNTED)
    columns: dict[str, dict[str, float]] = {}
    for name in names:
        print(f"counting {name} ...", file=sys.stderr, flush=True)
        costs, messages = _count(peregrine, load, name)
        columns[name] = {stop: cost / messages for stop, cost in costs.items()}
    table = Table(["instructions per message (in + out)", *names])
    for stop in [*(name for name, _ in STOPS), REST]:
        table.add([stop, *(f"{columns[n].get(stop, 0.0):.1f}" for n in names)])
    table.add(["all", *(f"{sum(columns[n].values()):.1f}" for n in names)])
    return table.text()
