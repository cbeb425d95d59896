"""Turn by turn: A B C, A B C, … for each scenario, a fresh server each time, medians over the runs."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from . import machine
from .metrics import ALL_CORES, ONE_CORE, Metric
from .scenarios import Scenario
from .servers import Contender, StartFailure
from .topology import Deployment


OVERHEAD_S = 0.4  # starting a server, connecting, draining, stopping

# A run from which the hypervisor took more than this share of the CPU time that was wanted says nothing about anybody: each
# wake-up waits for a core that is not there. It is taken again so often, and all such runs take so much of the planned time,
# or so many seconds where little is planned.
STOLEN, RETAKES, RETAKES_SHARE, RETAKES_S = 0.1, 2, 0.2, 30.0


@dataclass
class Setup:
    load: Path
    duration_s: float
    warmup_s: float
    runs: int
    size: Optional[int]
    connections: Optional[int]
    timeout_s: float


@dataclass
class Cell:
    """All runs of one contender in one scenario."""

    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    late: bool = False  # a run took longer than --max-time

    def values(self, metric: Metric) -> list[float]:
        return [v for v in (metric.value(r) for r in self.results) if v is not None]

    def median(self, metric: Metric) -> Optional[float]:
        values = self.values(metric)
        return statistics.median_low(values) if values else None  # a value that was measured, as middle_result()

    def spread(self, metric: Metric) -> float:
        values = self.values(metric)
        middle = statistics.median(values) if values else 0
        return (max(values) - min(values)) / middle if middle else 0.0

    def middle_result(self, metric: Metric) -> Optional[dict[str, Any]]:
        """The run whose value is the median: its details (percentiles, shares) belong together."""
        have = sorted((r for r in self.results if metric.value(r) is not None), key=lambda r: metric.value(r) or 0)
        return have[(len(have) - 1) // 2] if have else None


@dataclass
class Row:
    scenario: Scenario
    cells: dict[str, Cell] = field(default_factory=dict)

    def cell(self, name: str, setup: str) -> Optional[Cell]:
        """What stands in the column of that name: in the one-core columns the floor's own figure, where it has one there."""
        alone = self.cells.get(f"{name} @1") if setup == ONE_CORE else None
        return alone or self.cells.get(name)


Plan = list[tuple[Scenario, list[Contender]]]


def plan_of(scenarios: list[Scenario], contenders: list[Contender]) -> Plan:
    plan = [(s, [c for c in contenders if takes_part(c, s)]) for s in scenarios]
    return [(s, who) for s, who in plan if who]


def expected_s(setup: Setup, scenario: Scenario) -> float:
    """Of one run: its window and what is around it, as it was on two cores of 2026."""
    return OVERHEAD_S + scenario.setup_s + setup.warmup_s + setup.duration_s * scenario.duration


def runs_of(plan: Plan, runs: int) -> str:
    n = sum(len(who) for _, who in plan) * runs
    return f"{n} run{'s' if n != 1 else ''}"


def total_s(setup: Setup, plan: Plan) -> float:
    return sum(expected_s(setup, s) * len(who) * setup.runs for s, who in plan)


def minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """What is left is what was expected of it, times how much longer (or shorter) the runs so far took than expected; and
    for a run that was taken before, what it took then."""

    def __init__(self, setup: Setup, plan: Plan) -> None:
        self._expected = {
            (s.name, c.name, run): expected_s(setup, s) for s, who in plan for run in range(setup.runs) for c in who
        }
        self._total = len(self._expected)
        self._took: dict[tuple[str, str], float] = {}
        self._promised, self._spent = 0.0, 0.0  # of the runs so far
        self._terminal = sys.stderr.isatty()
        self._began = 0.0

    def left_s(self) -> float:
        pace = self._spent / self._promised if self._promised else 1.0
        return sum(self._took.get(key[:2], each * pace) for key, each in self._expected.items())

    def before(self, scenario: Scenario, contender: Contender, run: int, runs: int) -> None:
        done = self._total - len(self._expected)
        left = f", {minutes(self.left_s())} left"
        self._began = time.monotonic()
        self._now = (scenario.name, contender.name, run)
        text = f"[{done + 1}/{self._total}{left}] {scenario.title}: {contender.name}, run {run + 1} of {runs}"
        text = text[: shutil.get_terminal_size().columns - 1] if self._terminal else text
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def after(self) -> None:
        self.took(time.monotonic() - self._began)

    def took(self, seconds: float) -> None:
        self._promised += self._expected.pop(self._now)
        self._spent += seconds
        self._took[self._now[:2]] = seconds

    def note(self, text: str) -> None:
        print(("\r\033[K" if self._terminal else "") + text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def per_second(value: Optional[float]) -> str:
    if not value:
        return "–"
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.1f} k" if value >= 1e3 else f"{value:.0f}"


def _summary(metric: Metric, value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} {metric.unit}" if value >= 100 else f"{value:.3g} {metric.unit}"


RATE = Metric("rate", "messages per second", ("window", "messages_per_second"), "")


def _line(row: Row, who: list[Contender]) -> str:
    """One line when a scenario is done, so that a person sees at once where it goes."""
    metric = row.scenario.metrics[0]
    parts = []
    for setup in (ALL_CORES, ONE_CORE):
        here = [c for c in who if c.setup in ("", setup)]
        ours = next((c for c in here if c.ours), None)
        if not ours or ours.setup != setup:
            continue
        value = row.cells[ours.name].median(metric)
        text = f"{setup}: {_summary(metric, value)}"
        alike = any(c.relay and c.setup == setup for c in here)
        for other in (c for c in here if not c.ours and not c.remote and not (alike and c.relay and not c.setup)):
            base = row.cells[other.name].median(metric)
            if value and base:
                text += f", {base / value:.1f}× {other.name}" if not other.relay else f", {value / base:.1f} floors"
        parts.append(text)
    for c in who:
        if c.remote and (rate := row.cells[c.name].median(RATE)):
            parts.append(f"{c.name} {per_second(rate)}/s")
    return f"  {row.scenario.title:<38} " + "   ".join(parts)


def run_once(setup: Setup, scenario: Scenario, contender: Contender) -> dict[str, Any]:
    pace = machine.pace_ns()
    watch = machine.Watch()
    separate = bool(contender.cores and contender.load_cores and not set(contender.cores) & set(contender.load_cores))
    with Deployment(contender, scenario) as server:
        command = [
            str(setup.load),
            "--server",
            server.url,
            "--warmup",
            str(setup.warmup_s),
            "--duration",
            str(setup.duration_s * scenario.duration),
        ]
        if server.receivers_url:
            command += ["--receivers", server.receivers_url]
        for pid in server.pids:
            command += ["--server-pid", str(pid)]
        if contender.load_cores:
            command += ["--cores", ",".join(map(str, contender.load_cores))]
        command += scenario.load_args(setup.size, setup.connections, separate)
        done = subprocess.run(command, capture_output=True, text=True, timeout=setup.timeout_s)
        longest = server.longest_turn_ms() if scenario.topology else None
    try:
        result = json.loads(done.stdout)
    except ValueError:
        result = {"ok": False, "error": (done.stderr.strip() or f"load ended with {done.returncode}")[-300:]}
    if server.crash:
        result = {
            "ok": False,
            "error": "; ".join(filter(None, [str(result.get("error", "")), f"the server {server.crash}"])),
        }
    if longest is not None:
        result["turns"] = {"longest_ms": longest}
    result["server_says"] = server.facts
    result["pace_ns"] = pace
    result["machine"] = watch.busy_ticks()
    return result


def stolen_share(result: dict[str, Any]) -> float:
    """What the hypervisor took in the measured window, of all that it was asked for."""
    window = result.get("window", {})
    stolen = window.get("steal_share", 0.0)  # as the others, in cores
    if stolen < 0.1:  # a few ticks; beside a server that only holds memory they would be much
        return 0.0
    ran = sum(window.get(f"{who}_cpu_share", 0.0) for who in ("server", "generator", "others"))
    return stolen / (stolen + ran)


def takes_part(contender: Contender, scenario: Scenario) -> bool:
    if contender.remote and (scenario.topology or scenario.cores or scenario.config):
        return False  # that takes another server than the one that runs there
    if contender.rows and scenario.name not in contender.rows:
        return False
    return (scenario.relay or not contender.relay) and contender.setup in ("", *scenario.setups)


def run_safely(setup: Setup, scenario: Scenario, contender: Contender) -> dict[str, Any]:
    """Whatever goes wrong in one run is its result: the others go on."""
    try:
        return run_once(setup, scenario, contender)
    except subprocess.TimeoutExpired:
        return {"ok": False, "late": True, "error": f"gave up after {setup.timeout_s:g} s (--max-time)"}
    except StartFailure as e:
        return {"ok": False, "error": str(e)}
    except Exception as e:  # of a server that ended, a file that is gone, an answer that cannot be read
        return {"ok": False, "error": f"{type(e).__name__}: {e}"}


class Retakes:
    """Runs that were stolen are taken again, whoever's they are and whatever they say; the least stolen one stays."""

    def __init__(self, budget_s: float) -> None:
        self._left_s = budget_s

    def run(self, take: Callable[[], dict[str, Any]], note: Callable[[str], None]) -> dict[str, Any]:
        began = time.monotonic()
        best = take()
        took = time.monotonic() - began
        before: list[float] = []  # of those that did not stay
        while best.get("ok") and (share := stolen_share(best)) > STOLEN and len(before) < RETAKES and took <= self._left_s:
            note(f"{share:.0%} of the CPU time was stolen: taken again")
            self._left_s -= took
            again = take()
            if not again.get("ok"):
                return again
            before.append(max(share, stolen_share(again)))
            best = min(best, again, key=stolen_share)
        return best | {"stolen_before": before} if before else best


def run_all(
    setup: Setup, scenarios: list[Scenario], contenders: list[Contender], after_row: Callable[[list[Row]], None]
) -> tuple[list[Row], bool]:
    """What was measured, and whether it was stopped before the end. after_row sees what there is after each scenario."""
    rows: list[Row] = []
    plan = plan_of(scenarios, contenders)
    progress = Progress(setup, plan)
    retakes = Retakes(max(RETAKES_S, RETAKES_SHARE * total_s(setup, plan)))
    stopped = False
    try:
        for scenario, who in plan:
            row = Row(scenario, {c.name: Cell() for c in who})
            rows.append(row)
            for run in range(setup.runs):
                for contender in who:
                    progress.before(scenario, contender, run, setup.runs)
                    cell = row.cells[contender.name]
                    if cell.late:  # once is enough
                        progress.took(0.0)
                        continue
                    result = retakes.run(
                        lambda: run_safely(setup, scenario, contender),
                        lambda text: progress.note(f"  {scenario.name}, {contender.name}: {text}"),
                    )
                    cell.late = result.get("late", False)
                    if result.get("ok"):
                        cell.results.append(result)
                    else:
                        cell.errors.append(str(result.get("error", "no result")))
                        progress.note(f"  {scenario.name}, {contender.name}: FAILED: {cell.errors[-1]}")
                    progress.after()
            progress.note(_line(row, who))
            after_row(rows)
    except KeyboardInterrupt:
        stopped = True
        progress.note("stopped; what was measured so far follows")
    finally:
        progress.close()
    return rows, stopped


def warnings_of(rows: list[Row], idle_load: float) -> list[str]:
    """What a reader must know before believing a figure."""
    out = []
    if idle_load > 0.05:
        out.append(f"the machine was {idle_load:.0%} busy with other work before the first run")
    paces = [r["pace_ns"] for row in rows for c in row.cells.values() for r in c.results if "pace_ns" in r]
    if paces and max(paces) > 1.5 * min(paces):
        out.append(
            f"the same piece of work took between {min(paces) / 1e6:.1f} and {max(paces) / 1e6:.1f} ms of CPU time: "
            "neighbours on this hardware; believe ratios, not absolute figures"
        )
    others = [r["window"].get("others_cpu_share", 0.0) for row in rows for c in row.cells.values() for r in c.results]
    if others and statistics.mean(others) > 0.1:
        out.append(
            f"other processes used {statistics.mean(others):.1f} cores on average while we measured: latencies are theirs"
        )
    steals = [
        r["machine"]["steal_share"] for row in rows for c in row.cells.values() for r in c.results if "machine" in r
    ]
    if steals and statistics.mean(steals) > 0.02:
        out.append(f"{statistics.mean(steals):.1%} of the CPU time was stolen by the hypervisor")
    robbed: list[str] = []
    restless: list[str] = []
    slow: list[str] = []
    late: list[str] = []
    for row in rows:
        for name, cell in row.cells.items():
            metric = row.scenario.metrics[0]
            if metric.key == "cpu" and cell.spread(metric) > 0.35:
                restless.append(f"{row.scenario.name} ({name} {cell.spread(metric):.0%})")
            result = cell.middle_result(metric)
            if result and (share := stolen_share(result)) > STOLEN:
                robbed.append(f"{row.scenario.name} ({name} {share:.0%})")
            if result and "lateness" in result:
                share = result["lateness"]["p50"] / max(result["latency"]["p50"], 0.001)
                late += [f"{row.scenario.name} ({name} {share:.0%})"] if share > 0.25 else []
            if not result or result.get("kind") != "stream":
                continue
            window = result["window"]
            if window["generator_cpu_share"] < 0.95:
                continue
            if "server_cpu_share" not in window:
                slow.append(f"{row.scenario.name} ({name}, which may be able to do more)")
            elif window["server_cpu_share"] < 0.8:
                slow.append(f"{row.scenario.name} ({name} {window['server_cpu_share']:.0%})")
    if robbed:
        out.append(
            "the hypervisor took cores away while these were measured (how much of the CPU time wanted), and they say nothing "
            "about the contender: " + ", ".join(robbed)
        )
    if slow:
        out.append(
            "the generator was the bottleneck (messages per second say nothing about the server there, CPU per message "
            "is pessimistic for it: smaller batches): " + ", ".join(slow)
        )
    if late:
        out.append(
            "the generator, which sleeps between sends where it shares cores, left late by more than a quarter of the p50 "
            "that is measured from its timetable, for every contender: " + ", ".join(late)
        )
    if restless:
        out.append("runs differ by more than a third of their median: " + ", ".join(restless))
    return out
