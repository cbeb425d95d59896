"""scripts/bench: Peregrine, the newest nats-server and the floor, turn by turn on the same cores."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Optional

from . import html, machine, table
from .measure import Setup, run_all, warnings_of
from .scenarios import SCENARIOS, select
from .servers import Contender, parse_server, version_of


def core_list(text: str) -> list[int]:
    out: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        out += range(int(low), int(high or low) + 1)
    return out


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares Peregrine with the newest nats-server and with the floor (a relay without a protocol), turn "
        "by turn, medians over the runs. Every message is verified. Without arguments: all core scenarios, about "
        "a quarter of an hour.",
        epilog="How a number is taken: bench/README.md",
    )
    p.add_argument("--list", action="store_true", help="list the scenarios and exit")
    p.add_argument(
        "--scenario", action="append", default=[], metavar="GLOB", help="only these (repeatable; 'all': every one)"
    )
    p.add_argument(
        "--duration", type=float, default=2.0, metavar="S", help="seconds of each measured window (default 2)"
    )
    p.add_argument("--warmup", type=float, default=0.5, metavar="S", help="seconds before each window (default 0.5)")
    p.add_argument("--runs", type=int, default=3, help="runs per scenario and server; medians are reported (default 3)")
    p.add_argument(
        "--quick", action="store_true", help="one run of half a second: a first impression, not a measurement"
    )
    p.add_argument("--size", type=int, metavar="BYTES", help="payload size, in scenarios that are not about sizes")
    p.add_argument(
        "--one-core",
        action="store_true",
        help="servers on one core (--shards 1, GOMAXPROCS=1), the generator on the others",
    )
    p.add_argument(
        "--server-cores", type=core_list, metavar="LIST", help="cores of the servers, such as 0,2-3 (default: all)"
    )
    p.add_argument("--load-cores", type=core_list, metavar="LIST", help="cores of the generator (default: all)")
    p.add_argument(
        "--backends", metavar="LIST", help="compare Peregrine's backends, such as uring,epoll (default: its own choice)"
    )
    p.add_argument("--shards", metavar="LIST", help="compare numbers of shards, such as 1,2,4")
    p.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="[NAME=]COMMAND|URL",
        help="another server to compare: a command that takes nats-server's flags, or nats://host:port of one that runs "
        "(then without CPU figures); repeatable",
    )
    p.add_argument("--only", action="append", default=[], metavar="NAME", help="only these contenders (repeatable)")
    p.add_argument("--no-floor", action="store_true", help="leave the relay out")
    p.add_argument("--json", metavar="FILE", help="write everything measured there")
    p.add_argument("--html", metavar="FILE", help="write a report with plots there (one file, opens anywhere)")
    p.add_argument(
        "--from-json", metavar="FILE", help="measure nothing: make the report (and --html) from an earlier --json"
    )
    p.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    # Given by scripts/bench.
    p.add_argument("--load", default="build/bench/load", help=argparse.SUPPRESS)
    p.add_argument("--relay", default="build/bench/relay", help=argparse.SUPPRESS)
    p.add_argument("--peregrine", default="build/peregrine", help=argparse.SUPPRESS)
    p.add_argument("--nats-server", default="", help=argparse.SUPPRESS)
    return p.parse_args()


def contenders_of(a: argparse.Namespace) -> list[Contender]:
    out = []
    shard_flags = [["--shards", "1"]] if a.one_core else [[]]
    if a.shards:
        shard_flags = [["--shards", n] for n in a.shards.split(",")]
    backends = a.backends.split(",") if a.backends else [""]
    if os.access(a.peregrine, os.X_OK):
        for backend in backends:
            for flags in shard_flags:
                label = [x for x in (backend, f"{flags[1]} shards" if a.shards else "") if x]
                name = "peregrine" + (f" ({', '.join(label)})" if label else "")
                out.append(
                    Contender(name, [a.peregrine, *flags, *(["--backend", backend] if backend else [])], ours=True)
                )
    else:
        print(f"{a.peregrine} is missing: measuring the others only", file=sys.stderr)
    if a.nats_server:
        out.append(Contender(table.REFERENCE, [a.nats_server], environment={"GOMAXPROCS": "1"} if a.one_core else {}))
    out += [parse_server(text) for text in a.server]
    if not a.no_floor and os.access(a.relay, os.X_OK):
        out.append(Contender(table.FLOOR, [a.relay], relay=True))
    if a.only:
        out = [c for c in out if c.name in a.only]
    names = [c.name for c in out]
    if len(set(names)) != len(names):
        raise SystemExit("two servers of the same name: give them names, as in --server 'NAME=COMMAND'")
    if not out:
        raise SystemExit("nothing to measure")
    return out


def place(a: argparse.Namespace) -> tuple[Optional[list[int]], Optional[list[int]]]:
    """Cores of (servers, generator). None: wherever the scheduler likes, the same for all contenders."""
    servers, load = a.server_cores, a.load_cores
    if a.one_core:
        cores = machine.cores()
        servers = servers or cores[:1]
        load = load or [c for c in cores if c not in servers] or cores
    return servers, load


def list_scenarios() -> None:
    for s in SCENARIOS:
        goals = [f"{m.label} ≥ {m.goal:g}×" for m in s.metrics if m.goal] + [
            f"{m.label} ≤ {m.at_most:g} {m.unit}" for m in s.metrics if m.at_most
        ]
        print(f"{s.name:<20} {'' if s.core else '(extra) '}{s.title}{'; goal: ' + ', '.join(goals) if goals else ''}")


def heading(document: dict[str, Any]) -> str:
    m, how = document["machine"], document["setup"]
    where = "one core for the servers, the generator elsewhere" if how["one_core"] else "all cores for everybody"
    if how["server_cores"] and not how["one_core"]:
        where = f"servers on cores {how['server_cores']}"
    lines = [
        f"{m['cpu']}{' (virtual)' if m['virtual'] else ''}, {len(m['cores'])} cores, {m['memory_gib']} GiB, Linux {m['kernel']}",
        f"{where}; {how['runs']} runs of {how['duration_s']:g} s, medians; {m['time']}",
    ]
    lines += [f"  {name}: {version}" for name, version in document["versions"].items()]
    return "\n".join(lines)


def main() -> int:
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # servers are stopped on both
    if a.list:
        list_scenarios()
        return 0
    if a.from_json:
        return from_json(a)
    if a.quick:
        a.runs, a.duration, a.warmup = 1, 0.5, 0.2
    scenarios = select(a.scenario)
    contenders = contenders_of(a)
    server_cores, load_cores = place(a)
    separate = bool(server_cores and load_cores and not set(server_cores) & set(load_cores))
    setup = Setup(Path(a.load), a.duration, a.warmup, a.runs, a.size, server_cores, load_cores, spin=separate)
    document: dict[str, Any] = {
        "machine": machine.facts(),
        "setup": {
            "runs": a.runs,
            "duration_s": a.duration,
            "warmup_s": a.warmup,
            "size": a.size,
            "one_core": a.one_core,
            "server_cores": server_cores,
            "load_cores": load_cores,
        },
        "versions": {
            c.name: (
                ("running at " + c.url)
                if c.remote
                else (
                    "moves bytes, understands nothing"
                    if c.relay
                    else version_of(c.command[:1], c.environment)
                    + (" " + " ".join(c.command[1:]) if c.command[1:] else "")
                )
            )
            for c in contenders
        },
        "names": [c.name for c in contenders],
        "judged": [c.name for c in contenders if c.ours],
    }
    print(heading(document) + "\n", file=sys.stderr)
    idle_load = machine.others_load()
    rows = run_all(setup, scenarios, contenders)
    verdicts = table.judge(rows, document["judged"], a.one_core)
    warnings = warnings_of(rows, idle_load)
    document["warnings"] = warnings
    document["goals"] = [v.as_dict() for v in verdicts]
    document["scenarios"] = [
        {
            "name": r.scenario.name,
            "title": r.scenario.title,
            "args": r.scenario.args,
            "results": {n: c.results for n, c in r.cells.items()},
            "errors": {n: c.errors for n, c in r.cells.items() if c.errors},
        }
        for r in rows
    ]
    if not sys.stdout.isatty():
        print(heading(document) + "\n")
    print(table.report(rows, document["names"], document["judged"], verdicts, warnings))
    if a.json:
        Path(a.json).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if a.html:
        Path(a.html).write_text(html.page(document, heading(document)))
    failed = any(c.errors for r in rows for c in r.cells.values())
    missed = any(v.passed is False for v in verdicts)
    return 1 if failed or (a.strict and missed) else 0


def from_json(a: argparse.Namespace) -> int:
    from .measure import Cell, Row

    document = json.loads(Path(a.from_json).read_text())
    known = {s.name: s for s in SCENARIOS}
    rows = [
        Row(known[s["name"]], {n: Cell(r, s["errors"].get(n, [])) for n, r in s["results"].items()})
        for s in document["scenarios"]
        if s["name"] in known
    ]
    verdicts = table.judge(rows, document["judged"], document["setup"]["one_core"])
    document["goals"] = [v.as_dict() for v in verdicts]
    print(
        heading(document)
        + "\n\n"
        + table.report(rows, document["names"], document["judged"], verdicts, document["warnings"])
    )
    if a.html:
        Path(a.html).write_text(html.page(document, heading(document)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
