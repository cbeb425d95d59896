"""A small network for one broker over DPDK: namespaces, cables, a router that loses packets, and clients of sockets.

    client (kernel) 10.66.1.2 -- 10.66.1.1 router (kernel) 10.66.0.1 -- 10.66.0.2 broker (DPDK)

The router drops a share of what it forwards (nft), each packet by chance. Everything lives in a mount and network namespace
of its own (see enter()) and goes with it.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

SERVER_IP = "10.66.0.2"
PORT = 4222
READY_S = 60


def enter():
    """Goes on as root of namespaces of our own."""
    if os.environ.get("DPDK_WORLD") == str(os.getpid()):
        sh("mkdir -p /run/netns && mount -t tmpfs none /run/netns && mount --make-rshared /run/netns 2>/dev/null || true")
        sh("ip link set lo up")
        return
    os.environ["DPDK_WORLD"] = str(os.getpid())
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *root, sys.executable, "-B", *sys.argv])


def sh(command, check=True):
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout


class World:
    def __init__(self):
        for name in ("client", "router", "server"):
            sh(f"ip netns add {name}; ip -n {name} link set lo up")
        self.cable("client", "router", "c0", "r1")
        self.cable("router", "server", "r0", "s0")
        sh("ip -n client addr add 10.66.1.2/24 dev c0; ip -n client route add default via 10.66.1.1;"
           "ip -n router addr add 10.66.1.1/24 dev r1; ip -n router addr add 10.66.0.1/24 dev r0;"
           "ip netns exec router sysctl -qw net.ipv4.ip_forward=1")
        # Comparisons want the same congestion control on both sides: CUBIC, or what is nearest of what namespaces may use.
        for space in ("client", "server"):
            for control in ("cubic", "reno"):
                self.control = control
                if "ok" in sh(f"ip netns exec {space} sysctl -qw net.ipv4.tcp_congestion_control={control} && echo ok", False):
                    break

    @staticmethod
    def cable(one, other, name, other_name):
        sh(f"ip link add {name} netns {one} type veth peer name {other_name} netns {other}")
        for space, end in ((one, name), (other, other_name)):
            # Whole checksums and frames that fit the wire, as a card would send them.
            sh(f"ip netns exec {space} ethtool -K {end} tx off gro off tso off gso off; ip -n {space} link set {end} up")

    @staticmethod
    def sink():
        """A second cable of the router's, and the MAC of nobody at its far end."""
        if "x0" not in sh("ip -n router -br link", False):
            World.cable("router", "server", "x0", "x1")
        return "x0", "02:00:00:00:00:99"

    @staticmethod
    def leave_to_driver(name, on=True):
        """What a driver reads from an interface, the kernel need not look at as well: it would look for a route for every frame, at
        the sender's expense. Drivers have their copy before this."""
        sh("ip netns exec server nft delete table netdev unseen", False)
        if on:
            sh("ip netns exec server nft 'table netdev unseen { chain ingress { "
               f"type filter hook ingress device {name} priority 0; policy drop; }}; }}'")

    def lose(self, percent):
        sh("ip netns exec router nft flush ruleset")
        if percent:
            sh("ip netns exec router nft 'table ip lossy { chain forward { type filter hook forward priority 0; "
               f"numgen random mod 1000 < {int(percent * 10)} drop; }}; }}'")


class Broker:
    """One broker in the server's namespace: over DPDK, or over the kernel (backend None) to compare with."""

    def __init__(self, program, folder, device="net_af_packet0,iface=s0", queues=1, shards=1, config="", backend="dpdk",
                 port=f'addresses: ["{SERVER_IP}/24"], gateway: "10.66.0.1"', memory="huge_pages: false, memory: 512MB",
                 listen="0.0.0.0"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path = self.folder / "server.log"
        text = f'listen: "{listen}:{PORT}"\nhttp: "127.0.0.1:8222"\nshards: {shards}\n{config}\n'
        if backend == "dpdk":
            telemetry = "" if "telemetry" in memory else ", telemetry: false"
            text += (f'dpdk {{ {memory}{telemetry}\n ports: [{{device: "{device}", queues: {queues}, {port}}}] }}\n')
            World.leave_to_driver("s0")
        else:
            text += f"backend: {backend}\n"
            World.leave_to_driver("s0", False)
            sh(f"ip -n server addr add {SERVER_IP}/24 dev s0; ip -n server route add default via 10.66.0.1")
        self.kernel = backend != "dpdk"
        path = self.folder / "server.conf"
        path.write_text(text)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", "server", program, "-c", str(path)], stdout=log,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while "Server is ready" not in self.log():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"broker did not start: {self.log()[-2000:]}")
            time.sleep(0.05)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def varz(self):
        text = sh("ip netns exec server python3 -c \"import urllib.request as u; "
                  "print(u.urlopen('http://127.0.0.1:8222/varz', timeout=20).read().decode())\"")
        return json.loads(text)

    def dpdk(self):
        return self.varz()["peregrine"]["dpdk"]

    def tcp(self, name):
        return sum(shard["tcp"][name] for shard in self.dpdk()["shards"])

    def settle(self, name, wanted, seconds=20):
        """The number, once it is what is wanted, or after that time: monitoring is some 100 ms behind."""
        deadline = time.monotonic() + seconds
        while not wanted(number := self.tcp(name)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return number

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        if self.kernel:
            sh(f"ip -n server addr flush dev s0")
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.close()


@contextlib.contextmanager
def kernel_server(space, program, config, log, address):
    """Some server over the kernel's TCP in one of the namespaces."""
    with open(log, "wb") as out:
        process = subprocess.Popen(["ip", "netns", "exec", space, program, "-c", str(config)], stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S
        while "Server is ready" not in pathlib.Path(log).read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} at {address} did not start: {pathlib.Path(log).read_text()[-1500:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def client_command(space, code, arguments):
    return ["ip", "netns", "exec", space, sys.executable, "-B", str(pathlib.Path(__file__).with_name("clients.py")), code,
            *map(str, arguments)]


def in_client(code, *arguments, timeout=600, space="client", servers=None):
    """Runs clients.py's function in the client's namespace; its last line is JSON. `servers`: instead of the broker."""
    environment = {**os.environ, **({"SERVERS": ",".join(servers)} if servers else {})}
    done = subprocess.run(client_command(space, code, arguments), capture_output=True, text=True, timeout=timeout, env=environment)
    if done.returncode != 0:
        raise AssertionError(f"{code}: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def start_in_client(code, *arguments, space="client"):
    return subprocess.Popen(client_command(space, code, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
