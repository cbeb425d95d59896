"""The verdict on every goal: each metric of each of our contenders against the reference and the floor of its set-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from .measure import Row
from .metrics import ALL_CORES, FLOOR, ONE_CORE, Metric, ratio_text
from .servers import Contender


LATENCIES = ("p50", "p99", "p99.9")


@dataclass
class Verdict:
    """A ratio says how many times better than the reference; over_floor how many times what the relay needs."""

    scenario: str
    title: str
    metric: str
    unit: str
    group: str
    setup: str
    contender: str
    first: bool  # the contender of its set-up that the summary speaks of
    value: Optional[float]
    reference: Optional[float]
    floor: Optional[float]
    ratio: Optional[float]
    over_floor: Optional[float]
    goal: str
    passed: Optional[bool]  # None: no goal set, or nothing measured
    floor_goal: str
    floor_passed: Optional[bool]

    def as_dict(self) -> dict[str, Any]:
        return self.__dict__.copy()


def limit_of(metric: Metric, setup: str) -> Optional[float]:
    return None if metric.goal is None else metric.goal[1 if setup == ONE_CORE else 0]


def _goal(metric: Metric, setup: str, ratio: Optional[float], value: Optional[float]) -> tuple[str, Optional[bool]]:
    if metric.at_most is not None:
        return f"≤ {metric.at_most:g} {metric.unit}", None if value is None else value <= metric.at_most
    limit = limit_of(metric, setup)
    if limit is not None:
        return f"≥ {limit:g}×", None if ratio is None else ratio >= limit
    return "", None


def judge(rows: list[Row], contenders: list[Contender]) -> list[Verdict]:
    out = []
    first: dict[str, str] = {}
    for c in contenders:
        if c.ours and not c.rows:
            first.setdefault(c.setup, c.name)
    for row in rows:
        for metric in row.scenario.metrics:
            for c in contenders:
                if not c.ours or c.name not in row.cells:
                    continue

                def other(relay: bool) -> Optional[float]:
                    """The reference (or the floor) in the same set-up. CPU per message of the floor from elsewhere, if there
                    is none here; not its latency, which depends on whether the generator sleeps or spins."""
                    found = [x for x in contenders if x.name in row.cells and (x.relay if relay else x.reference)]
                    here = [x for x in found if x.setup == c.setup]
                    if relay and not here and (metric.key not in LATENCIES or c.setup != ONE_CORE):
                        here = found
                    return row.cells[here[0].name].median(metric) if here else None

                value, reference, floor = row.cells[c.name].median(metric), other(False), other(True)
                ratio = reference / value if reference and value else None
                over = value / floor if value and floor else None
                goal, passed = ("", None) if c.rows else _goal(metric, c.setup or ALL_CORES, ratio, value)
                near = None if c.rows else metric.floor
                out.append(
                    Verdict(
                        row.scenario.name,
                        row.scenario.title,
                        metric.label,
                        metric.unit,
                        metric.group,
                        c.setup or ALL_CORES,
                        c.name,
                        first.get(c.setup) == c.name,
                        value,
                        reference,
                        floor,
                        ratio,
                        over,
                        goal,
                        passed,
                        f"≤ {near:g} × floor" if near else "",
                        None if near is None or over is None else over <= near,
                    )
                )
    return out


@dataclass
class Line:
    """One line of the summary: a group of goals in one set-up, for one contender."""

    group: str
    setup: str
    contender: str
    met: int = 0
    total: int = 0
    beyond: int = 0  # missed where the floor misses, too
    missed: list[str] = field(default_factory=list)

    def add(self, passed: bool, text: str, beyond: bool = False) -> None:
        self.total += 1
        self.met += passed
        self.beyond += beyond
        if not passed:
            self.missed.append(text)


def floor_misses(v: Verdict) -> Optional[float]:
    """Moving the bytes alone may take more than a missed goal leaves: then it is the kernel's. How many times better than
    the reference the floor is, if that is less than the goal."""
    if v.passed or not v.reference or not v.floor or not v.value or not v.ratio or not v.goal.startswith("≥"):
        return None
    best = v.reference / v.floor
    return best if best < float(v.goal[1:].rstrip("×")) else None


def times(v: Verdict) -> str:
    """The ratio; with as many digits as it takes to see on which side of the goal it is."""
    text = ratio_text(v.ratio or 0.0)
    return f"{v.ratio:.2f}×" if v.passed is False and f"≥ {text.replace('.0', '')}" == v.goal else text


def summary(verdicts: list[Verdict]) -> list[Line]:
    lines: dict[tuple[str, str, str], Line] = {}

    def line(group: str, v: Verdict) -> Line:
        return lines.setdefault((v.setup, v.contender, group), Line(group, v.setup, v.contender))

    for v in verdicts:
        if v.passed is not None:
            how = (
                times(v)
                if v.ratio and v.goal.startswith("≥")
                else f"{v.value:.0f} {v.unit}" if (v.value or 0) >= 10 else f"{v.value:.2g} {v.unit}"
            )
            what = v.title + ("" if v.metric.startswith("CPU per") else f", {v.metric}")
            best = floor_misses(v)
            beyond = f", the floor itself {best:.1f}×" if best else ""
            line(v.group, v).add(v.passed, f"{what} {how} ({v.goal}{beyond})", best is not None)
        if v.floor_passed is not None and v.over_floor:
            line(FLOOR, v).add(v.floor_passed, f"{v.title} {v.over_floor:.2f} ({v.floor_goal})")
    return list(lines.values())
