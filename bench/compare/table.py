"""The report on the terminal, and the verdict on every goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .measure import Row
from .scenarios import Metric

REFERENCE = "nats-server"
FLOOR = "floor"


@dataclass
class Verdict:
    """One metric of one contender against the reference and its goals. A ratio says how many times better."""

    scenario: str
    title: str
    metric: str
    unit: str
    contender: str
    value: Optional[float]
    reference: Optional[float]
    floor: Optional[float]
    ratio: Optional[float]
    over_floor: Optional[float]
    goal: str
    passed: Optional[bool]  # None: no goal set, or nothing measured
    aim: str
    aim_reached: Optional[bool]

    def as_dict(self) -> dict[str, Any]:
        return self.__dict__.copy()


def _goal(metric: Metric, ratio: Optional[float], value: Optional[float]) -> tuple[str, Optional[bool]]:
    if metric.at_most is not None:
        return f"≤ {metric.at_most:g} {metric.unit}", None if value is None else value <= metric.at_most
    if metric.goal is not None:
        return f"≥ {metric.goal:g}×", None if ratio is None else ratio >= metric.goal
    return "", None


def _aim(metric: Metric, one_core: bool, ratio: Optional[float], value: Optional[float]) -> tuple[str, Optional[bool]]:
    if metric.aim_at_most is not None:
        return f"≤ {metric.aim_at_most:g} {metric.unit}", None if value is None else value <= metric.aim_at_most
    if metric.aim is not None:
        bound = metric.aim[1 if one_core else 0]
        return f"≥ {bound:g}×", None if ratio is None else ratio >= bound
    return "", None


def judge(rows: list[Row], judged: list[str], one_core: bool) -> list[Verdict]:
    out = []
    for row in rows:
        for metric in row.scenario.metrics:
            reference = row.cells[REFERENCE].median(metric) if REFERENCE in row.cells else None
            floor = row.cells[FLOOR].median(metric) if FLOOR in row.cells else None
            for name in judged or [""]:
                value = row.cells[name].median(metric) if name in row.cells else None
                ratio = reference / value if reference and value else None
                goal, passed = _goal(metric, ratio, value)
                aim, reached = _aim(metric, one_core, ratio, value)
                over = value / floor if value and floor else None
                out.append(
                    Verdict(
                        row.scenario.name,
                        row.scenario.title,
                        metric.label,
                        metric.unit,
                        name,
                        value,
                        reference,
                        floor,
                        ratio,
                        over,
                        goal,
                        passed,
                        aim,
                        reached,
                    )
                )
    return out


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
    text = f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.1f}"
    return f"{text} {unit}".strip()


def rate(ns: Optional[float]) -> str:
    """Messages per CPU second, from CPU ns per message."""
    if not ns:
        return "–"
    per_second = 1e9 / ns
    return f"{per_second / 1e6:.2f} M" if per_second >= 1e6 else f"{per_second / 1e3:.1f} k"


class Table:
    def __init__(self, header: list[str]) -> None:
        self._rows = [header]

    def add(self, cells: list[str]) -> None:
        self._rows.append(cells)

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
    return {True: "pass", False: "MISS", None: ""}[passed]


def _cpu_tables(rows: list[Row], names: list[str], verdicts: list[Verdict], judged: list[str]) -> list[str]:
    """Messages per CPU second and CPU ns per message, side by side."""
    first = judged[0] if judged else ""
    table = Table(
        ["messages per server CPU second", *names, f"{first} ratio" if first else "ratio", "goal", "", "aim", "× floor"]
    )
    detail = Table(["CPU ns per message (in + out)", *names, "server cores", "generator cores"])
    by_key = {(v.scenario, v.metric, v.contender): v for v in verdicts}
    any_row = False
    for row in rows:
        for metric in (m for m in row.scenario.metrics if m.key in ("cpu", "subscribe")):
            any_row = True
            values = {n: row.cells[n].median(metric) if n in row.cells else None for n in names}
            v = by_key.get((row.scenario.name, metric.label, first))
            title = row.scenario.title + {"CPU per message": "", "CPU per round trip": " (round trips)"}.get(
                metric.label, f": {metric.label.split(',')[0]}"
            )
            table.add(
                [
                    title,
                    *(rate(values[n]) for n in names),
                    f"{v.ratio:.2f}×" if v and v.ratio else "–",
                    v.goal if v else "",
                    _mark(v.passed) if v else "",
                    v.aim + (" ✓" if v.aim_reached else "") if v else "",
                    f"{v.over_floor:.1f}" if v and v.over_floor else "",
                ]
            )
            shares = []
            for key in ("server_cpu_share", "generator_cpu_share"):
                part = []
                for n in names:
                    result = row.cells[n].middle_result(metric) if n in row.cells else None
                    window = (result or {}).get("subscriptions" if metric.key == "subscribe" else "window", {})
                    part.append(f"{window[key]:.2f}" if key in window else "–")
                shares.append(" / ".join(part))
            detail.add([title, *(number(values[n]) for n in names), *shares])
    return [table.text(), detail.text()] if any_row else []


def _latency_table(rows: list[Row], names: list[str], verdicts: list[Verdict], judged: list[str]) -> list[str]:
    table = Table(["latency, µs", "server", "p50", "p90", "p99", "p99.9", "max", "ratio p50", "ratio p99"])
    found = False
    for row in rows:
        metric = next((m for m in row.scenario.metrics if m.key == "p50"), None)
        if not metric:
            continue
        for name in names:
            result = row.cells[name].middle_result(metric) if name in row.cells else None
            if not result:
                continue
            found = True
            h = result["latency"]
            ratios = []
            for key in ("latency p50", "latency p99"):
                v = next(
                    (
                        v
                        for v in verdicts
                        if v.scenario == row.scenario.name and v.metric == key and v.contender == name
                    ),
                    None,
                )
                ratios.append(f"{v.ratio:.2f}×" if v and v.ratio else "")
            table.add(
                [row.scenario.title, name, *(number(h[k]) for k in ("p50", "p90", "p99", "p99_9", "max")), *ratios]
            )
    return [table.text()] if found else []


def _other_table(rows: list[Row], names: list[str], verdicts: list[Verdict], judged: list[str]) -> list[str]:
    first = judged[0] if judged else ""
    table = Table(["memory, idle", *names, "ratio", "goal", "", "aim"])
    found = False
    for row in rows:
        for metric in (m for m in row.scenario.metrics if m.key in ("memory", "idle", "dial")):
            found = True
            v = next(
                (
                    v
                    for v in verdicts
                    if v.scenario == row.scenario.name and v.metric == metric.label and v.contender == first
                ),
                None,
            )
            values = [row.cells[n].median(metric) if n in row.cells else None for n in names]
            table.add(
                [
                    f"{row.scenario.title}: {metric.label}",
                    *(number(x, metric.unit) for x in values),
                    f"{v.ratio:.2f}×" if v and v.ratio else "–",
                    v.goal if v else "",
                    _mark(v.passed) if v else "",
                    v.aim if v else "",
                ]
            )
    return [table.text()] if found else []


def report(rows: list[Row], names: list[str], judged: list[str], verdicts: list[Verdict], warnings: list[str]) -> str:
    blocks = [
        *_cpu_tables(rows, names, verdicts, judged),
        *_latency_table(rows, names, verdicts, judged),
        *_other_table(rows, names, verdicts, judged),
    ]
    with_goal = [v for v in verdicts if v.passed is not None]
    if with_goal:
        missed = [v for v in with_goal if not v.passed]
        blocks.append(
            f"goals: {len(with_goal) - len(missed)} of {len(with_goal)} reached"
            + "".join(
                f"\n  missed: {v.title}, {v.metric} ({v.contender}): {number(v.value, v.unit)}"
                + (f", {v.ratio:.2f}×" if v.ratio else "")
                + f", goal {v.goal}"
                for v in missed
            )
        )
    failures = [f"  {row.scenario.name}, {n}: {e}" for row in rows for n, c in row.cells.items() for e in c.errors]
    if failures:
        blocks.append("failed runs:\n" + "\n".join(failures))
    if warnings:
        blocks.append("warnings:\n" + "\n".join("  " + w for w in warnings))
    return "\n\n".join(blocks)
