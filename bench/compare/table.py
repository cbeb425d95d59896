"""The report on the terminal."""

from __future__ import annotations

import textwrap
from typing import Optional

from .goals import Line, Verdict, summary
from .measure import RATE, Row, per_second
from .metrics import ALL_CORES, ONE_CORE, PERCENTILES, Metric
from .servers import Contender


def number(value: Optional[float], unit: str = "") -> str:
    if value is None:
        return "–"
    if unit == "B":
        for name, size in (("MiB", 2**20), ("KiB", 2**10)):
            if abs(value) >= 10 * size or (name == "KiB" and abs(value) >= size):
                return f"{value / size:.1f} {name}"
        return f"{value:.0f} B"
    if unit == "%":
        return f"{value:.2f} %"
    unit = unit.replace("us", "µs")
    text = f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.1f}"
    return f"{text} {unit}".strip()


def rate(ns: Optional[float]) -> str:
    """Messages per CPU second, from CPU ns per message."""
    return per_second(1e9 / ns) if ns else "–"


class Table:
    def __init__(self, header: list[str]) -> None:
        self._rows = [header]

    def add(self, cells: list[str]) -> None:
        self._rows.append(cells)

    @property
    def empty(self) -> bool:
        return len(self._rows) == 1

    def text(self) -> str:
        widths = [max(len(r[i]) for r in self._rows) for i in range(len(self._rows[0]))]
        lines = []
        for n, row in enumerate(self._rows):
            lines.append(
                "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
            )
            if n == 0:
                lines.append("  ".join("-" * w for w in widths))
        return "\n".join(lines)


def _mark(passed: Optional[bool]) -> str:
    return {True: "met", False: "MISSED", None: ""}[passed]


def _median(row: Row, name: str, metric: Metric) -> Optional[float]:
    return row.cells[name].median(metric) if name in row.cells else None


class Report:
    def __init__(self, rows: list[Row], contenders: list[Contender], verdicts: list[Verdict]) -> None:
        self._rows = rows
        self._contenders = contenders
        self._verdicts = {(v.scenario, v.metric, v.contender): v for v in verdicts}
        self._all_verdicts = verdicts

    def _columns(self, setup: str) -> tuple[list[str], str]:
        """Names of a set-up, and the one of ours that ratios are about. Without any of ours: no ratios."""
        own = [c for c in self._contenders if c.setup == setup and not c.rows]
        if not own:
            return [], ""
        names = [c.name for c in self._contenders if c.setup in ("", setup) and not c.remote and not c.rows]
        return names, next((c.name for c in own if c.ours), "")

    def _cpu(self, setup: str) -> str:
        names, ours = self._columns(setup)
        table = Table([f"{setup}: messages per server CPU second", *names, "ratio", "goal", "", "× floor", "goal", ""])
        ns = Table([f"{setup}: server CPU ns per message", *names])
        for row in self._rows:
            if setup not in row.scenario.setups:
                continue
            for metric in (m for m in row.scenario.metrics if m.key in ("cpu", "subscribe", "dial")):
                v = self._verdicts.get((row.scenario.name, metric.label, ours))
                title = row.scenario.title + {"CPU per message": "", "CPU per round trip": " (round trips)"}.get(
                    metric.label, f": {metric.label.split(',')[0]}"
                )
                values = [cell.median(metric) if (cell := row.cell(n, setup)) else None for n in names]
                table.add(
                    [
                        title,
                        *map(rate, values),
                        f"{v.ratio:.2f}×" if v and v.ratio else "–",
                        v.goal if v else "",
                        _mark(v.passed) if v else "",
                        f"{v.over_floor:.2f}" if v and v.over_floor else "",
                        v.floor_goal.replace(" × floor", "") if v else "",
                        _mark(v.floor_passed) if v else "",
                    ]
                )
                ns.add([title, *map(number, values)])
        return "" if table.empty or not names else table.text() + "\n\n" + ns.text()

    def _latency(self) -> str:
        table = Table(
            ["latency, µs", "server", "p50", "p90", "p99", "p99.9", "max", "p50 ratio", "p99 ratio", "goal", ""]
        )
        for row in self._rows:
            metric = next((m for m in row.scenario.metrics if m.key == "p50"), None)
            if not metric:
                continue
            for c in self._contenders:
                if c.name not in row.cells or not row.cells[c.name].values(metric):
                    continue
                found = [self._verdicts.get((row.scenario.name, f"latency {p}", c.name)) for p in ("p50", "p99")]
                ratios = [f"{v.ratio:.2f}×" if v and v.ratio else "" for v in found]
                judged = [v.passed for v in found if v and v.passed is not None]
                table.add(
                    [
                        row.scenario.title,
                        c.name,
                        *(number(row.cells[c.name].median(p)) for p in PERCENTILES),
                        *ratios,
                        found[0].goal if found[0] else "",
                        _mark(all(judged)) if judged else "",
                    ]
                )
        note = "p99.9 and above on a virtual or busy machine are mostly the machine's: judge p50 and p99."
        return "" if table.empty else table.text() + "\n" + note

    def _other(self) -> str:
        names, ours = self._columns(ALL_CORES)
        if not names:
            names, ours = self._columns(ONE_CORE)
        table = Table(["memory, time, idling", *names, "ratio", "goal", ""])
        for row in self._rows:
            for metric in (m for m in row.scenario.metrics if m.key in ("memory", "idle", "propagate")):
                v = self._verdicts.get((row.scenario.name, metric.label, ours))
                table.add(
                    [
                        f"{row.scenario.title}: {metric.label}",
                        *(number(_median(row, n, metric), metric.unit) for n in names),
                        f"{v.ratio:.2f}×" if v and v.ratio else "–",
                        v.goal if v else "",
                        _mark(v.passed) if v else "",
                    ]
                )
        return "" if table.empty else table.text()

    def _wall(self) -> str:
        """By the clock: all there is about a server on another machine, and how shards scale."""
        remote = any(c.remote for c in self._contenders)
        rows = [r for r in self._rows if remote or r.scenario.plot[0].endswith("by shards")]
        names = [c.name for c in self._contenders if not c.rows and any(c.name in r.cells for r in rows)]
        table = Table(["messages per second (by the clock)", *names])
        for row in rows:
            values = [_median(row, n, RATE) for n in names]
            if any(values):
                table.add([row.scenario.title, *map(per_second, values)])
        return "" if table.empty else table.text()

    def _goals(self) -> str:
        lines = summary(self._all_verdicts)
        out = []
        for setup, contender in dict.fromkeys((line.setup, line.contender) for line in lines):
            mine = [line for line in lines if (line.setup, line.contender) == (setup, contender)]
            met, total = sum(x.met for x in mine), sum(x.total for x in mine)
            out.append(f"goals, {setup}, {contender}: {met} of {total} met")
            if any(v.first and v.contender == contender for v in self._all_verdicts):
                out += [part for line in mine for part in _goal_lines(line)]
        return "\n".join(out)

    def markdown(self) -> str:
        """The figures for a README: server CPU per message, and how many times better, in both set-ups."""
        all_names, ours = self._columns(ALL_CORES)
        one_names, alone = self._columns(ONE_CORE)
        names = [*all_names, *(n for n in one_names if n not in all_names)]
        head = ["server CPU ns per message", *names, "all cores", "one core", "× floor"]
        lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
        for row in self._rows:
            for metric in (m for m in row.scenario.metrics if m.key == "cpu"):
                both = [self._verdicts.get((row.scenario.name, metric.label, n)) for n in (ours, alone)]
                cells = [row.scenario.title, *(number(_median(row, n, metric)) for n in names)]
                cells += [f"{v.ratio:.1f}×" if v and v.ratio else "" for v in both]
                cells.append(f"{both[0].over_floor:.1f}" if both[0] and both[0].over_floor else "")
                lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def text(self, warnings: list[str]) -> str:
        blocks = [self._cpu(ALL_CORES), self._cpu(ONE_CORE), self._latency(), self._other(), self._wall()]
        blocks.append(self._goals())
        failures = [f"  {r.scenario.name}, {n}: {e}" for r in self._rows for n, c in r.cells.items() for e in c.errors]
        if failures:
            blocks.append("failed runs:\n" + "\n".join(failures))
        if warnings:
            blocks.append("before believing a figure:\n" + "\n".join("  " + w for w in warnings))
        return "\n\n".join(b for b in blocks if b)


def _goal_lines(line: Line) -> list[str]:
    missed = textwrap.wrap("missed: " + ", ".join(line.missed), 110) if line.missed else []
    return [f"  {line.group}: {line.met} of {line.total} met", *(f"      {part}" for part in missed)]
