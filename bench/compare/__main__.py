"""scripts/bench: Peregrine, the newest nats-server and the floor, turn by turn on the same cores."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Callable

from . import budget, contenders, frames, html, machine, model, wire
from .goals import judge
from .measure import Cell, Plan, Row, Setup, minutes, plan_of, run_all, runs_of, total_s, warnings_of
from .metrics import ALL_CORES, ONE_CORE
from .scenarios import SCENARIOS, Scenario, select
from .servers import parse_server
from .table import Report


def core_list(text: str) -> list[int]:
    out: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        out += range(int(low), int(high or low) + 1)
    if missing := sorted(set(out) - set(machine.cores())) or not out:
        raise argparse.ArgumentTypeError(f"'{text}': no such cores here: {missing}")
    return out


def at_least(low: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not value >= low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low:g}")
        return value

    read.__name__ = "whole number" if kind is int else "number"  # as in "invalid number value"
    return read


def some_of(text: str, allowed: Callable[[str], bool], what: str) -> str:
    if not all(allowed(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}")
    return text


def backend_list(text: str) -> str:
    return some_of(text, lambda part: part in ("uring", "epoll"), "uring, epoll or both with a comma")


def shard_list(text: str) -> str:
    return some_of(text, lambda part: part.isdecimal() and int(part) > 0, "a list of numbers of shards, such as 1,2,4")


def server_text(text: str) -> str:
    try:
        server = parse_server(text)
    except (ValueError, IndexError) as e:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a command nor nats://host:port") from e
    if not server.remote and not shutil.which(server.command[0]):
        raise argparse.ArgumentTypeError(f"'{text}': no program {server.command[0]!r}")
    return text


def writable(text: str) -> str:
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory for '{text}'")
    return text


GIVEN_BY_SCRIPT = {"--load", "--relay", "--peregrine", "--nats-server"}
# What makes another program of it, and what that still listens to.
REPORTS = {"--html", "--json", "--markdown", "--model", "--strict"}
ALONE = {"--from-json": REPORTS, "--budget": {"--scenario"}}


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares Peregrine (each backend) with the newest nats-server and with the floor (a relay without a "
        "protocol), turn by turn, medians over the runs; with every server on all cores, and with every server on one "
        "(columns @1). Every message is verified. Without arguments: the core scenarios, some six minutes.",
        epilog="How a number is taken: bench/README.md",
        allow_abbrev=False,
    )
    p.add_argument(
        "--list", action="store_true", help="list the scenarios (those asked for, or all), say how long they take, and exit"
    )
    p.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="GLOB[,GLOB]",
        help="only these (repeatable; 'core': those of a run without arguments, 'all': every one)",
    )
    p.add_argument("--quick", action="store_true", help="one run of 0.5 s of each: a first impression")
    p.add_argument("--full", action="store_true", help="every scenario and column, 3 runs of 2 s: about an hour")
    p.add_argument("--duration", type=at_least(0.01, float), metavar="S", help="seconds of each measured window (0.5; --full: 2)")
    p.add_argument("--warmup", type=at_least(0, float), metavar="S", help="seconds before each window (0.2; --full: 0.5)")
    p.add_argument("--runs", type=at_least(1, int), help="runs per scenario and server; medians are reported (2; --full: 3)")
    p.add_argument("--size", type=at_least(0, int), metavar="BYTES", help="payload size, in scenarios that are not about sizes (such as subjects-4096)")
    p.add_argument(
        "--connections",
        type=at_least(1, int),
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
        "--server-cores", type=core_list, metavar="LIST", help="cores of the servers, such as 0,2-3 (default: all); then without the @1 columns"
    )
    p.add_argument("--load-cores", type=core_list, metavar="LIST", help="cores of the generator (default: all)")
    p.add_argument("--backends", type=backend_list, metavar="LIST", help="Peregrine's backends, such as uring (default: uring,epoll)")
    p.add_argument(
        "--shards",
        type=shard_list,
        metavar="LIST",
        help="compare numbers of shards, such as 1,2,4, in every scenario, on all cores (not with --one-core)",
    )
    p.add_argument(
        "--server",
        action="append",
        type=server_text,
        default=[],
        metavar="[NAME=]COMMAND|URL",
        help="another server to compare: a command that takes nats-server's flags, or nats://host:port of one that runs, "
        "here or on another machine (then messages per second instead of CPU figures); repeatable",
    )
    p.add_argument("--only", action="append", default=[], metavar="NAME", help="only these contenders (repeatable)")
    p.add_argument("--no-floor", action="store_true", help="leave the relay out")
    p.add_argument(
        "--max-memory",
        type=at_least(0, float),
        metavar="GIB",
        help="leave out scenarios that need more (default: four fifths of what is free)",
    )
    p.add_argument("--max-time", type=at_least(1, float), default=300.0, metavar="S", help="give up on a run after that (300)")
    p.add_argument(
        "--json", type=writable, metavar="FILE", help="write everything measured there, after each scenario what there is"
    )
    p.add_argument("--html", type=writable, metavar="FILE", help="write a report with plots there (one file, opens anywhere)")
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
        "--mtu", type=at_least(576, int), default=1500, metavar="BYTES", help="of the cable of --wire; above 3000 without net_af_xdp, which cannot"
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
    given = {"--" + k.replace("_", "-") for k, v in vars(a).items() if v != p.get_default(k)} - GIVEN_BY_SCRIPT
    for ruling, only in ALONE.items():
        if ruling in given and not a.list and (idle := given - only - {ruling}):
            p.error(f"{ruling} takes no {', '.join(sorted(idle))}")
    if a.wire and (idle := given & {"--server", "--shards", "--backends"}):
        p.error(f"--wire has contenders of its own: no {', '.join(sorted(idle))}")
    if a.mtu != 1500 and not a.wire:
        p.error("--mtu is of the cable of --wire")
    if a.shards and a.one_core:
        p.error("--shards is about all cores; --one-core is one shard")
    # --quick of --full: every scenario and column, once and short.
    default_runs = 1 if a.quick else 3 if a.full else 2
    default_duration, default_warmup = (2.0, 0.5) if a.full and not a.quick else (0.5, 0.2)
    a.runs = a.runs or default_runs
    a.duration = a.duration or default_duration
    a.warmup = default_warmup if a.warmup is None else a.warmup
    return a


def list_scenarios(a: argparse.Namespace) -> None:
    """All of them, or those that were asked for; and how long these would take."""
    asked = bool(a.scenario or a.full or a.quick)
    chosen = select(a.scenario, a.full)
    for s in chosen if asked else SCENARIOS:
        goals = []
        for m in s.metrics:
            if m.goal:
                goals.append(f"{m.label} ≥ {m.goal[0]:g}×" + (f" (@1 {m.goal[1]:g}×)" if ONE_CORE in s.setups else ""))
            if m.at_most:
                goals.append(f"{m.label} ≤ {m.at_most:g} {m.unit}")
            if m.floor:
                goals.append(f"≤ {m.floor:g} × floor")
        print(f"{s.name:<25} {'' if s.core else '(--full) '}{s.title}{'; goals: ' + ', '.join(goals) if goals else ''}")
    # Who would take part, without starting anybody.
    a.nats_server, a.peregrine, a.relay = a.nats_server or sys.executable, sys.executable, sys.executable
    who = contenders.contenders_of(a, a.backends.split(",") if a.backends else ["uring", "epoll"])
    setup = setup_of(a)
    plan = plan_of([s for s in chosen if not (a.wire and (s.topology or s.cores))], who)
    print(f"\n{'these' if asked else 'without arguments'}: {runs_of(plan, a.runs)}, about {minutes(total_s(setup, plan))}")


def setup_of(a: argparse.Namespace) -> Setup:
    return Setup(Path(a.load), a.duration, a.warmup, a.runs, a.size, a.connections, a.max_time)


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
    if how.get("mtu"):
        lines.append(f"over a cable (a veth pair), MTU {how['mtu']}, offloads off")
    for option, unit in (("size", "bytes of payload"), ("connections", "connections")):
        if how.get(option) is not None:
            lines.append(f"asked for: {how[option]} {unit}, where a scenario is not about that")
    for setup in (ALL_CORES, ONE_CORE):
        here = [c for c in document["contenders"] if c["setup"] == setup and not c["url"]]
        if not here:
            continue
        servers, load = here[0]["cores"], here[0]["load_cores"]
        where = f"servers on {machine.cores_text(servers)}, generator on {machine.cores_text(load)}"
        lines.append(f"{setup}{' (columns @1)' if setup == ONE_CORE else ''}: {where}")
    for c in document["contenders"]:
        says = document["says"].get(c["name"], {})
        details = [c["version"], *(f"{k} {v}" if k == "backend" else _shards(v) for k, v in says.items())]
        details += [" ".join(c["flags"])] if c.get("rows") and c["flags"] else []
        details += [f"{k}={v}" for k, v in c["environment"].items()]
        lines.append(f"  {c['name']}: {'; '.join(details)}")
    return "\n".join(lines)


def _shards(text: str) -> str:
    """"2 on cores 0,1", as the server says."""
    n, _, where = text.partition(" ")
    return f"{n} shard{'' if n == '1' else 's'} {where}".strip()


def main() -> int:
    a = arguments()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in "scripts/bench --list | head"
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # servers are stopped on both
    if a.list:
        list_scenarios(a)
        return 0
    if a.budget:
        if elsewhere := [s.name for s in select(a.scenario, False) if a.scenario and (s.topology or s.cores)]:
            raise SystemExit(f"--budget counts one server with one shard, not {', '.join(elsewhere)}")
        print(budget.text(a.peregrine, a.load, [s.name for s in select(a.scenario, False)] if a.scenario else []))
        return 0
    if a.from_json:
        try:
            return report(json.loads(Path(a.from_json).read_text()), a)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise SystemExit(f"{a.from_json}: not a report of --json ({type(e).__name__}: {e})") from e
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
    setup, plan = setup_of(a), plan_of(scenarios, who)
    if why := unheard(a, plan):
        raise SystemExit(why)
    who = [c for c in who if any(c in each for _, each in plan)]
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
            "mtu": a.mtu if a.wire else None,
        },
        "contenders": [contenders.as_dict(c) for c in who],
        "says": {},
    }
    idle_load = machine.others_load()
    print(heading(document) + "\n", file=sys.stderr)
    print(f"{runs_of(plan, a.runs)}, about {minutes(total_s(setup, plan))}\n", file=sys.stderr)

    def keep(rows: list[Row]) -> None:
        """After each scenario: what ends us before the end ends no more than that."""
        fill(document, rows, notes + warnings_of(rows, idle_load))
        if a.json:
            write_json(document, a.json)

    rows, stopped = run_all(setup, scenarios, who, keep)
    if stopped:
        notes.append(f"stopped before the end: {len(rows)} of {len(plan)} scenarios begun")
    fill(document, rows, notes + warnings_of(rows, idle_load))
    code = report(document, a)
    return 130 if stopped else code


def unheard(a: argparse.Namespace, plan: Plan) -> str:
    """Why there is nothing to measure, or what was asked for that changes nothing."""
    if not plan:
        return "nothing to measure: none of these scenarios has such a column (scripts/bench --list)"
    for option, value, size, connections in (
        ("--size", a.size, a.size, None),
        ("--connections", a.connections, None, a.connections),
    ):
        if value is not None and all(s.load_args(size, connections, False) == list(s.args) for s, _ in plan):
            return f"{option} {value} changes none of these scenarios (bench/README.md: How to run it)"
    return ""


def write_json(document: dict[str, Any], path: str) -> None:
    Path(path).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def fill(document: dict[str, Any], rows: list[Row], warnings: list[str]) -> None:
    document["warnings"] = warnings
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
        write_json(document, a.json)
    if a.html:
        Path(a.html).write_text(html.page(document, rows, who, verdicts, heading(document)))
    failed = any(c.errors for r in rows for c in r.cells.values())
    missed = any(v.first and (v.passed is False or v.floor_passed is False) for v in verdicts)
    return 1 if failed or (a.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
