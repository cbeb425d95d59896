"""Which servers a scenario needs: one, or two that have a way to each other.

Published is always at `url`, received at `receivers_url`. CPU time and memory of all servers are summed. All of it is
written in nats-server's configuration language, so every contender gets the same file.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from typing import Any, Optional

from .scenarios import Scenario
from .servers import Contender, Server, StartFailure


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _configs(topology: str) -> tuple[str, str]:
    """(where it is published, where it is received)."""
    a, b = _free_port(), _free_port()
    if topology == "cluster":
        first = f'cluster {{ name: bench, listen: "127.0.0.1:{a}", routes: ["nats://127.0.0.1:{b}"] }}\n'
        return first, f'cluster {{ name: bench, listen: "127.0.0.1:{b}" }}\n'
    if topology == "gateway":
        known = f'[{{name: A, url: "nats://127.0.0.1:{a}"}}, {{name: B, url: "nats://127.0.0.1:{b}"}}]'
        return (
            f'gateway {{ name: A, listen: "127.0.0.1:{a}", gateways: {known} }}\n',
            f'gateway {{ name: B, listen: "127.0.0.1:{b}", gateways: {known} }}\n',
        )
    leaf = f'leafnodes {{ remotes: [{{url: "nats://127.0.0.1:{b}"}}] }}\n'
    hub = f'leafnodes {{ listen: "127.0.0.1:{b}" }}\n'
    return (leaf, hub) if topology == "leaf" else (hub, leaf)


def _links(topology: str, monitor: str) -> int:
    """How many links the server itself says it has; 0 while there is not yet the one that matters."""
    path = {"cluster": "routez", "gateway": "gatewayz"}.get(topology, "leafz")
    with urllib.request.urlopen(f"{monitor}/{path}", timeout=5) as answer:
        state: dict[str, Any] = json.load(answer)
    if topology == "cluster":
        return int(state.get("num_routes", 0))
    if topology == "gateway":
        out, into = len(state.get("outbound_gateways") or {}), len(state.get("inbound_gateways") or {})
        return out + into if out and into else 0
    return int(state.get("leafnodes", 0))


class Deployment:
    """The servers of one run. Use as a context manager."""

    def __init__(self, contender: Contender, scenario: Scenario) -> None:
        self._topology = scenario.topology
        contender = contender.with_cores(scenario.cores)
        if not scenario.topology:
            self._servers = [Server(contender, scenario.config)]
            return
        configs = _configs(scenario.topology)
        self._servers = [Server(contender, scenario.config + text) for text in configs]

    def __enter__(self) -> "Deployment":
        started: list[Server] = []
        try:
            for server in self._servers:
                server.__enter__()
                started.append(server)
            if self._topology:
                self._await_links()
        except BaseException:
            for server in started:
                server.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        for server in self._servers:
            server.__exit__()

    def _await_links(self) -> None:
        """Until both ends have had the same number of links for half a second: pools come one by one."""
        deadline = time.monotonic() + 20
        seen, since = [0], time.monotonic()
        while time.monotonic() < deadline:
            try:
                now = [_links(self._topology, s.monitor) for s in self._servers]
            except (OSError, ValueError) as e:
                raise StartFailure(f"{self._servers[0].contender.name}: monitoring does not answer: {e}") from e
            if now != seen:
                seen, since = now, time.monotonic()
            if all(seen) and time.monotonic() - since > 0.5:
                return
            time.sleep(0.05)
        raise StartFailure(f"{self._servers[0].contender.name}: the two servers did not find each other ({seen} links)")

    @property
    def url(self) -> str:
        return self._servers[0].url

    @property
    def receivers_url(self) -> str:
        return self._servers[1].url if self._topology else ""

    @property
    def pids(self) -> list[int]:
        return [s.pid for s in self._servers if s.pid]

    @property
    def facts(self) -> dict[str, str]:
        return self._servers[0].facts

    def longest_turn_ms(self) -> Optional[float]:
        """How long a shard was busy without a look at anybody else, at most; of servers that say so."""
        longest: list[float] = []
        for server in self._servers:
            try:
                with urllib.request.urlopen(f"{server.monitor}/varz", timeout=5) as answer:
                    own: dict[str, Any] = json.load(answer).get("peregrine", {})
            except (OSError, ValueError):
                return None
            longest += [shard["longest_turn_us"] / 1000 for shard in own.get("shard_stats", [])]
        return max(longest, default=None)

    @property
    def crash(self) -> str:
        return "; ".join(s.crash for s in self._servers if s.crash)
