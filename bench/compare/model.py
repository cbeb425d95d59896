"""What more cores and a real network would give: arithmetic on measured figures, every assumption named.

bench/README.md ("On paper") says the same in words. Nothing here is measured on such a machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .measure import Row
from .metrics import ALL_CORES, ONE_CORE
from .servers import Contender
from .table import Table, number, per_second

CORES = (32, 64)

# Assumed, not measured.
NIC_BYTES_PER_S = 12.5e9  # 100 GbE, each way
WIRE_SHARE = 1448 / (1448 + 20 + 20 + 12 + 14 + 4 + 20)  # payload of a full segment with timestamps / bytes on the wire
SEGMENT_BYTES = 20 + 20 + 12 + 14 + 4 + 20  # of IP, TCP and Ethernet around a payload, preamble and gap included
MEMORY_BYTES_PER_S = 250e9  # eight channels of DDR5-4800, at four fifths of their nominal rate
SMALL_CROSSINGS = 8  # DMA in 1, kernel copies out 2, ours copies into an outbox 2, kernel copies in 2, DMA out 1
LARGE_CROSSINGS = 6  # the same with the payload shared instead of copied
SHARED_ABOVE_BYTES = 4096
RING_BYTES = 1.25 * 2**20  # of an ordered pair of shards: deliveries 1 MiB (`ring_bytes`), interest a quarter

PUB_LINE, MSG_LINE = len("PUB bench.load 65536\r\n\r\n"), len("MSG bench.load 1 65536\r\n\r\n")


@dataclass
class Costs:
    """ns of CPU; bytes of memory. None: the run had no scenario that tells."""

    whole: dict[int, float]  # by payload: one message in and out, on one shard
    floor: dict[int, float]  # the same for the relay
    crossing: Optional[float]  # more for a message whose subscriber lives on another shard
    own_write: Optional[float]  # 16 B in and out when each message travels alone
    fan_out: Optional[float]  # one delivery of a wide fan-out
    churn: Optional[float]  # SUB or UNSUB where it happens
    churn_told: Optional[float]  # and on each other shard
    memory: Optional[float]  # of a literal subscription where it lives
    memory_told: Optional[float]  # and on each other shard


def costs_of(rows: list[Row], who: list[Contender]) -> Optional[Costs]:
    by_name = {r.scenario.name: r for r in rows}
    ours = next((c.name for c in who if c.ours and c.setup == ALL_CORES), "")
    alone = next((c.name for c in who if c.ours and c.setup == ONE_CORE), ours)
    floors = [c.name for c in who if c.relay]

    def read(scenario: str, name: str, key: str = "cpu") -> Optional[float]:
        row = by_name.get(scenario)
        metric = next((m for m in row.scenario.metrics if m.key == key), None) if row else None
        return row.cells[name].median(metric) if row and metric and name in row.cells else None

    def slope(scenario: str, key: str, shards: int, share: float) -> Optional[float]:
        """From one shard to several, where `share` of the work is more. Noise does not make it negative."""
        one, several = read(f"{scenario}-1", ours, key), read(f"{scenario}-{shards}", ours, key)
        return None if one is None or several is None else max(0.0, (several - one) / share)

    whole = {s: 2 * v for s in (16, 128, 1024, 16384) if (v := read(f"1to1-{s}", alone))}
    if not whole:
        return None
    floor = {s: 2 * v for s in whole for n in floors[-1:] if (v := read(f"1to1-{s}", n))}
    pairs = slope("shards-pairs", "cpu", 2, 0.5)  # half of the pairs cross; four would be oversubscribed
    return Costs(
        whole,
        floor,
        None if pairs is None else 2 * pairs,
        None if (own := read("own-write", alone)) is None else 2 * own,
        read("fan-100", alone),
        read("shards-churn-1", ours),
        slope("shards-churn", "cpu", 4, 3),
        read("shards-subscriptions-1", ours, "memory"),
        slope("shards-subscriptions", "memory", 4, 3),
    )


def limits(costs: Costs, cores: int, size: int) -> dict[str, float]:
    """Messages per second in (and as many out), by what would end it."""
    each = costs.whole[size] + (costs.crossing or 0.0) * (cores - 1) / cores
    crossings = SMALL_CROSSINGS if size <= SHARED_ABOVE_BYTES else LARGE_CROSSINGS
    return {
        "CPU": cores * 1e9 / each,
        "network": NIC_BYTES_PER_S * WIRE_SHARE / (size + max(PUB_LINE, MSG_LINE)),
        "memory bus": MEMORY_BYTES_PER_S / (crossings * (size + MSG_LINE)),
    }


def text(rows: list[Row], who: list[Contender]) -> str:
    costs = costs_of(rows, who)
    if not costs:
        return "the model needs 1to1-* (and 'shards-*' for what crossing costs)"
    inputs = [
        f"measured, ns of CPU for a message in and out: {', '.join(f'{s} B {v:.0f}' for s, v in costs.whole.items())}",
        f"of which the kernel's (floor): {', '.join(f'{s} B {v:.0f}' for s, v in costs.floor.items())}",
        f"more when it crosses to another shard: {number(costs.crossing, 'ns')}; a delivery of a wide fan-out: "
        f"{number(costs.fan_out, 'ns')}; a message in and out when each travels alone: {number(costs.own_write, 'ns')}",
        f"SUB or UNSUB: {number(costs.churn, 'ns')}, and {number(costs.churn_told, 'ns')} on each other shard; "
        f"memory {number(costs.memory, 'B')}, and {number(costs.memory_told, 'B')} on each",
    ]
    table = Table(["1→1, messages in (= out) per second", "CPU", "100 GbE", "memory bus", "first bottleneck"])
    for cores in CORES:
        for size in costs.whole:
            found = limits(costs, cores, size)
            first = min(found, key=lambda k: found[k])
            table.add(
                [f"{cores} cores, {size} B", *(per_second(found[k]) for k in ("CPU", "network", "memory bus")), first]
            )
        if costs.own_write:
            cpu = cores * 1e9 / (costs.own_write + (costs.crossing or 0.0))
            net = NIC_BYTES_PER_S / (16 + MSG_LINE + SEGMENT_BYTES)
            table.add(
                [
                    f"{cores} cores, 16 B, a segment each",
                    per_second(cpu),
                    per_second(net),
                    "",
                    "CPU" if cpu < net else "network",
                ]
            )
    blocks = ["\n".join(inputs), table.text()]
    if costs.fan_out:
        fan = Table(["1→100, 16 B, deliveries per second", "CPU", "100 GbE", "first bottleneck"])
        for cores in CORES:
            cpu = cores * 1e9 / costs.fan_out
            net = NIC_BYTES_PER_S * WIRE_SHARE / (16 + MSG_LINE)
            fan.add([f"{cores} cores", per_second(cpu), per_second(net), "CPU" if cpu < net else "network"])
        blocks.append(fan.text())
    interest = Table(
        ["interest", "SUB/UNSUB per second, all shards", "memory of 1 M subscriptions", "memory of the rings"]
    )
    for cores in CORES:
        told, each = costs.churn_told, costs.churn
        total = None if told is None or each is None else cores * 1e9 / (each + (cores - 1) * told)
        memory = None
        if costs.memory is not None and costs.memory_told is not None:
            memory = 1e6 * (costs.memory + (cores - 1) * costs.memory_told)
        rings = cores * (cores - 1) * RING_BYTES
        interest.add([f"{cores} cores", per_second(total), number(memory, "B"), number(rings, "B")])
    blocks.append(interest.text())
    return "\n\n".join(blocks)
