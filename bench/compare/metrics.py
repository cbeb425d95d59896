"""What is read off a run, and what Peregrine is to reach.

A metric is one number of the generator's result; less is always better, so that every ratio reads "how many times
better than the reference".

Goals are ratios to the newest nats-server in the same run, so that a slow or busy machine moves both sides:
    goal      how many times better: (every server on all cores, every server on one core)
    floor     how near to the relay, which moves the same bytes and understands nothing
    at_most   for figures that do not depend on the machine's speed, such as memory
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

ALL_CORES = "all cores"
ONE_CORE = "one core"

# The lines of the summary after each run.
SMALL = "small messages"
LARGE = "from 1 KiB up"
WIDE = "fan-out ≥ 100, many subjects, churn"
ROWS = "rows with a number of their own"
REQUEST = "request/reply"
LATENCY = "latency, half of the reference's"
FLOOR = "near the floor"
MEMORY = "memory and idling"
CLUSTER = "two servers in a cluster"
SUPER = "gateway and leaf node"

RATIOS = {SMALL: (8.0, 6.0), LARGE: (4.0, 2.2), WIDE: (12.0, 9.0), REQUEST: (2.0, 1.6), LATENCY: (2.0, 2.0)}


@dataclass(frozen=True)
class Metric:
    key: str  # cpu, p50, p99, subscribe, propagate, memory, turn, idle, dial
    label: str
    path: tuple[str, ...]  # into the JSON of load
    unit: str  # ns, us, ms, B, %
    group: str = ROWS
    goal: Optional[tuple[float, float]] = None
    floor: Optional[float] = None
    at_most: Optional[float] = None

    def value(self, result: dict[str, Any]) -> Optional[float]:
        at: Any = result
        for name in self.path:
            if not isinstance(at, dict) or name not in at:
                return None
            at = at[name]
        return float(at) * (100.0 if self.unit == "%" else 1.0)


def cpu(
    group: str = ROWS,
    floor: Optional[float] = None,
    goal: Optional[tuple[float, float]] = None,
    per: str = "message",
) -> Metric:
    path = ("window", f"cpu_ns_per_{per.replace(' ', '_')}")
    return Metric("cpu", f"CPU per {per}", path, "ns", group, goal or RATIOS.get(group), floor)


def latency(group: str = LATENCY) -> tuple[Metric, ...]:
    goal = RATIOS.get(group)
    return (
        Metric("p50", "latency p50", ("latency", "p50"), "us", group, goal),
        Metric("p99", "latency p99", ("latency", "p99"), "us", group, goal),
        Metric("p99.9", "latency p99.9", ("latency", "p99_9"), "us", group),  # no goal: mostly the machine's
    )


def ratio_text(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio >= 0.1 else f"{ratio:.2g}×"


# What a table of latencies shows.
PERCENTILES = tuple(
    Metric(key, f"latency {key}", ("latency", key.replace(".", "_")), "us") for key in ("p50", "p90", "p99", "p99.9", "max")
)


def subscribing(cpu_goal=None, memory_goal=None, memory_at_most=None, group: str = MEMORY) -> tuple[Metric, ...]:
    return (
        Metric("subscribe", "subscribe, CPU each", ("subscriptions", "cpu_ns_per_message"), "ns", group, cpu_goal),
        Metric(
            "memory",
            "memory each",
            ("subscriptions", "memory", "resident_each"),
            "B",
            group,
            memory_goal,
            at_most=memory_at_most,
        ),
    )
