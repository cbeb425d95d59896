"""Hosts on a wire: a network namespace each, a bridge between them, and ways to cut the wire.

All of it inside a network and mount namespace of the runner's own (run.py starts it under unshare), so that nothing is left behind
and nothing meets anybody else's. A host has one name, known to all through a hosts file; a program started there sees it as
/etc/hosts, which is what `ip netns exec` does with /etc/netns/NAME/hosts.
"""

import contextlib
import ctypes
import os
import subprocess
import tempfile

from nodes import die_with_parent

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def sh(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Host:
    def __init__(self, world, number, name):
        self.world, self.number, self.name = world, number, name
        self.address = f"10.99.0.{number}"
        self.port = f"veth{number}"  # of the bridge, where this host's cable ends
        # It holds the namespace, and goes when we go.
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        self.holder.stdin.write(b"up\n")
        self.holder.stdin.flush()
        self.holder.stdout.readline()
        self.handle = os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY)
        sh("ip", "link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", str(self.holder.pid))
        sh("ip", "link", "set", self.port, "master", "wire")
        sh("ip", "link", "set", self.port, "up")
        for command in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up"), ("addr", "add", self.address + "/24", "dev", "eth0")):
            self.run("ip", *command)

    def run(self, *command):
        sh("nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *command)

    def command(self, command):
        """The same command, on this host."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "unshare", "--mount", "sh", "-c",
                f'mount --bind {self.world.hosts_file} /etc/hosts && exec "$0" "$@"', *command]

    @contextlib.contextmanager
    def entered(self):
        """This thread's new sockets are made on this host."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            if LIBC.setns(self.handle, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                LIBC.setns(own, CLONE_NEWNET)
        finally:
            os.close(own)


class World:
    def __init__(self, names):
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "wire", "type", "bridge")
        sh("ip", "link", "set", "wire", "up")
        self.directory = tempfile.TemporaryDirectory(prefix="world-")
        self.hosts_file = os.path.join(self.directory.name, "hosts")
        with open(self.hosts_file, "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n" + "".join(f"10.99.0.{i + 1} {name}\n" for i, name in enumerate(names)))
        self.hosts = [Host(self, i + 1, name) for i, name in enumerate(names)]
        self.drops = 0
        sh("nft", "add table bridge cut")
        sh("nft", "add chain bridge cut forward { type filter hook forward priority 0 ; }")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for host in self.hosts:
            os.close(host.handle)
            host.holder.stdin.close()
            host.holder.wait()
        sh("ip", "link", "del", "wire")
        sh("nft", "delete table bridge cut")
        self.directory.cleanup()

    def unplug(self, host):
        sh("ip", "link", "set", host.port, "down")

    def plug(self, host):
        sh("ip", "link", "set", host.port, "up")

    def drop(self, host, other=None):
        """Frames of this host (to and from `other`, or anybody) vanish on the way."""
        peers = [other] if other else [h for h in self.hosts if h is not host]
        for peer in peers:
            for one, two in ((host, peer), (peer, host)):
                sh("nft", f"add rule bridge cut forward iifname {one.port} oifname {two.port} drop")

    def heal(self):
        sh("nft", "flush chain bridge cut forward")
        for host in self.hosts:
            self.plug(host)
