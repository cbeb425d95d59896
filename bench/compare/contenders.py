"""Who takes part: our backends, the newest nats-server, the floor, and whatever else was asked for."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any, Optional

from . import machine, wire
from .metrics import ALL_CORES, ONE_CORE
from .servers import Contender, Server, StartFailure, greeting_of, parse_server, version_of

REFERENCE = "nats-server"
FLOOR = "floor"
LATENCY_ROWS = ("request-1", "request-16", "latency-10k", "latency-100k")


def _backends(a: argparse.Namespace) -> list[str]:
    """Those asked for; else both, if this kernel lets us use io_uring."""
    if a.backends:
        return a.backends.split(",")
    with Server(Contender("peregrine", [a.peregrine])) as server:
        chosen = server.facts.get("backend", "").split(" ")[0]
    if chosen != "uring":
        print("io_uring is not to be had here: measuring the epoll backend only", file=sys.stderr)
        return ["epoll"]
    return ["uring", "epoll"]


def _ours(a: argparse.Namespace, setup: str, backends: list[str]) -> list[Contender]:
    out = []
    suffix = " @1" if setup == ONE_CORE else ""
    counts = a.shards.split(",") if a.shards and setup == ALL_CORES else [""]
    for backend in backends:
        for n in counts:
            flags = ["--backend", backend]
            if n or setup == ONE_CORE:
                flags += ["--shards", n or "1"]
            name = f"peregrine {backend}" + (f" {n} shards" if n else "") + suffix
            out.append(Contender(name, [a.peregrine, *flags], ours=True, setup=setup))
    return out


def _place(a: argparse.Namespace, setup: str) -> tuple[Optional[list[int]], Optional[list[int]]]:
    """Cores of (servers, generator). None: wherever the scheduler likes, the same for all contenders."""
    servers, load = a.server_cores, a.load_cores
    if setup == ONE_CORE:
        cores = machine.cores()
        servers = (servers or cores)[:1]
        load = load or [c for c in cores if c not in servers] or cores
    return servers, load


def _only(a: argparse.Namespace, out: list[Contender]) -> list[Contender]:
    if unknown := [n for n in a.only if n not in [c.name for c in out]]:
        raise SystemExit(f"nobody is called {', '.join(unknown)}; there are: {', '.join(c.name for c in out)}")
    return [c for c in out if not a.only or c.name in a.only]


def _over_cable(a: argparse.Namespace) -> list[Contender]:
    """Ours over DPDK and over the kernel, nats-server and the floor, all at the end of the same cable."""
    out: list[Contender] = []
    for setup in [ONE_CORE] if a.one_core else [ALL_CORES] if a.all_cores else [ALL_CORES, ONE_CORE]:
        servers, load = _place(a, setup)
        one = setup == ONE_CORE
        shards, suffix = (1, " @1") if one else (len(servers or machine.cores()), "")
        for driver in wire.drivers():
            name = f"peregrine dpdk {driver}{suffix}"
            out.append(Contender(name, [a.peregrine], ours=True, setup=setup, over=driver, shards=shards))
        for backend in ("uring", "epoll"):
            command = [a.peregrine, "--backend", backend, "--shards", str(shards)]
            out.append(Contender(f"peregrine {backend}{suffix}", command, ours=True, setup=setup, over="cable"))
        if a.nats_server:
            environment = {"GOMAXPROCS": "1"} if one else {}
            out.append(
                Contender(REFERENCE + suffix, [a.nats_server], environment=environment, reference=True, setup=setup, over="cable")
            )
        if not a.no_floor and os.access(a.relay, os.X_OK):
            out.append(Contender(FLOOR + suffix, [a.relay], relay=True, setup=setup, over="cable"))
        for each in out:
            if each.setup == setup:
                each.cores, each.load_cores = servers, load
    return _only(a, out)


def _beside(a: argparse.Namespace, backend: str, floor: bool) -> list[Contender]:
    """In the latency rows of the one-core columns, where each has a core to itself: a shard of ours that never sleeps; and
    the floor, which is measured the same way there, if these columns have none."""
    never = [a.peregrine, "--backend", backend, "--shards", "1", "--idle", "spin"]
    out = [Contender(f"peregrine {backend} spin @1", never, ours=True, setup=ONE_CORE, rows=LATENCY_ROWS)] if backend else []
    if floor:
        out.append(Contender(FLOOR + " @1", [a.relay], relay=True, setup=ONE_CORE, rows=LATENCY_ROWS))
    return out


def contenders_of(a: argparse.Namespace, backends: Optional[list[str]] = None) -> list[Contender]:
    """backends: given when nothing is to be started, to see who would take part."""
    if a.wire:
        return _over_cable(a)
    setups = [ONE_CORE] if a.one_core else [ALL_CORES] if a.all_cores or a.server_cores else [ALL_CORES, ONE_CORE]
    out: list[Contender] = []
    try:
        if backends is None:
            backends = _backends(a) if os.access(a.peregrine, os.X_OK) else []
    except StartFailure as e:
        raise SystemExit(f"{a.peregrine} does not start: {e}") from e
    if not backends:
        print(f"{a.peregrine} is missing: measuring the others only", file=sys.stderr)
    for setup in setups:
        servers, load = _place(a, setup)
        one = setup == ONE_CORE
        # The one-core columns of the short run: only what is judged.
        wanted = backends if a.full or a.backends or not one or a.one_core else backends[:1]
        mine = _ours(a, setup, wanted)
        if a.nats_server:
            environment = {"GOMAXPROCS": "1"} if one else {}
            mine.append(
                Contender(
                    REFERENCE + (" @1" if one else ""),
                    [a.nats_server],
                    environment=environment,
                    reference=True,
                    setup=setup,
                )
            )
        if not one:
            mine += [parse_server(text) for text in a.server]
        if not a.no_floor and os.access(a.relay, os.X_OK) and (a.full or setup == setups[0]):
            floor_setup = setup if a.full or len(setups) == 1 else ""
            name = FLOOR + (" @1" if one and a.full else "")
            mine.append(Contender(name, [a.relay], relay=True, setup=floor_setup))
        if one and not set(servers or []) & set(load or []):
            floor = not a.no_floor and os.access(a.relay, os.X_OK) and not a.full and len(setups) > 1
            mine += _beside(a, backends[0] if backends else "", floor)
        for c in mine:
            c.cores, c.load_cores = (None if c.remote else servers), load
        out += mine
    out = _only(a, out)
    names = [c.name for c in out]
    if len(set(names)) != len(names):
        raise SystemExit("two servers of the same name: give them names, as in --server 'NAME=COMMAND'")
    if not out:
        raise SystemExit("nothing to measure")
    return out


def _tree_version() -> str:
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=5)
        return done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def as_dict(c: Contender) -> dict[str, Any]:
    """For the JSON; from_dict() makes a Contender of it that can be reported on, not started."""
    if c.remote:
        version = f"{greeting_of(c.url)} running at {c.url}"
    elif c.relay:
        version = "moves the same bytes, understands nothing"
    else:
        version = version_of(c.command[:1], c.environment)
        if c.ours and (tree := _tree_version()):
            version += f", commit {tree}"
    return {
        "name": c.name,
        "version": version,
        "flags": c.command[1:],
        "environment": c.environment,
        "setup": c.setup,
        "cores": c.cores,
        "load_cores": c.load_cores,
        "ours": c.ours,
        "reference": c.reference,
        "relay": c.relay,
        "url": c.url,
        "rows": c.rows,
    }


def from_dict(d: dict[str, Any]) -> Contender:
    return Contender(
        d["name"],
        [] if d["url"] else ["-"],
        url=d["url"],
        relay=d["relay"],
        ours=d["ours"],
        reference=d["reference"],
        setup=d["setup"],
        cores=d.get("cores"),
        load_cores=d.get("load_cores"),
        rows=tuple(d.get("rows", ())),
    )
