"""How clients reach a broker that run.py starts: over loopback, or over DPDK on a cable of its own (a veth pair or a TAP device).
Also for ../conversation/run.py.

A Wire says where the broker listens, from which address its clients come, and what it must be told on the command line and
in its configuration. The kernel's TCP is on the clients' side either way.
"""

import itertools
import os
import subprocess

DRIVERS = ("af_packet", "af_xdp", "tap")


class Loopback:
    host = client_ip = "127.0.0.1"
    own_tcp = False

    def arguments(self, port):
        return ["-a", self.host, "-p", str(port), "-m", "-1"]

    def config(self):
        return None

    def taken(self):
        pass

    def started(self):
        pass

    def left(self):
        pass

    def close(self):
        pass


class Cable:
    """A veth pair: one end for DPDK, without an address of the kernel's, the other for the clients. Or the two ends of a TAP device,
    which the broker makes when it starts and takes with it when it ends."""

    own_tcp = True

    def __init__(self, driver, number, queues):
        self.inner, self.outer = f"pgd{number}", f"pgk{number}"
        net = f"10.{128 + number // 250}.{number % 250}"
        self.host, self.client_ip = f"{net}.2", f"{net}.1"
        arguments = {"af_packet": f"net_af_packet0,iface={self.inner},qpairs={queues}",
                     "af_xdp": f"net_af_xdp0,iface={self.inner}",
                     "tap": f"net_tap0,iface={self.outer}"}
        self.device = arguments[driver]
        self.queues = queues
        self.tap = driver == "tap"
        if self.tap:
            return
        # The driver makes a number of 16 bits of its process's and the interface's for a group of sockets, and two alike cannot be:
        # interfaces whose lower 16 bits are 0 leave it to the process.
        run("ip", "link", "add", self.inner, "index", str((number + 1) << 16), "type", "veth", "peer", "name", self.outer)
        self.plug(self.inner)
        self.plug(self.outer)
        run("ip", "addr", "add", f"{self.client_ip}/24", "dev", self.outer)

    @staticmethod
    def plug(end):
        # Whole checksums and frames that fit the wire, as a card would send them.
        run("ethtool", "-K", end, "tx", "off", "gro", "off", "tso", "off", "gso", "off")
        run("ip", "link", "set", end, "up")

    def arguments(self, port):
        return ["-a", self.host, "-p", str(port)]

    def config(self):
        # Monitoring stays on the kernel.
        return (f'http: "127.0.0.1:-1"\nbackend: dpdk\n'
                f'dpdk {{ huge_pages: false, memory: 256MB, telemetry: false\n'
                f'  ports: [{{device: "{self.device}", queues: {self.queues}, addresses: ["{self.host}/24"]}}] }}\n')

    def taken(self):
        """A broker is about to start."""
        run("ip", "addr", "del", f"{self.host}/32", "dev", "lo", check=False)

    def started(self):
        """The broker is there, and clients may come."""
        if self.tap:
            self.plug(self.outer)
            run("ip", "addr", "add", f"{self.client_ip}/24", "dev", self.outer)

    def left(self):
        """The broker has ended. Its address is silent from then on, and to clients that is a machine switched off, not a
        broker stopped: connecting again takes until their timeout. So a kernel answers in its place, that nobody listens."""
        run("ip", "addr", "add", f"{self.host}/32", "dev", "lo", check=False)

    def close(self):
        self.taken()
        if not self.tap:
            run("ip", "link", "del", self.inner, check=False)


def run(*command, check=True):
    subprocess.run(command, check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Network:
    """Hands out wires. `over`: loopback, or dpdk:DRIVER[:QUEUES]."""

    def __init__(self, over):
        self.over = over
        self.numbers = itertools.count(1)  # suites run at the same time

    @property
    def separate(self):
        return self.over != "loopback"

    def wire(self):
        if not self.separate:
            return Loopback()
        words = self.over.split(":")
        return Cable(words[1], next(self.numbers), int(words[2]) if len(words) > 2 else 1)

    def enter(self, argv):
        """Goes on in a network namespace of its own, where this makes cables as it likes; returns there."""
        if not self.separate or os.environ.get("CLIENTS_NAMESPACE") == str(os.getpid()):
            if self.separate:
                run("ip", "link", "set", "lo", "up")
            return
        os.environ["CLIENTS_NAMESPACE"] = str(os.getpid())
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        os.execvp("unshare", ["unshare", "--net", *root, *argv])


def check(over):
    words = over.split(":")
    good = over == "loopback" or (words[0] == "dpdk" and len(words) in (2, 3) and words[1] in DRIVERS
                                  and all(word.isdigit() for word in words[2:]))
    if not good:
        raise SystemExit(f"run.py: --over is loopback, or dpdk:DRIVER[:QUEUES] with a driver of {', '.join(DRIVERS)}; not {over}")
    return over
