"""What is measured, in which words it is reported, and what Peregrine is to reach.

A scenario is one way to call bench/load.cc. A metric is one number of its result; less is always better, so that
every ratio reads "how many times better than the reference".

Goals are ratios to the newest nats-server in the same run, so that a slow or busy machine moves both sides:
    goal      what has to hold now, in the default set-up (both servers on all cores)
    aim       where it goes later: (default set-up, one core each)
    floor     how near to the relay, which moves the same bytes and understands nothing
Absolute limits (`at_most`) are for figures that do not depend on the machine's speed, such as memory.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Metric:
    key: str  # cpu, p50, p99, subscribe, memory, idle
    label: str
    path: tuple[str, ...]  # into the JSON of load
    unit: str  # ns, us, B, %
    goal: Optional[float] = None
    aim: Optional[tuple[float, float]] = None
    floor: Optional[float] = None
    at_most: Optional[float] = None
    aim_at_most: Optional[float] = None

    def value(self, result: dict[str, Any]) -> Optional[float]:
        at: Any = result
        for name in self.path:
            if not isinstance(at, dict) or name not in at:
                return None
            at = at[name]
        return float(at) * (100.0 if self.unit == "%" else 1.0)


def cpu(goal=None, aim=None, floor=None, per="message") -> Metric:
    return Metric("cpu", f"CPU per {per}", ("window", f"cpu_ns_per_{per.replace(' ', '_')}"), "ns", goal, aim, floor)


def latency(goal=None) -> tuple[Metric, ...]:
    aim = (2.0, 2.0)
    return (
        Metric("p50", "latency p50", ("latency", "p50"), "us", goal, aim),
        Metric("p99", "latency p99", ("latency", "p99"), "us", goal, aim),
    )


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    args: tuple[str, ...]
    metrics: tuple[Metric, ...]
    relay: bool = True  # the floor can do this too
    core: bool = True  # part of a run without arguments
    sized: bool = True  # --size applies
    config: str = ""  # NATS configuration the servers need for it
    plot: tuple[str, float] = field(default=("", 0.0))  # (curve, x) for the plots
    duration: float = 1.0  # share of --duration

    def load_args(self, size: Optional[int], spin: bool) -> list[str]:
        args = list(self.args)
        if size is not None and self.sized:
            if "--size" in args:
                at = args.index("--size")
                del args[at : at + 2]
            args += ["--size", str(size)]
        if spin and args[0] == "paced":
            args.append("--spin")
        return args


def _stream(name: str, title: str, args: str, *metrics: Metric, **more: Any) -> Scenario:
    return Scenario(name, title, ("stream", *args.split()), metrics, **more)


SMALL = (8.0, 6.0)
LARGE = (4.0, 2.2)
WIDE = (12.0, 9.0)

_SIZES = [(16, "16 B"), (128, "128 B"), (1024, "1 KiB"), (16384, "16 KiB"), (65536, "64 KiB")]


def _one_to_one() -> list[Scenario]:
    out = []
    for size, text in _SIZES:
        small = size < 1024
        out.append(
            _stream(
                f"1to1-{size}",
                f"1→1, {text}",
                f"--size {size}",
                cpu(3.0 if size == 16 else None, SMALL if small else LARGE, 2.5 if small else 1.3),
                plot=("1→1 by size", size),
                sized=False,
            )
        )
    return out


def _text(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


def _sizes_extra() -> list[Scenario]:
    sizes = [0, 8, 64, 256, 512, 4096, 262144, 1048576, 8388608]
    return [
        _stream(
            f"size-{size}",
            f"1→1, {_text(size)}",
            f"--size {size}",
            cpu(),
            core=False,
            sized=False,
            plot=("1→1 by size", max(size, 1)),
            config="max_payload: 8388608\n" if size > 1048576 else "",
        )
        for size in sizes
    ]


def _pairs() -> list[Scenario]:
    return [
        _stream(
            f"pairs-{n}",
            f"{n} pair{'s' if n > 1 else ''} ({2 * n} busy connections)",
            f"--shape pairs --publishers {n} --subscribers {n} --subjects {n}",
            cpu(),
            core=False,
            plot=("pairs by connections", 2 * n),
        )
        for n in (1, 4, 16, 64, 256, 1024, 4096)
    ]


def _subscriptions() -> list[Scenario]:
    out = []
    for n, text in [(1_000, "1 k"), (10_000, "10 k"), (100_000, "100 k"), (1_000_000, "1 M"), (10_000_000, "10 M")]:
        main = n == 1_000_000
        out.append(
            _stream(
                f"subscriptions-{text.replace(' ', '').lower()}",
                f"{text} literal subscriptions",
                f"--shape share --subjects {n} --choice random --subscribers 10 --count-subscriptions",
                Metric(
                    "subscribe",
                    "subscribe, CPU each",
                    ("subscriptions", "cpu_ns_per_message"),
                    "ns",
                    5.0 if main else None,
                ),
                Metric(
                    "memory",
                    "memory each",
                    ("subscriptions", "memory", "resident_each"),
                    "B",
                    4.0 if main else None,
                    aim_at_most=100.0 if main else None,
                ),
                Metric(
                    "cpu",
                    "random subjects, CPU per message",
                    ("window", "cpu_ns_per_message"),
                    "ns",
                    aim=WIDE if main else None,
                ),
                relay=False,
                core=main,
                sized=False,
                plot=("random subjects by subscriptions", n),
            )
        )
    return out


SCENARIOS: list[Scenario] = [
    _stream("pub-16", "publish only, 16 B", "--shape sink", cpu(4.0, SMALL, 2.5), sized=False),
    _stream("pub-1024", "publish only, 1 KiB", "--shape sink --size 1024", cpu(None, (2.0, 2.0), 1.3), sized=False),
    *_one_to_one(),
    _stream("subjects-4096", "1→1, 4096 subjects", "--subjects 4096 --choice cycle", cpu(None, WIDE, 3.5)),
    _stream("own-write", "1→1, each message in its own write", "--own-write", cpu(None, (4.0, 4.0))),
    _stream("fan-10-16", "fan-out 1→10, 16 B", "--subscribers 10", cpu(4.0, (9.0, 9.0), 2.5), sized=False),
    _stream("fan-10-1024", "fan-out 1→10, 1 KiB", "--subscribers 10 --size 1024", cpu(None, LARGE, 1.3), sized=False),
    _stream("fan-100", "fan-out 1→100, 16 B", "--subscribers 100", cpu(None, WIDE, 2.5)),
    _stream("fan-1000", "fan-out 1→1000, 128 B", "--subscribers 1000 --size 128", cpu(None, WIDE, 2.5), duration=2.0),
    _stream(
        "fan-in-100", "fan-in 100→1, wildcard", "--publishers 100 --subjects 100 --wildcard", cpu(None, SMALL, 3.5)
    ),
    _stream("queue-10", "queue group of 10", "--shape share --queue --subscribers 10", cpu(None, SMALL, 4.0)),
    Scenario(
        "request-1", "request/reply, 1 requester", ("request",), (cpu(None, (2.0, 1.6), 1.15, "round trip"), *latency())
    ),
    Scenario(
        "request-16",
        "request/reply, 16 requesters",
        ("request", "--requesters", "16"),
        (cpu(None, (2.0, 1.6), 1.15, "round trip"), *latency()),
    ),
    Scenario(
        "request-16x8",
        "request/reply, 16 requesters, 8 in flight each",
        ("request", "--requesters", "16", "--depth", "8"),
        (cpu(None, (3.0, 3.0), None, "round trip"), *latency()),
    ),
    Scenario(
        "request-256",
        "request/reply, 256 requesters",
        ("request", "--requesters", "256"),
        (cpu(None, (2.0, 1.6), None, "round trip"), *latency()),
        core=False,
    ),
    Scenario("latency-10k", "open loop, 10 k messages/s", ("paced", "--rate", "10000"), (*latency(), cpu())),
    Scenario("latency-100k", "open loop, 100 k messages/s", ("paced", "--rate", "100000"), (*latency(), cpu())),
    *_subscriptions(),
    Scenario("churn", "SUB/UNSUB churn", ("churn",), (cpu(None, WIDE),), relay=False, sized=False),
    Scenario(
        "connections-10k",
        "10 k idle connections",
        ("idle", "--connections", "10000"),
        (
            Metric("memory", "memory each", ("memory", "resident_each"), "B", at_most=4096.0, aim_at_most=1024.0),
            Metric("dial", "connecting, CPU each", ("dialling", "cpu_ns_per_message"), "ns"),
            Metric("idle", "CPU, % of a core", ("window", "server_cpu_share"), "%"),
        ),
        relay=False,
        sized=False,
    ),
    Scenario(
        "idle",
        "idle server",
        ("idle", "--connections", "0"),
        (Metric("idle", "CPU, % of a core", ("window", "server_cpu_share"), "%", at_most=0.5),),
        relay=False,
        sized=False,
        duration=2.0,
    ),
    *_sizes_extra(),
    *_pairs(),
]


def select(patterns: list[str]) -> list[Scenario]:
    """Scenarios matching any glob; 'all' for every one; none given: the core ones."""
    if not patterns:
        return [s for s in SCENARIOS if s.core]
    chosen = [s for s in SCENARIOS if any(p == "all" or fnmatch.fnmatch(s.name, p) for p in patterns)]
    for p in patterns:
        if p != "all" and not any(fnmatch.fnmatch(s.name, p) for s in SCENARIOS):
            raise SystemExit(f"no scenario matches '{p}'; scripts/bench --list shows them")
    return chosen
