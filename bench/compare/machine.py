"""The machine under the measurement: what it is, and whether it can be trusted just now."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any, Optional


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def cores_text(some: Optional[list[int]]) -> str:
    return "any core" if not some else ("core " if len(some) == 1 else "cores ") + ",".join(map(str, some))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def facts() -> dict[str, Any]:
    info = dict(
        (key.strip(), value.strip())
        for key, _, value in (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
    )
    memory_kib = int(_read("/proc/meminfo").split()[1])
    cpu = f"/sys/devices/system/cpu/cpu{cores()[0]}"
    caches = []
    for index in sorted(Path(f"{cpu}/cache").glob("index*")):
        if _read(f"{index}/type") != "Instruction":
            caches.append(f"L{_read(f'{index}/level')} {_read(f'{index}/size')}")
    return {
        "kernel": platform.release(),
        "cpu": info.get("model name", platform.machine()),
        "cores": cores(),
        "threads_per_core": len(_read(f"{cpu}/topology/thread_siblings_list").replace("-", ",").split(",")) or 1,
        "caches": ", ".join(caches),
        "governor": _read(f"{cpu}/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in info.get("flags", ""),
        "memory_gib": round(memory_kib / 2**20, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def memory_available_gib() -> float:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 2**20
    return 0.0


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
