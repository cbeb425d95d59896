"""The kinds of work that are compared. A scenario is one way to call bench/load.cc, and the metrics to read off."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Any, Optional

from .metrics import (
    ALL_CORES,
    CLUSTER,
    LARGE,
    MEMORY,
    ONE_CORE,
    REQUEST,
    ROWS,
    SMALL,
    SUPER,
    WIDE,
    Metric,
    cpu,
    latency,
    subscribing,
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
    topology: str = ""  # cluster, gateway, leaf, hub: two servers, published at one and received at the other
    cores: int = 0  # so many shards, so many GOMAXPROCS
    needs_gib: float = 0.0  # memory of generator and server together
    setup_s: float = 0.0  # expected before the window, and to stop
    setups: tuple[str, ...] = (ALL_CORES, ONE_CORE)

    def load_args(self, size: Optional[int], connections: Optional[int], spin: bool) -> list[str]:
        args = list(self.args)
        if connections is not None:
            # The many of this kind of work: subscribers of a fan-out, publishers of a fan-in, both of pairs.
            counts = ("--publishers", "--subscribers", "--requesters", "--connections")
            many = max((int(args[i + 1]) for i, a in enumerate(args) if a in counts), default=1)
            for i, a in enumerate(args):
                if a in (*counts, "--subjects") and many > 1 and int(args[i + 1]) == many:
                    args[i + 1] = str(connections)
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


def _request(name: str, title: str, args: str, *metrics: Metric, **more: Any) -> Scenario:
    return Scenario(name, title, ("request", *args.split()), metrics, **more)


def _text(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


def _count(n: int) -> str:
    return f"{n // 1_000_000} M" if n >= 1_000_000 else f"{n // 1000} k" if n >= 1000 else str(n)


def _one_to_one() -> list[Scenario]:
    out = []
    for size, near in [(16, 2.5), (128, 2.5), (1024, 1.3), (16384, 1.2), (65536, 1.2)]:
        out.append(
            _stream(
                f"1to1-{size}",
                f"1→1, {_text(size)}",
                f"--size {size}",
                cpu(SMALL if size < 1024 else LARGE, near),
                plot=("1→1 by size", size),
                sized=False,
            )
        )
    return out


SUBSCRIBING_S = 4.0  # a million of them, and to free them again; the mean of the contenders


def _payload_sweep() -> list[Scenario]:
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
            setups=(ALL_CORES,),
        )
        for size in sizes
    ]


def _busy_connections() -> list[Scenario]:
    return [
        _stream(
            f"pairs-{n}",
            f"{n} pair{'s' if n > 1 else ''} ({_count(2 * n)} busy connections)",
            f"--shape pairs --publishers {n} --subscribers {n} --subjects {n}",
            cpu(),
            core=False,
            plot=("pairs by connections", 2 * n),
            setups=(ALL_CORES,),
        )
        for n in (1, 4, 16, 64, 256, 1024, 5000)
    ]


def _shards() -> list[Scenario]:
    """Each on 1, 2 and 4 shards: what is gained, and what crossing over and telling the others of interest costs."""
    kinds: list[tuple[str, str, str, str, tuple[Metric, ...], float]] = [
        (
            "pairs",
            "16 pairs",
            "pairs",
            "stream --shape pairs --publishers 16 --subscribers 16 --subjects 16",
            (cpu(),),
            0.0,
        ),
        ("fan", "fan-out 1→100", "fan-out", "stream --subscribers 100", (cpu(),), 0.0),
        ("churn", "SUB/UNSUB churn", "churn", "churn", (cpu(),), 0.0),
        (
            "subscriptions",
            "random subjects over 1 M",
            "subscriptions",
            "stream --shape share --subjects 1000000 --choice random --subscribers 10 --count-subscriptions",
            (*subscribing(), cpu()),
            1.6,
        ),
    ]
    return [
        Scenario(
            f"shards-{name}-{n}",
            f"{title} on {n} shard{'s' if n > 1 else ''}",
            tuple(args.split()),
            metrics,
            relay=False,
            core=False,
            sized=False,
            plot=(f"{family} by shards", n),
            cores=n,
            needs_gib=gib,
            setup_s=SUBSCRIBING_S if gib else 0.0,
            setups=(ALL_CORES,),
        )
        for name, title, family, args, metrics, gib in kinds
        for n in (1, 2, 4)
    ]


def _subscriptions() -> list[Scenario]:
    out = []
    for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        main = n == 1_000_000
        out.append(
            _stream(
                f"subscriptions-{_count(n).replace(' ', '').lower()}",
                f"random subjects over {_count(n)}",
                f"--shape share --subjects {n} --choice random --subscribers 10 --count-subscriptions",
                *subscribing(memory_at_most=100.0 if main else None),
                cpu(WIDE) if main else cpu(),
                relay=False,
                core=main,
                sized=False,
                plot=("random subjects by subscriptions", n),
                needs_gib=1.4 * n / 1e6,
                setup_s=SUBSCRIBING_S * n / 1e6,
                setups=(ALL_CORES, ONE_CORE) if main else (ALL_CORES,),
            )
        )
    return out


def _cluster() -> list[Scenario]:
    small, large, asking = (5.0, 5.0), (3.0, 3.0), (1.8, 1.8)

    def row(name: str, title: str, args: str, goal: tuple[float, float] = small) -> Scenario:
        return _stream(
            f"cluster-{name}",
            f"cluster, {title}",
            args,
            cpu(CLUSTER, goal=goal),
            relay=False,
            core=False,
            sized=False,
            topology="cluster",
            setups=(ALL_CORES,),
        )

    return [
        row("16", "16 B", "--size 16"),
        row("128", "128 B", "--size 128"),
        row("1024", "1 KiB", "--size 1024", large),
        row("16384", "16 KiB", "--size 16384", large),
        row("fan-4", "1→4, 16 B", "--subscribers 4"),
        row("fan-in-10", "fan-in 10→1, 16 B", "--publishers 10 --subjects 10 --wildcard"),
        row("queue-4", "queue group of 4, 16 B", "--shape share --queue --subscribers 4"),
        row("subjects-4096", "4096 subjects, 16 B", "--subjects 4096 --choice cycle"),
        _request(
            "cluster-request-16",
            "cluster, request/reply, 16 requesters",
            "--requesters 16",
            cpu(CLUSTER, goal=asking, per="round trip"),
            *latency(CLUSTER),
            relay=False,
            core=False,
            topology="cluster",
            setups=(ALL_CORES,),
        ),
        _stream(
            "cluster-subscriptions-1m",
            "cluster, random subjects over 1 M",
            "--shape share --subjects 1000000 --choice random --subscribers 10 --count-subscriptions",
            Metric(
                "propagate", "until the other server knows", ("subscriptions", "milliseconds"), "ms", CLUSTER, small
            ),
            *subscribing(memory_goal=(2.0, 2.0), group=CLUSTER),
            Metric("turn", "longest turn", ("turns", "longest_ms"), "ms", CLUSTER),
            cpu(CLUSTER),
            relay=False,
            core=False,
            sized=False,
            topology="cluster",
            needs_gib=3.0,
            setup_s=2 * SUBSCRIBING_S,
            setups=(ALL_CORES,),
        ),
    ]


def _super_cluster() -> list[Scenario]:
    out = []
    for topology, title in (("gateway", "through a gateway"), ("leaf", "leaf to hub"), ("hub", "hub to leaf")):
        for size in (16, 16384):
            out.append(
                _stream(
                    f"{topology}-{size}",
                    f"{title}, {_text(size)}",
                    f"--size {size}",
                    cpu(SUPER, goal=(4.0, 4.0)),
                    relay=False,
                    core=False,
                    sized=False,
                    topology=topology,
                    setups=(ALL_CORES,),
                )
            )
    return out


SCENARIOS: list[Scenario] = [
    _stream("pub-16", "publish only, 16 B", "--shape sink", cpu(SMALL, 2.5), sized=False),
    # 2x, not 4x: four times better than nats-server would be below the floor.
    _stream("pub-1024", "publish only, 1 KiB", "--shape sink --size 1024", cpu(ROWS, 1.3, (2.0, 2.0)), sized=False),
    *_one_to_one(),
    _stream("subjects-4096", "1→1, 4096 subjects", "--subjects 4096 --choice cycle", cpu(WIDE)),
    _stream("own-write", "1→1, each message in its own write", "--own-write", cpu(ROWS, goal=(4.0, 4.0))),
    _stream("fan-10-16", "fan-out 1→10, 16 B", "--subscribers 10", cpu(SMALL, 2.5), sized=False),
    _stream("fan-10-1024", "fan-out 1→10, 1 KiB", "--subscribers 10 --size 1024", cpu(LARGE, 1.3), sized=False),
    _stream("fan-100", "fan-out 1→100, 16 B", "--subscribers 100", cpu(WIDE, 2.5)),
    _stream("fan-1000", "fan-out 1→1000, 128 B", "--subscribers 1000 --size 128", cpu(WIDE), duration=2.0),
    _stream("fan-in-100", "fan-in 100→1, wildcard", "--publishers 100 --subjects 100 --wildcard", cpu(SMALL)),
    _stream("queue-10", "queue group of 10", "--shape share --queue --subscribers 10", cpu(SMALL)),
    _request("request-1", "request/reply, 1 requester", "", cpu(REQUEST, 1.15, per="round trip"), *latency()),
    _request(
        "request-16",
        "request/reply, 16 requesters",
        "--requesters 16",
        cpu(REQUEST, 1.15, per="round trip"),
        *latency(),
    ),
    _request(
        "request-16x8",
        "request/reply, 16 requesters, 8 in flight each",
        "--requesters 16 --depth 8",
        cpu(REQUEST, per="round trip"),
        *latency(),
        core=False,
    ),
    _request(
        "request-256",
        "request/reply, 256 requesters",
        "--requesters 256",
        cpu(REQUEST, per="round trip"),
        *latency(),
        core=False,
    ),
    Scenario("latency-10k", "open loop, 10 k messages/s", ("paced", "--rate", "10000"), (*latency(), cpu())),
    Scenario("latency-100k", "open loop, 100 k messages/s", ("paced", "--rate", "100000"), (*latency(), cpu())),
    *_subscriptions(),
    Scenario("churn", "SUB/UNSUB churn", ("churn",), (cpu(WIDE),), relay=False, sized=False),
    Scenario(
        "connections-10k",
        "10 k idle connections",
        ("idle", "--connections", "10000"),
        (
            Metric("memory", "memory each", ("memory", "resident_each"), "B", MEMORY, at_most=1024.0),
            Metric("dial", "connecting, CPU each", ("dialling", "cpu_ns_per_message"), "ns"),
            Metric("idle", "CPU, % of a core", ("window", "server_cpu_share"), "%"),
        ),
        relay=False,
        sized=False,
        setup_s=7.0,
        setups=(ALL_CORES,),
    ),
    Scenario(
        "idle",
        "idle server",
        ("idle", "--connections", "0"),
        (Metric("idle", "CPU, % of a core", ("window", "server_cpu_share"), "%", MEMORY, at_most=0.5),),
        relay=False,
        sized=False,
        duration=2.0,
        setups=(ALL_CORES,),
    ),
    *_payload_sweep(),
    *_busy_connections(),
    *_shards(),
    *_cluster(),
    *_super_cluster(),
]


def select(patterns: list[str], full: bool) -> list[Scenario]:
    """Scenarios matching any glob (or list of them, with commas); 'core' and 'all' are sets; none given: the core ones."""
    wanted = [each for p in patterns for each in p.split(",")] or (["all"] if full else ["core"])

    def matches(s: Scenario, p: str) -> bool:
        return p == "all" or (p == "core" and s.core) or fnmatch.fnmatch(s.name, p)

    for p in wanted:
        if not any(matches(s, p) for s in SCENARIOS):
            raise SystemExit(f"no scenario matches '{p}'; scripts/bench --list shows them")
    return [s for s in SCENARIOS if any(matches(s, p) for p in wanted)]
