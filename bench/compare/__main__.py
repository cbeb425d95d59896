"""scripts/bench: Peregrine, the newest nats-server and the floor, turn by turn on the same cores."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from . import budget, contenders, frames, html, machine, model, wire
from .goals import judge
from .measure import Cell, Row, Setup, run_all, warnings_of
from .metrics import ALL_CORES, ONE_CORE
from .scenarios import SCENARIOS, Scenario, select
from .table import Report


def core_list(text: str) -> list[int]:
    out: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        out += range(int(low), int(high or low) + 1)
    return out


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares Peregrine (each backend) with the newest nats-server and with the floor (a relay without a "
        "protocol), turn by turn, medians over the runs; with every server on all cores, and with every server on one "
        "(columns @1). Every message is verified. Without arguments: the core scenarios, some five minutes.",
        epilog="How a number is taken: bench/README.md",
    )
    p.add_argument("--list", action="store_true", help="list the scenarios and exit")
    p.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these (repeatable; 'core': those of a run without arguments, 'all': every one)",
    )
    p.add_argument("--quick", action="store_true", help="one run of each: a first impression, not a measurement")
    p.add_argument("--full", action="store_true", help="every scenario and column, 3 runs of 2 s: one to two hours")
    p.add_argument("--duration", type=float, metavar="S", help="seconds of each measured window (0.5; --full: 2)")
    p.add_argument("--warmup", type=float, metavar="S", help="seconds before each window (0.2; --full: 0.5)")
    p.add_argument("--runs", type=int, help="runs per scenario and server; medians are reported (2; --full: 3)")
    p.add_argument("--size", type=int, metavar="BYTES", help="payload size, in scenarios that are not about sizes")
    p.add_argument(
        "--connections",
        type=int,
        metavar="N",
        help="so many subscribers, publishers, requesters, pairs or idle connections, in scenarios that have several",
    )
    p.add_argument(
        "--one-core",
        action="store_true",
        help="only the one-core columns: servers on one core (--shards 1, GOMAXPROCS=1), the generator on the others",
    )
    p.add_argument("--all-cores", action="store_true", help="only the other columns: all cores for everybody")
    p.add_argument(
        "--server-cores", type=core_list, metavar="LIST", help="cores of the servers, such as 0,2-3 (default: all)"
    )
    p.add_argument("--load-cores", type=core_list, metavar="LIST", help="cores of the generator (default: all)")
    p.add_argument("--backends", metavar="LIST", help="Peregrine's backends, such as uring (default: uring,epoll)")
    p.add_argument("--shards", metavar="LIST", help="compare numbers of shards, such as 1,2,4, in every scenario")
    p.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="[NAME=]COMMAND|URL",
        help="another server to compare: a command that takes nats-server's flags, or nats://host:port of one that runs, "
        "here or on another machine (then messages per second instead of CPU figures); repeatable",
    )
    p.add_argument("--only", action="append", default=[], metavar="NAME", help="only these contenders (repeatable)")
    p.add_argument("--no-floor", action="store_true", help="leave the relay out")
    p.add_argument(
        "--max-memory",
        type=float,
        metavar="GIB",
        help="leave out scenarios that need more (default: four fifths of what is free)",
    )
    p.add_argument("--max-time", type=float, default=300.0, metavar="S", help="give up on a run after that (300)")
    p.add_argument("--json", metavar="FILE", help="write everything measured there")
    p.add_argument("--html", metavar="FILE", help="write a report with plots there (one file, opens anywhere)")
    p.add_argument(
        "--from-json", metavar="FILE", help="measure nothing: make the report (and --html) from an earlier --json"
    )
    p.add_argument("--markdown", action="store_true", help="after the report: the figures as a table for a README")
    p.add_argument(
        "--budget",
        action="store_true",
        help="instead of measuring time: instructions per message at each stop of the walk, under callgrind",
    )
    p.add_argument(
        "--model",
        action="store_true",
        help="after the report: what 32 and 64 cores with 100 GbE would give by the figures measured (wants 'shards-*')",
    )
    p.add_argument(
        "--wire",
        action="store_true",
        help="over a cable (a veth pair into a network namespace) instead of loopback, with the DPDK backend, too; needs "
        "root, ethtool and iproute2",
    )
    p.add_argument(
        "--mtu", type=int, default=1500, metavar="BYTES", help="of the cable of --wire; above 3000 without net_af_xdp, which cannot"
    )
    p.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    # Given by scripts/bench.
    p.add_argument("--load", default="build/bench/load", help=argparse.SUPPRESS)
    p.add_argument("--relay", default="build/bench/relay", help=argparse.SUPPRESS)
    p.add_argument("--peregrine", default="build/peregrine", help=argparse.SUPPRESS)
    p.add_argument("--nats-server", default="", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one_core and a.all_cores:
        p.error("--one-core and --all-cores exclude each other")
    default_runs, default_duration, default_warmup = (3, 2.0, 0.5) if a.full else (1 if a.quick else 2, 0.5, 0.2)
    a.runs = a.runs or default_runs
    a.duration = a.duration or default_duration
    a.warmup = default_warmup if a.warmup is None else a.warmup
    return a


def list_scenarios() -> None:
    for s in SCENARIOS:
        goals = []
        for m in s.metrics:
            if m.goal:
                goals.append(f"{m.label} ≥ {m.goal[0]:g}×" + (f" (@1 {m.goal[1]:g}×)" if ONE_CORE in s.setups else ""))
            if m.at_most:
                goals.append(f"{m.label} ≤ {m.at_most:g} {m.unit}")
            if m.floor:
                goals.append(f"≤ {m.floor:g} × floor")
        print(f"{s.name:<25} {'' if s.core else '(--full) '}{s.title}{'; goals: ' + ', '.join(goals) if goals else ''}")


def affordable(scenarios: list[Scenario], limit_gib: float) -> tuple[list[Scenario], list[str]]:
    notes = [
        f"{s.name} needs about {s.needs_gib:g} GiB, more than the {limit_gib:.1f} GiB allowed: left out (--max-memory)"
        for s in scenarios
        if s.needs_gib > limit_gib
    ]
    return [s for s in scenarios if s.needs_gib <= limit_gib], notes


def heading(document: dict[str, Any]) -> str:
    m, how = document["machine"], document["setup"]
    cpu = f"{m['cpu']}{' (virtual)' if m['virtual'] else ''}, {len(m['cores'])} cores"
    if m["threads_per_core"] > 1:
        cpu += f" ({m['threads_per_core']} threads each)"
    lines = [
        ", ".join(filter(None, [cpu, m["caches"], f"{m['memory_gib']} GiB", f"Linux {m['kernel']}", m["governor"]])),
        f"{how['runs']} run{'s' if how['runs'] > 1 else ''} of {how['duration_s']:g} s each, medians; {m['time']}",
    ]
    for option, unit in (("size", "bytes of payload"), ("connections", "connections")):
        if how.get(option) is not None:
            lines.append(f"asked for: {how[option]} {unit}, where a scenario is not about that")
    for setup in (ALL_CORES, ONE_CORE):
        here = [c for c in document["contenders"] if c["setup"] == setup and not c["url"]]
        if not here:
            continue
        servers, load = here[0]["cores"], here[0]["load_cores"]
        where = f"servers on {_cores(servers)}, generator on {_cores(load)}"
        lines.append(f"{setup}{' (columns @1)' if setup == ONE_CORE else ''}: {where}")
    for c in document["contenders"]:
        says = document["says"].get(c["name"], {})
        details = [c["version"], *says.values(), *(f"{k}={v}" for k, v in c["environment"].items())]
        lines.append(f"  {c['name']}: {'; '.join(details)}")
    return "\n".join(lines)


def _cores(cores: list[int] | None) -> str:
    return "any core" if not cores else ("core " if len(cores) == 1 else "cores ") + ",".join(map(str, cores))


def main() -> int:
    a = arguments()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in "scripts/bench --list | head"
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # servers are stopped on both
    if a.list:
        list_scenarios()
        return 0
    if a.budget:
        print(budget.text(a.peregrine, a.load, [s.name for s in select(a.scenario, False)] if a.scenario else []))
        return 0
    if a.from_json:
        return report(json.loads(Path(a.from_json).read_text()), a)
    if a.wire:
        wire.mtu = a.mtu
        wire.enter(wire.python())
    scenarios, notes = affordable(
        select(a.scenario, a.full), a.max_memory if a.max_memory is not None else 0.8 * machine.memory_available_gib()
    )
    if a.wire:
        notes += [frames.floor(driver, size) for driver in wire.drivers() for size in frames.sizes()]
        scenarios = [s for s in scenarios if not s.topology and not s.cores]
    who = contenders.contenders_of(a)
    if any(c.setup == ONE_CORE and set(c.cores or []) & set(c.load_cores or []) for c in who):
        notes.append("there is only one core: server and generator share it, in the @1 columns too")
    most = max((s.cores for s in scenarios), default=0)
    if most > len(machine.cores()):
        notes.append(
            f"{most} shards on {len(machine.cores())} cores: oversubscribed, shows what it costs and not what it gives"
        )
    document: dict[str, Any] = {
        "machine": machine.facts(),
        "setup": {
            "runs": a.runs,
            "duration_s": a.duration,
            "warmup_s": a.warmup,
            "size": a.size,
            "connections": a.connections,
        },
        "contenders": [contenders.as_dict(c) for c in who],
        "says": {},
    }
    print(heading(document) + "\n", file=sys.stderr)
    idle_load = machine.others_load()
    rows = run_all(Setup(Path(a.load), a.duration, a.warmup, a.runs, a.size, a.connections, a.max_time), scenarios, who)
    document["warnings"] = notes + warnings_of(rows, idle_load)
    for row in rows:
        for name, cell in row.cells.items():
            if cell.results and not row.scenario.cores:
                document["says"].setdefault(name, cell.results[0].get("server_says", {}))
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
    return report(document, a)


def report(document: dict[str, Any], a: argparse.Namespace) -> int:
    known = {s.name: s for s in SCENARIOS}
    rows = [
        Row(known[s["name"]], {n: Cell(r, s["errors"].get(n, [])) for n, r in s["results"].items()})
        for s in document["scenarios"]
        if s["name"] in known
    ]
    who = [contenders.from_dict(c) for c in document["contenders"]]
    verdicts = judge(rows, who)
    document["goals"] = [v.as_dict() for v in verdicts]
    if a.from_json or not sys.stdout.isatty():
        print(heading(document) + "\n")
    print(Report(rows, who, verdicts).text(document["warnings"]))
    if a.markdown:
        print("\n" + Report(rows, who, verdicts).markdown())
    if a.model:
        print("\n" + model.text(rows, who))
    if a.json:
        Path(a.json).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if a.html:
        Path(a.html).write_text(html.page(document, rows, who, verdicts, heading(document)))
    failed = any(c.errors for r in rows for c in r.cells.values())
    missed = any(v.first and (v.passed is False or v.floor_passed is False) for v in verdicts)
    return 1 if failed or (a.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
