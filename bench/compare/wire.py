"""A cable instead of loopback: servers in a network namespace of their own, reached over a veth pair, so that a server
with a TCP stack of its own (DPDK) stands beside those that use the kernel's.

The generator is on the kernel's TCP either way. Offloads are off on both ends: frames fit the wire and carry whole
checksums, as a card's would, for everybody.
"""

from __future__ import annotations

import os
import subprocess
import sys

SPACE, NEAR, FAR = "server", "pgk0", "pgd0"
SERVER, CLIENT = "10.67.0.2", "10.67.0.1"
PORT = "4222"
DRIVERS = ("af_packet", "af_xdp")
mtu = 1500


def _run(command: str, check: bool = True) -> None:
    subprocess.run(["sh", "-c", command], check=check, stdin=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


def enter(argv: list[str]) -> None:
    """Goes on in namespaces of our own, with the cable laid; returns there."""
    if os.environ.get("BENCH_WIRE") != str(os.getpid()):
        os.environ["BENCH_WIRE"] = str(os.getpid())
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *root, *argv])
    _run("mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up")
    _run(f"ip netns add {SPACE} && ip -n {SPACE} link set lo up")
    _run(f"ip link add {NEAR} type veth peer name {FAR} netns {SPACE}")
    for prefix, end in (("", NEAR), (f"ip netns exec {SPACE} ", FAR)):
        _run(f"{prefix}ethtool -K {end} tx off gro off tso off gso off >/dev/null")
        _run(f"{prefix}ip link set {end} mtu {mtu} up")
    _run(f"ip addr add {CLIENT}/24 dev {NEAR}")


def drivers() -> tuple[str, ...]:
    return DRIVERS if mtu <= 3000 else DRIVERS[:1]


def prefix() -> list[str]:
    return ["ip", "netns", "exec", SPACE]


def occupy(driver: str) -> None:
    """The address is the kernel's, or left to a server over DPDK."""
    _run(f"ip -n {SPACE} addr flush dev {FAR}")
    inside = f"ip netns exec {SPACE} nft"
    _run(f"{inside} delete table netdev unseen", check=False)
    if driver:
        # The driver has its copy; the kernel would look for a route for each frame, at its sender's expense.
        hook = f"type filter hook ingress device {FAR} priority 0; policy drop;"
        _run(f"{inside} 'table netdev unseen {{ chain ingress {{ {hook} }}; }}'", check=False)
    else:
        _run(f"ip -n {SPACE} addr add {SERVER}/24 dev {FAR}")
    _run(f"ip neigh flush dev {NEAR}", check=False)


def config(driver: str, shards: int) -> str:
    queues = shards if driver == "af_packet" else 1
    ring = "" if mtu <= 1500 else ",framesz=16384,blocksz=65536"
    device = f"net_af_packet0,iface={FAR},qpairs={queues}{ring}" if driver == "af_packet" else f"net_af_xdp0,iface={FAR}"
    return (
        f'http: "127.0.0.1:-1"\nbackend: dpdk\nshards: {shards}\n'
        f"dpdk {{ huge_pages: false, memory: 512MB, telemetry: false\n"
        f'  ports: [{{device: "{device}", queues: {queues}, mtu: {mtu}, addresses: ["{SERVER}/24"]}}] }}\n'
    )


def python() -> list[str]:
    """How this program was started, for enter()."""
    return [sys.executable, "-m", "bench.compare", *sys.argv[1:]]
