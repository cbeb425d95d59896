"""What a gateway says to a peer that does not behave, and puts up with."""

import json
import socket

from broker import free_port, until
from cases import RawPeer, case
from nodes import HOST, Cluster, Node
from registry import check, equal

INFO = {"server_id": "NRAW", "server_name": "rawserver", "version": "2.10.0", "host": HOST, "headers": True, "max_payload": 1 << 20,
        "gateway": "raw", "gateway_nrp": True, "gateway_iom": True}
CONNECT = 'CONNECT {"verbose":false,"pedantic":false,"name":"NRAW","gateway":"raw"}'


class Visitor:
    """Connects to a gateway's port; introduces itself if asked to."""

    def __init__(self, port, listener, introduced):
        self.sock = socket.create_connection((HOST, port), timeout=30)
        self.file = self.sock.makefile("rb")
        self.info = json.loads(self.file.readline()[5:])
        if introduced:
            # The cluster it says it is of exists, for whoever dials it.
            urls = [f"{HOST}:{listener.getsockname()[1]}"]
            info = {**INFO, "port": listener.getsockname()[1], "gateway_urls": urls, "gateway_url": urls[0]}
            self.say(CONNECT, "INFO " + json.dumps(info), "PING")
            self.until("PONG")

    def say(self, *lines):
        self.sock.sendall("".join(line + "\r\n" for line in lines).encode())

    def until(self, word):
        lines = []
        while not lines or not lines[-1].startswith(word):
            line = self.file.readline().decode()
            check(line, f"closed after {lines}")
            lines.append(line.rstrip("\r\n"))
        return lines

    def rest(self):
        """What comes until it is cut off."""
        got = b""
        try:
            while line := self.file.readline():
                got += line
        except ConnectionResetError:
            pass
        return got.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()


@case(short=True, mixes=(["P"], ["P", "N"]))
def visitors_word_for_word(mix):
    port = free_port()
    gateway = f'gateway {{ name: c1, listen: "{HOST}:{port}", authorization {{ user: gw, password: pw }} }}'
    with socket.create_server((HOST, 0)) as listener, Cluster([mix[0][0]], extra=gateway) as cluster:
        node = cluster.start()[0]
        # Whoever begins with anything but CONNECT.
        for line in ("PING", "PONG", "+OK", "INFO {}", "RS+ $G foo", "RMSG $G foo 1", "GARBAGE"):
            with Visitor(port, listener, False) as visitor:
                visitor.say(line)
                equal([each for each in visitor.rest().splitlines() if each != "PING"], ["-ERR 'Authorization Violation'"], f"after {line}")
        check(until(lambda: node.log().count(" - authentication error") >= 7, 5), node.log_tail())
        with Visitor(port, listener, False) as visitor:
            visitor.say(CONNECT.replace("{", '{"user":"gw","pass":"wrong",'))
            check("-ERR 'Authorization Violation'" in visitor.rest(), "a wrong password")
        check(until(lambda: 'authentication error - User "gw"' in node.log(), 5), node.log_tail())
    with socket.create_server((HOST, 0)) as listener, Cluster([mix[0][0]], extra=f'gateway {{ name: c1, listen: "{HOST}:{port}" }}') as cluster:
        node = cluster.start()[0]
        # Interest goes the other way only. (A+ ends nats-server itself.)
        for verb in ("RS+", "RS-", "A+", "A-")[:4 if mix[0][0].own else 2]:
            with Visitor(port, listener, True) as visitor:
                visitor.say(f"{verb} $G foo" if verb[0] == "R" else f"{verb} $G")
                check("-ERR" not in visitor.rest(), f"{verb} is answered")
            check(until(lambda verb=verb: f"Received {verb} from gateway on inbound connection" in node.log(), 5), node.log_tail())
        check(until(lambda: "Gateway connection closed: Protocol Violation - Remote: rawserver" in node.log(), 5), node.log_tail())
        for line, closed in {"LS+ foo": "Protocol Violation", "LMSG foo 1\r\nx": "Protocol Violation", "-ERR 'go away'": "Parse Error"}.items():
            with Visitor(port, listener, True) as visitor:
                before = node.log().count(f"Gateway connection closed: {closed}")
                visitor.say(line)
                equal("-ERR 'Unknown Protocol Operation'" in visitor.rest(), line[0] == "L", f"an answer to {line}")
                check(until(lambda: node.log().count(f"Gateway connection closed: {closed}") > before, 5), node.log_tail())
        check(until(lambda: "Gateway Error 'go away'" in node.log(), 5), node.log_tail())
        check("Gateway parser ERROR, state=0, i=0: proto='\"LS+ foo\\r\"...'" in node.log(), node.log_tail())


@case(short=True, mixes=(["P"], ["P", "N"]))
def interest_nobody_can_have(mix):
    """A subject that is none is passed over; the connection goes on."""
    peer = RawPeer(iom=True)
    gateway = f'gateway {{ name: c1, listen: "{HOST}:{free_port()}", gateways: [ {{ name: raw, url: "nats://{HOST}:{peer.port}" }} ] }}'
    with Cluster([mix[0][0]], extra=gateway) as cluster:
        try:
            node = cluster.start()[0]
            peer.accept()
            peer.command(2)
            peer.say("RS+ $G a..b", "RS+ $G good")
            peer.command(3)
            peer.settled()
            client = cluster.client(0)
            client.publish("good", b"x")
            equal(peer.until("RMSG")[-1], "RMSG $G good 1", "what is wanted")
            at = f'explicit gateway "raw" ({HOST}:{peer.port}) at {HOST}:{peer.port} (attempt 1)'
            check(until(lambda: f"Connecting to {at}" in node.log(), 5), node.log_tail())
        finally:
            peer.close()


@case(short=True, mixes=(["P"], ["P", "N"]))
def a_gateway_makes_a_cluster(mix):
    """Who has a gateway and no cluster block is a cluster of that name all the same: to clients, to leafnodes and on its pages."""
    leafs = free_port()
    system = "" if mix[0][0].own else 'accounts { "$SYS": { users: [ { user: sys, password: sys } ] } }\nsystem_account: "$SYS"\n'
    node = Node("alone", mix[0][0])
    try:
        node.config = (f'{system}listen: "{HOST}:{node.port}"\nhttp: "{HOST}:{node.monitor_port}"\n'
                       f'gateway {{ name: c1, listen: "{HOST}:{free_port()}" }}\nleafnodes {{ listen: "{HOST}:{leafs}" }}\n')
        node.start()
        equal(node.get_json("/varz")["cluster"].get("name"), "c1", "cluster.name of /varz")
        for port in (node.port, leafs):
            with socket.create_connection((HOST, port), timeout=30) as sock, sock.makefile("rb") as file:
                equal(json.loads(file.readline()[5:]).get("cluster"), "c1", "cluster of INFO")
    finally:
        node.remove()
