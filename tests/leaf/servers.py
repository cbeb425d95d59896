"""Servers with leafnode links between them, the clients that look across a link, and a peer made by hand."""

import json
import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "conversation"))
from broker import Broker, StartError, Wire, free_port, until  # noqa: E402

HOST = "127.0.0.1"


class Node(Broker):
    """A server; `leaf_port` is where leafnodes connect, if it listens for them."""

    def __init__(self, binary, config="", args=(), listen=True, leaf_port=-1, leaf="", remotes=()):
        leaf_port = free_port() if leaf_port == -1 else leaf_port  # it must survive a restart of the server
        leafnodes = f'listen: "{HOST}:{leaf_port}"\n' if listen else ""
        if remotes:
            leafnodes += "remotes: [\n" + "\n".join(f"  {{ {remote} }}" for remote in remotes) + "\n]\n"
        text = f"leafnodes {{\n{leafnodes}{leaf}\n}}\n{config}\n"
        for last in (False, False, True):
            try:
                super().__init__(binary, text, args)
                break
            except StartError as error:
                # The kernel takes an io_uring apart after its process has gone: a killed server's port is free a moment later.
                if last or "already in use" not in str(error):
                    raise
                time.sleep(0.5)
        self.leaf_port = None
        if listen:
            found = until(lambda: re.search(r"Listening for leafnode connections on \S+:(\d+)", self.log()))
            if not found:
                raise AssertionError(f"no leafnode listener: {self.log_tail()}")
            self.leaf_port = int(found[1])

    def leafs(self):
        return self.get_json("/leafz?subs=1").get("leafs") or []

    def interest(self):
        """What its leafnode connections want, plain, without the servers' own subjects."""
        return sorted(subject for leaf in self.leafs() for subject in leaf.get("subscriptions_list") or []
                      if not subject.startswith(("$", "_GR_")))

    def linked(self, count=1, timeout_s=15):
        if not until(lambda: len(self.leafs()) == count, timeout_s):
            raise AssertionError(f"{len(self.leafs())} leafnodes, not {count}: {self.log_tail()}")
        return self


def url(node, user=""):
    return f'url: "nats://{user}{HOST}:{node.leaf_port}"'


class Message:
    def __init__(self, subject, reply, header, payload):
        self.subject, self.reply, self.header, self.payload = subject, reply, header, payload


class Client(Wire):
    """A client that reads whole messages."""

    def __init__(self, node, user=None, timeout_s=10.0):
        login = f',"user":"{user}","pass":"{user}"' if user else ""
        super().__init__(node, '{"verbose":false,"pedantic":false,"headers":true,"no_responders":true' + login + "}",
                         timeout_s)
        self.sids = 0
        self.kept = []  # messages that came while something else was waited for

    def sub(self, subject, queue=""):
        self.sids += 1
        self.send(f"SUB {subject} {queue + ' ' if queue else ''}{self.sids}\r\n".encode())
        return self.sids

    def unsub(self, sid):
        self.send(f"UNSUB {sid}\r\n".encode())

    def pub(self, subject, payload=b"", reply="", header=b""):
        if isinstance(payload, str):
            payload = payload.encode()
        reply = reply + " " if reply else ""
        if header:
            self.send(f"HPUB {subject} {reply}{len(header)} {len(header) + len(payload)}\r\n".encode() + header + payload
                      + b"\r\n")
        else:
            self.send(f"PUB {subject} {reply}{len(payload)}\r\n".encode() + payload + b"\r\n")

    def sync(self, timeout_s=None):
        self.send(b"PING\r\n")
        while message := self._next(timeout_s, pongs=True):
            self.kept.append(message)

    def message(self, timeout_s=None):
        """The next message; PONGs and INFO before it are passed over."""
        return self.kept.pop(0) if self.kept else self._next(timeout_s)

    def _next(self, timeout_s, pongs=False):
        while True:
            line = self.line(timeout_s).decode()
            words = line.split(" ")
            whole = line.encode() + b"\r\n"
            if pongs and line == "PONG":
                return None
            if words[0] == "MSG":
                size, header_size = int(words[-1]), 0
            elif words[0] == "HMSG":
                size, header_size = int(words[-1]), int(words[-2])
            elif words[0] in ("PONG", "INFO"):
                continue
            else:
                raise AssertionError(f"expected a message, got {line!r}")
            end = time.monotonic() + (timeout_s or self.timeout_s)
            try:
                while len(self.buffer) < size + 2:
                    self._fill(end)
            except AssertionError:
                self.buffer = whole + self.buffer  # the rest comes later
                raise
            body, self.buffer = self.buffer[:size], self.buffer[size + 2:]
            count = 5 if words[0] == "HMSG" else 4
            reply = words[3] if len(words) > count else ""
            return Message(words[1], reply, body[:header_size], body[header_size:])

    def expect_message(self, subject, payload, timeout_s=None):
        message = self.message(timeout_s)
        if isinstance(payload, str):
            payload = payload.encode()
        if message.subject != subject or message.payload != payload:
            raise AssertionError(f"expected {subject} {payload[:60]!r}, got {message.subject} {message.payload[:60]!r}")
        return message


BARRIERS = [0]


def barrier(receiver, sender):
    """Everything `receiver` has subscribed reached the sender's server, and everything the sender has published has come:
    interest and messages of one link keep their order. Returns the messages that came on the way."""
    BARRIERS[0] += 1
    subject = f"barrier.{os.getpid()}.{BARRIERS[0]}"
    sid = receiver.sub(subject)
    receiver.sync()
    seen = []
    end = time.monotonic() + 15
    count = 0
    while True:
        count += 1
        sender.pub(subject, str(count))
        sender.sync()
        try:
            while True:
                message = receiver.message(0.05)
                if message.subject != subject:
                    seen.append(message)
                    continue
                # Everything up to the last one sent must have come before we go on.
                if message.payload == str(count).encode():
                    receiver.unsub(sid)
                    receiver.sync()
                    return seen
        except AssertionError:
            if time.monotonic() > end:
                raise AssertionError("nothing crosses the link") from None


def check(condition, message):
    if not condition:
        raise AssertionError(message)


class Link:
    """A hub, a leaf connected to it, and a client on each."""

    def __init__(self, hub, leaf, hub_leaf="", remote="", hub_config="", leaf_config="", user=""):
        self.hub = Node(hub, hub_config, leaf=hub_leaf)
        self.leaf = None
        try:
            self.leaf = Node(leaf, leaf_config, listen=False, remotes=[url(self.hub, user) + (", " + remote if remote else "")])
            self.hub.linked()
            self.leaf.linked()
            self.at_hub = Client(self.hub)
            self.at_leaf = Client(self.leaf)
        except Exception:
            self.stop()
            raise

    @classmethod
    def of(cls, hub, leaf):
        """Of servers that are linked already; whoever made them stops them."""
        link = cls.__new__(cls)
        link.hub, link.leaf = hub, leaf
        return link

    def sides(self):
        """(receiver, sender) in both directions, each time new clients."""
        for nodes in ((self.hub, self.leaf), (self.leaf, self.hub)):
            check(until(lambda: self.hub.interest() == self.leaf.interest() == []), "interest of clients that have gone")
            with Client(nodes[0]) as receiver, Client(nodes[1]) as sender:
                yield receiver, sender

    def stop(self):
        for node in (self.leaf, self.hub):
            if node:
                node.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Members:
    """Servers of one cluster, started one after the other; stopped together."""

    def __init__(self, name):
        self.name = name
        self.nodes = []
        self.routes = []

    def add(self, binary, **more):
        port = free_port()
        routes = ", ".join(f'"nats-route://{HOST}:{each}"' for each in self.routes)
        node = Node(binary, f'cluster {{ name: "{self.name}", listen: "{HOST}:{port}", routes: [{routes}] }}', **more)
        self.routes.append(port)
        self.nodes.append(node)
        return node

    def formed(self):
        for node in self.nodes:
            check(until(lambda: node.get_json("/routez")["num_routes"] >= len(self.nodes) - 1, 15), "no routes")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.stop()


class Raw:
    """A peer made by hand."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(8)
        self.buffer = b""

    def send(self, text):
        self.sock.sendall(text.replace("\n", "\r\n").encode())

    def line(self):
        while b"\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode()

    def until(self, word):
        """Lines up to the one that contains `word`, which is the last; PINGs are answered."""
        lines = []
        while True:
            lines.append(self.line())
            if lines[-1] == "PING":
                self.send("PONG\n")
            if word in lines[-1]:
                return lines

    def closed(self):
        rest = self.buffer
        try:
            while data := self.sock.recv(65536):
                rest += data
        except ConnectionError:
            pass
        return rest.decode()


def solicit(node, connect='{"version":"2.15.1","server_id":"NX","name":"raw","cluster":"RAW","headers":true,"protocol":3}'):
    raw = Raw(socket.create_connection((HOST, node.leaf_port)))
    info = json.loads(raw.line()[5:])
    if connect:
        raw.send(f"CONNECT {connect}\n")
    return raw, info


VERSIONS = {}


def version(binary):
    if binary not in VERSIONS:
        VERSIONS[binary] = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10).stdout
    return VERSIONS[binary]


def is_old(*binaries):
    return any("2.9" in version(binary) for binary in binaries)
