"""The machine under the measurement: what it is, and whether it can be trusted just now."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def facts() -> dict[str, Any]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    hypervisor = "hypervisor" in Path("/proc/cpuinfo").read_text()
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cores": cores(),
        "virtual": hypervisor,
        "memory_gib": round(memory_kib / 2**20, 1),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def pace_ns() -> float:
    """CPU time of a fixed piece of work. Shared cores or caches show here, where no steal is counted."""
    best = float("inf")
    for _ in range(3):
        begin = time.process_time_ns()
        sum(range(200_000))
        best = min(best, time.process_time_ns() - begin)
    return best


def _cpu_ticks() -> list[int]:
    return [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]


class Watch:
    """How much of the machine others used between two moments."""

    def __init__(self) -> None:
        self._begin = _cpu_ticks()

    def busy_ticks(self) -> dict[str, float]:
        end = _cpu_ticks()
        delta = [b - a for a, b in zip(self._begin, end)]
        total = max(1, sum(delta[:8]))
        busy = total - delta[3] - delta[4]
        return {"busy_share": busy / total, "steal_share": delta[7] / total}


def others_load(seconds: float = 0.5) -> float:
    """Busy share of all cores while we do nothing: what other people's work takes."""
    watch = Watch()
    time.sleep(seconds)
    return watch.busy_ticks()["busy_share"]
