"""The floor below any TCP over DPDK here: DPDK's own forwarder (testpmd, MAC addresses swapped) at the end of the cable, frames
of one size poured in by a raw socket. What a frame costs in and out is driver and kernel, before a byte of TCP.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from . import wire

SECONDS = 3
FLOOD = Path(__file__).resolve().parents[2] / "tests" / "net" / "dpdk" / "flood.cc"


def _link(where: list[str], name: str) -> Any:
    # Not /sys: it shows the namespace it was mounted in.
    text = subprocess.run([*where, "ip", "-s", "-j", "link", "show", name], capture_output=True, text=True, check=True).stdout
    return json.loads(text)[0]


def _received() -> int:
    return int(_link([], wire.NEAR)["stats64"]["rx"]["packets"])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sizes() -> tuple[int, ...]:
    """The smallest, and a full one; longer ones are more than testpmd's buffers hold."""
    return (58, 1514) if wire.mtu == 1500 else ()


def floor(driver: str, frame_bytes: int) -> str:
    """One line: how many frames a second went in and came back, and the forwarder's CPU for each."""
    testpmd = shutil.which("dpdk-testpmd")
    if not testpmd:
        return f"raw frames, {driver}, {frame_bytes} B: no dpdk-testpmd (package dpdk-dev)"
    wire.occupy(driver)
    device = f"net_{driver}0,iface={wire.FAR}"
    command = [*wire.prefix(), testpmd, "--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--file-prefix", f"floor{os.getpid()}"]
    command += ["-l", "0,1", "--vdev", device, "--", "--forward-mode=macswap", "--auto-start", "--total-num-mbufs=16384"]
    with tempfile.TemporaryDirectory() as folder:
        flood = Path(folder) / "flood"
        subprocess.run(["c++", "-std=c++20", "-O2", "-o", str(flood), str(FLOOD)], check=True)
        with open(Path(folder) / "log", "wb") as log:
            # It ends with its input.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        try:
            time.sleep(3)
            if process.poll() is not None:
                return f"raw frames, {driver}, {frame_bytes} B: testpmd ended: {(Path(folder) / 'log').read_text(errors='replace')[-300:]}"
            mac = str(_link(wire.prefix(), wire.FAR)["address"])
            before, cpu, started = _received(), _cpu_s(process.pid), time.monotonic()
            sent = subprocess.run(
                [str(flood), wire.NEAR, mac, wire.SERVER, wire.PORT, "100000000", str(SECONDS), str(frame_bytes)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[0]
            took = time.monotonic() - started
            back, spent = _received() - before, _cpu_s(process.pid) - cpu
        finally:
            if process.stdin:
                process.stdin.close()
            process.wait(30)
    each = spent / back * 1e9 if back else 0
    return (
        f"raw frames, {driver}, {frame_bytes} B: {int(sent) / took / 1e3:.0f} k/s sent, {back / took / 1e3:.0f} k/s came back, "
        f"{each:.0f} ns of CPU for each in and out ({spent / took:.0%} of a core; it spins)"
    )
