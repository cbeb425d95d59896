"""Turn by turn: A B C, A B C, … for each scenario, a fresh server each time, medians over the runs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from . import machine
from .scenarios import Metric, Scenario
from .servers import Contender, Server, StartFailure


@dataclass
class Setup:
    load: Path
    duration_s: float
    warmup_s: float
    runs: int
    size: Optional[int]
    server_cores: Optional[list[int]]
    load_cores: Optional[list[int]]
    spin: bool


@dataclass
class Cell:
    """All runs of one contender in one scenario."""

    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def values(self, metric: Metric) -> list[float]:
        return [v for v in (metric.value(r) for r in self.results) if v is not None]

    def median(self, metric: Metric) -> Optional[float]:
        values = self.values(metric)
        return statistics.median(values) if values else None

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


class Progress:
    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._begin = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def before(self, scenario: Scenario, contender: Contender, run: int, runs: int) -> None:
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._begin) / self._done * (self._total - self._done)
            left = f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        text = f"[{self._done + 1}/{self._total}{left}] {scenario.title}: {contender.name}, run {run + 1} of {runs}"
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def after(self) -> None:
        self._done += 1

    def note(self, text: str) -> None:
        print(("\r\033[K" if self._terminal else "") + text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _summary(metric: Metric, value: Optional[float]) -> str:
    if value is None:
        return "-"
    if metric.key == "cpu":
        return f"{1e3 / value:.2f} M/cpu·s" if value < 1000 else f"{1e6 / value:.1f} k/cpu·s"
    return f"{value:.3g} {metric.unit}"


def run_once(setup: Setup, scenario: Scenario, contender: Contender) -> dict[str, Any]:
    pace = machine.pace_ns()
    watch = machine.Watch()
    with Server(contender, setup.server_cores, scenario.config) as server:
        command = [
            str(setup.load),
            "--server",
            server.url,
            "--warmup",
            str(setup.warmup_s),
            "--duration",
            str(setup.duration_s * scenario.duration),
        ]
        if server.pid:
            command += ["--server-pid", str(server.pid)]
        if setup.load_cores:
            command += ["--cores", ",".join(map(str, setup.load_cores))]
        command += scenario.load_args(setup.size, setup.spin)
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        result = {"ok": False, "error": (done.stderr.strip() or f"load ended with {done.returncode}")[-300:]}
    if server.crash:
        result = {
            "ok": False,
            "error": "; ".join(filter(None, [str(result.get("error", "")), f"the server {server.crash}"])),
        }
    result["pace_ns"] = pace
    result["machine"] = watch.busy_ticks()
    return result


def run_all(setup: Setup, scenarios: list[Scenario], contenders: list[Contender]) -> list[Row]:
    rows = []
    plan = [(s, [c for c in contenders if s.relay or not c.relay]) for s in scenarios]
    progress = Progress(sum(len(cs) for _, cs in plan) * setup.runs)
    try:
        for scenario, who in plan:
            row = Row(scenario, {c.name: Cell() for c in who})
            rows.append(row)
            for run in range(setup.runs):
                for contender in who:
                    progress.before(scenario, contender, run, setup.runs)
                    cell = row.cells[contender.name]
                    try:
                        result = run_once(setup, scenario, contender)
                    except (StartFailure, subprocess.TimeoutExpired) as e:
                        result = {"ok": False, "error": str(e)}
                    if result.get("ok"):
                        cell.results.append(result)
                    else:
                        cell.errors.append(str(result.get("error", "no result")))
                        progress.note(f"  {scenario.name}, {contender.name}: FAILED: {cell.errors[-1]}")
                    progress.after()
            first = scenario.metrics[0]
            parts = [f"{c.name} {_summary(first, row.cells[c.name].median(first))}" for c in who]
            progress.note(f"  {scenario.title:<44} " + "   ".join(parts))
    except KeyboardInterrupt:
        progress.note("stopped; what was measured so far follows")
    finally:
        progress.close()
    return rows


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
    for row in rows:
        for name, cell in row.cells.items():
            metric = row.scenario.metrics[0]
            if metric.key == "cpu" and cell.spread(metric) > 0.35:
                out.append(f"{row.scenario.name}, {name}: runs differ by {cell.spread(metric):.0%} of their median")
            result = cell.middle_result(metric)
            if not result or result.get("kind") != "stream":
                continue
            window = result["window"]
            if window["generator_cpu_share"] > 0.95 and window.get("server_cpu_share", 1.0) < 0.8:
                out.append(
                    f"{row.scenario.name}, {name}: the generator was the bottleneck "
                    f"(generator {window['generator_cpu_share']:.0%}, server {window['server_cpu_share']:.0%} of a core)"
                )
    return out
