#!/usr/bin/env python3
"""The broker over DPDK, with the Linux kernel's TCP on the other side, in network namespaces (world.py).

    run.py                    the short scenes, as scripts/check runs them
    run.py --scene NAME,...   only these
    run.py --full             the long ones: 1 GiB each way at every loss, 10,000 connections, a minute without reading

Prints one line per scene and "N passed, N failed".
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

import world
from world import Broker, World, in_client, sh, start_in_client

REPO = pathlib.Path(__file__).resolve().parents[3]
SCENES = {}


def scene(function):
    SCENES[function.__name__] = function
    return function


class Stage:
    def __init__(self, program, full, folder):
        self.program, self.full, self.folder = program, full, folder
        self.world = World()
        self.brokers = 0

    def broker(self, **how):
        self.brokers += 1
        return Broker(self.program, self.folder / f"broker{self.brokers}", **how)


@scene
def refusals(stage):
    """What cannot work is said in one line, with the remedy; nothing of DPDK's own on stdout or stderr."""
    cases = [
        ("device: \"net_af_packet0,iface=nowhere\"", "there is no interface nowhere"),
        ("device: \"net_nothing0\"", "DPDK has no driver net_nothing"),
        ("device: \"0000:fe:00.0\"", "a physical device needs huge_pages: true"),
        ("device: \"net_af_packet0,iface=s0,qpairs=4\", queues: 4", "there are only 1 shard; set queues: auto or more shards"),
        ("device: \"net_af_packet0,iface=s0\", queues: 4", "has 1 queue, not 4; set queues: auto, or give the device more (qpairs=N)"),
        ("device: \"net_af_packet0,iface=s0\", spread: fast", "spread"),
    ]
    cases = [("huge_pages: false, memory: 128MB", port, wanted) for port, wanted in cases] + [
        ("memory: 4096GB", "device: \"net_null0\"", "dpdk"),
        ("memory: 65536MB", "device: \"net_null0\"", "MiB of huge pages are free; reserve them with"),
        ("huge_pages: false, memory: 128MB, idle: interrupt", "device: \"net_af_packet0,iface=s0\"",
         "has no receive interrupts; set dpdk.idle: adaptive or spin"),
        ("huge_pages: false, memory: 128MB, extra_args: [\"--nonsense\"]", "device: \"net_null0\"", "see extra_args"),
    ]
    path = stage.folder / "refused.conf"
    for memory, port, wanted in cases:
        path.write_text(f'listen: "0.0.0.0:4222"\nshards: 1\nbackend: dpdk\ndpdk {{ telemetry: false, {memory}\n'
                        f' ports: [{{{port}, addresses: ["10.66.0.2/24"]}}] }}\n')
        done = subprocess.run(["ip", "netns", "exec", "server", stage.program, "-c", str(path)], capture_output=True, text=True,
                              timeout=60)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "[INF]" not in line]
        assert done.returncode == 1, f"{port}: exit code {done.returncode}"
        assert len(lines) == 1 and wanted in lines[0], f"{memory} {port}: wanted {wanted!r}, got {lines}"
    return f"{len(cases)} mistakes, one line each"


@scene
def loss(stage):
    """Byte for byte through the broker while packets get lost in both directions."""
    said = []
    megabytes = 1024 if stage.full else 24
    for queues, percent in ((1, 0), (1, 0.1), (1, 1), (1, 5), (2, 1)) if stage.full else ((1, 1), (2, 1)):
        stage.world.lose(percent)
        with stage.broker(queues=queues, shards=queues, device=f"net_af_packet0,iface=s0,qpairs={queues}") as broker:
            result = in_client("transfer", megabytes, timeout=7200)
            lost = broker.tcp("segments_retransmitted")
            if percent >= 1:
                assert lost > 0, "nothing was lost, so nothing was tested"
            said.append(f"{queues} queue(s) {percent} %: {result['mbytes_per_s']} MB/s each way, {lost} sent again")
    stage.world.lose(0)
    return f"{megabytes} MiB; " + "; ".join(said)


@scene
def goodput(stage):
    """Under 1 % loss, not less than 70 % of what the kernel's own TCP gets through in its place."""
    megabytes = 256 if stage.full else 24
    stage.world.lose(1)
    rates = {"dpdk": [], "uring": []}
    for _ in range(3):
        for backend, seen in rates.items():
            with stage.broker(backend=backend):
                seen.append(in_client("transfer", megabytes, timeout=3600)["mbytes_per_s"])
    stage.world.lose(0)
    best = {name: max(seen) for name, seen in rates.items()}
    share = best["dpdk"] / best["uring"]
    assert share >= 0.7, f"dpdk {rates['dpdk']}, kernel {rates['uring']} MB/s: {share:.0%}"
    return f"dpdk {rates['dpdk']}, kernel to kernel {rates['uring']} MB/s: best against best {share:.0%}"


@scene
def crowd(stage):
    """Many connections, each answered, each reached by one message."""
    count = 10000 if stage.full else 1500
    with stage.broker(queues=2, shards=2, device="net_af_packet0,iface=s0,qpairs=2") as broker:
        before = broker.resident_bytes()
        clients = start_in_client("crowd", count, "hold")
        line = clients.stdout.readline()
        if not line:
            raise AssertionError(clients.stderr.read()[-1500:])
        result = json.loads(line)
        each = (broker.resident_bytes() - before) // count
        held = broker.settle("connections", lambda number: number >= count)
        clients.stdin.close()
        clients.wait(60)
        assert held >= count, f"{held} connections"
        left = broker.settle("connections", lambda number: number <= 2)
        assert left <= 2, f"{left} connections left"
    return f"{count}: connected in {result['connect_s']} s, fan-out {result['fan_out_s']} s, {each} bytes of the process each"


@scene
def stopped_reader(stage):
    """A client that stops reading holds up nobody, holds no frames, and misses nothing."""
    seconds = 60 if stage.full else 5
    with stage.broker() as broker:
        result = in_client("stopped_reader", seconds)
        assert broker.tcp("persist_probes") > 0, "its window was never closed"
        no_mbuf = sum(shard["no_mbuf"] for shard in broker.dpdk()["shards"])
        assert no_mbuf == 0, f"{no_mbuf} frames found no mbuf"
    return f"{seconds} s; the others waited {result['others_worst_ms']} ms at most"


@scene
def cable(stage):
    """The cable is pulled and put back: connections live on, nothing is lost, the log tells."""
    with stage.broker() as broker:
        clients = start_in_client("steady")
        assert clients.stdout.readline() == "going\n", clients.stderr.read()[-1500:]
        time.sleep(1)
        sh("ip -n router link set r0 down")
        time.sleep(3)
        assert "link down" in broker.log(), broker.log()[-500:]
        assert broker.dpdk()["ports"][0]["link"] == "down"
        sh("ip -n router link set r0 up")
        time.sleep(6 if not stage.full else 15)
        clients.stdin.close()
        out, errors = clients.stdout.read(), clients.stderr.read()
        assert clients.wait(60) == 0, errors[-1500:]
        result = json.loads(out.strip().splitlines()[-1])
        assert "link up" in broker.log().split("link down")[1]
        after = result["per_second"][-1]
        assert after > 0, result
    return f"{result['messages']} messages in order, {after}/s at the end"


@scene
def flood(stage):
    """A SYN flood: whoever is connected goes on, whoever comes gets in."""
    rate, seconds = (200000, 10) if stage.full else (50000, 4)
    program = stage.folder / "flood"
    sh(f"c++ -std=c++20 -O2 -o {program} {REPO}/tests/net/dpdk/flood.cc")
    with stage.broker() as broker:
        clients = start_in_client("steady")
        assert clients.stdout.readline() == "going\n", clients.stderr.read()[-1500:]
        time.sleep(5)
        mac = broker.dpdk()["ports"][0]["mac"]
        sent = int(sh(f"ip netns exec router {program} r0 {mac} {world.SERVER_IP} {world.PORT} {rate} {seconds}"))
        during = in_client("hello")
        time.sleep(3)
        clients.stdin.close()
        out, errors = clients.stdout.read(), clients.stderr.read()
        assert clients.wait(60) == 0, errors[-1500:]
        counts = json.loads(out.strip().splitlines()[-1])["per_second"]
        before, under = max(counts[1:4]), counts[6:5 + seconds - 1]
        cookies = broker.tcp("syn_cookies_sent")
        assert cookies > 0, "no cookie was needed, so this was no flood"
        held = broker.tcp("connections")
        assert held < 100, f"{held} connections"
    share = sum(under) / len(under) / before
    return (f"{sent / seconds:.0f} SYN/s: {share:.0%} of the rate before ({before}/s); a new client after {during['ms']} ms; "
            f"{cookies} cookies")


@scene
def idle(stage):
    """A broker nobody uses costs next to nothing."""
    with stage.broker() as broker:
        time.sleep(2)
        seconds = 20 if stage.full else 5
        before = broker.cpu_s()
        time.sleep(seconds)
        share = (broker.cpu_s() - before) / seconds
        assert share < 0.1, f"{share:.1%} of a core"
    return f"{share:.1%} of a core"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=str(REPO / "build" / "peregrine"))
    parser.add_argument("--scene", default=",".join(SCENES))
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    options.server = str(pathlib.Path(options.server).resolve())
    names = options.scene.split(",")
    for name in names:
        if name not in SCENES:
            raise SystemExit(f"run.py: no scene {name}; there are {', '.join(SCENES)}")
    world.enter()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="peregrine-dpdk-") as folder:
        stage = Stage(options.server, options.full, pathlib.Path(folder))
        for name in names:
            started = time.monotonic()
            try:
                text = SCENES[name](stage)
                passed += 1
                print(f"ok {name}: {text} ({time.monotonic() - started:.0f} s)", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAIL {name}: {error or type(error).__name__}", flush=True)
                traceback.print_exc()
                log = stage.folder / f"broker{stage.brokers}" / "server.log"
                if log.exists():
                    print("\n".join(log.read_text(errors="replace").splitlines()[-15:]), file=sys.stderr)
                stage.world.lose(0)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
