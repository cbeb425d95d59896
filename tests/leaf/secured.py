"""Leafnode links with TLS."""

import json
import os
import signal
import socket
import ssl

from pairs import alone, pair
from servers import HOST, Client, Link, Node, barrier, check, url, version
from broker import Broker, StartError, until
from certificates import Certificates


def leafnode_row(node):
    rows = [row for row in node.get_json("/connz?auth=1").get("connections") or [] if row.get("kind") == "Leafnode"]
    check(len(rows) == 1, f"{len(rows)} leafnodes in /connz")
    return rows[0]


def large_payloads(link):
    payload = (b"compress me " * 40 + os.urandom(64)) * 300
    for receiver, sender in link.sides():
        receiver.sub("big.*")
        barrier(receiver, sender)
        for n in range(5):
            sender.pub(f"big.{n}", payload[n:])
        got = [message.payload for message in barrier(receiver, sender)]
        check(got == [payload[n:] for n in range(5)], f"{len(got)} payloads, or others")


@pair
def tls_both_ways(hub, leaf):
    """Both show certificates; by name, which is compressed as well, and by address, which is not."""
    with Certificates() as certificates:
        for host, compression in (("localhost", "s2_fast"), (HOST, "off")):
            own = certificates.block("leaf", "timeout: 20")
            compressed = "" if "2.9" in version(hub) or "2.9" in version(leaf) else f"compression: {compression}"
            with Node(hub, leaf=certificates.block("hub", "verify: true, timeout: 20") + f"\n{compressed}") as at:
                remote = f'url: "nats://{host}:{at.leaf_port}", {own}' + (f", {compressed}" if compressed else "")
                with Node(leaf, listen=False, remotes=[remote]) as spoke:
                    at.linked()
                    spoke.linked()
                    if compressed:
                        check(until(lambda: at.leafs()[0].get("compression") == compression), f"{at.leafs()}")
                    link = Link.of(at, spoke)
                    large_payloads(link)
                    for node in (at, spoke):
                        if "2.9" in version(node.binary):
                            continue  # lists clients only
                        row = leafnode_row(node)
                        check(row.get("tls_version") == "1.3", f"tls_version {row.get('tls_version')}")
                        check(row.get("tls_cipher_suite", "").startswith("TLS_"), f"{row.get('tls_cipher_suite')}")
                        check(not row.get("tls_first"), "tls_first")
                        shown = row["tls_peer_certs"]
                        name = "leaf" if node is at else "hub"
                        check([each["subject"] for each in shown] == [f"CN={name},O=Test"], f"{shown}")
                        check(shown[0]["spki_sha256"] == certificates.pin(name), f"{shown}")
                    options = at.get_json("/varz")["leaf"]
                    check(options.get("tls_required") and options.get("tls_verify") and options["tls_timeout"] == 20, f"{options}")
                    check(options["auth_timeout"] == 21, f"{options}")


@pair
def tls_before_info(hub, leaf):
    if "2.9" in version(hub) or "2.9" in version(leaf):
        return  # knows no handshake_first
    with Certificates() as certificates:
        with Link(hub, leaf, hub_leaf=certificates.block("hub", "handshake_first: true"),
                  remote=certificates.trust("handshake_first: true")) as link:
            check(leafnode_row(link.hub).get("tls_first") is True, "tls_first")
            large_payloads(link)


@pair
def tls_first_or_later(hub, leaf):
    """A hub that waits a moment for the handshake and then sends INFO in clear takes both kinds."""
    if "2.9" in version(hub) or "2.9" in version(leaf):
        return
    with Certificates() as certificates:
        with Node(hub, leaf=certificates.block("hub", 'handshake_first: "300ms"')) as at:
            for first in ("true", "false"):
                with Node(leaf, listen=False, remotes=[url(at) + ", " + certificates.trust(f"handshake_first: {first}")]):
                    at.linked()
                    # Under load even the eager one may come too late.
                    if first == "false":
                        check(not leafnode_row(at).get("tls_first"), "tls_first")
                at.linked(0)


def refused(hub, leaf, hub_tls, remote_tls, at_hub=None, at_leaf=None):
    """No link comes of it, and the logs say why."""
    with Node(hub, leaf=hub_tls) as at:
        with Node(leaf, listen=False, remotes=[url(at) + ", " + remote_tls], leaf="reconnect: 1") as spoke:
            for node, text in ((at, at_hub), (spoke, at_leaf)):
                if text:
                    check(until(lambda node=node, text=text: text in node.log(), 10), f"no {text!r} in: {node.log_tail()}")
            check(at.leafs() == [] and spoke.leafs() == [], "a link")
            if at_hub:
                check(until(lambda: "TLS Handshake Failure" in at.log(), 10), at.log_tail())


@pair
def tls_strangers_are_refused(hub, leaf):
    with Certificates() as ours, Certificates() as theirs:
        failed = "TLS leafnode handshake error: "
        unknown = "x509: certificate signed by unknown authority"
        # An OpenSSL client says so in clear, which Go takes for a bad record.
        refused(hub, leaf, ours.block("hub"), theirs.trust(), failed, unknown)
        refused(hub, leaf, ours.block("hub", "verify: true"), theirs.block("leaf").replace(theirs.authority, ours.authority),
                unknown)
        refused(hub, leaf, ours.block("hub", "verify: true"), ours.trust(), "tls: client didn't provide a certificate")
        elsewhere = ours.block("elsewhere", names="DNS:elsewhere.test,IP:10.1.2.3")
        refused(hub, leaf, elsewhere, ours.trust(), failed,
                "x509: certificate is valid for 10.1.2.3, not 127.0.0.1")


@pair
def tls_pinned_certificates(hub, leaf):
    with Certificates() as certificates:
        hub_tls = certificates.block("hub", f'verify: true, pinned_certs: ["{certificates.pin("leaf")}"]')
        with Link(hub, leaf, hub_leaf=hub_tls, remote=certificates.block("leaf")):
            pass
        refused(hub, leaf, hub_tls, certificates.block("other"), "TLS leafnode handshake error: certificate not pinned")


@pair
def tls_on_one_side_only(hub, leaf):
    """A remote that wants TLS does not go on without."""
    with Certificates() as certificates:
        with Node(hub) as at, Node(leaf, listen=False, remotes=[url(at) + ", " + certificates.trust()], args=["-D"],
                                   leaf="reconnect: 1") as spoke:
            check(until(lambda: "first record does not look like a TLS handshake" in spoke.log(), 10), spoke.log_tail())
            check(at.leafs() == [] and spoke.leafs() == [], "a link")


@pair
def tls_links_heal(hub, leaf):
    with Certificates() as certificates:
        with Link(hub, leaf, hub_leaf=certificates.block("hub"), remote=certificates.trust()) as link:
            port = link.hub.leaf_port
            link.hub.stop()
            link.leaf.linked(0)
            link.hub = Node(hub, leaf=certificates.block("hub"), leaf_port=port)
            link.hub.linked()
            link.leaf.linked()
            large_payloads(link)


@alone
def certificates_are_renewed(server):
    """SIGHUP: who connects from now on is shown the new certificate, who is there stays; a broken file changes nothing."""
    with Certificates() as certificates:
        context = ssl.create_default_context(cafile=certificates.authority)
        with Node(server, f'{certificates.block("own")}\n', leaf=certificates.block("own")) as node:
            def shown(port):
                with socket.create_connection((HOST, port), timeout=30) as sock:
                    while sock.recv(1) != b"\n":  # INFO
                        pass
                    with context.wrap_socket(sock, server_hostname="localhost") as tls:
                        return tls.getpeercert()["serialNumber"]
            with socket.create_connection((HOST, node.port), timeout=30) as sock:
                while sock.recv(1) != b"\n":
                    pass
                with context.wrap_socket(sock, server_hostname="localhost") as tls:
                    before = [shown(node.port), shown(node.leaf_port)]
                    certificates.renew("own")
                    node.process.send_signal(signal.SIGHUP)
                    renewed = until(lambda: {shown(node.port), shown(node.leaf_port)}.isdisjoint(before)
                                    and [shown(node.port), shown(node.leaf_port)], 10)
                    check(renewed, f"still {before}")
                    tls.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
                    check(tls.recv(64) == b"PONG\r\n", "no PONG on the connection that was there")
            with open(certificates.path("own.pem"), "w", encoding="ascii") as file:
                file.write("nothing\n")
            node.process.send_signal(signal.SIGHUP)
            check(until(lambda: "failed to find any PEM data" in node.log(), 10), node.log_tail())
            check([shown(node.port), shown(node.leaf_port)] == renewed, "other certificates")


@alone
def tls_visitors(server):
    """INFO in clear, then nothing but a handshake; who does none is sent away."""
    with Certificates() as certificates:
        with Node(server, leaf=certificates.block("hub", "verify: true, timeout: 0.5"), args=["-D"]) as node:
            with socket.create_connection((HOST, node.leaf_port), timeout=30) as sock:
                file = sock.makefile("rb")
                info = json.loads(file.readline()[5:])
                check(info["tls_required"] is True and info["tls_verify"] is True, f"{info}")
                sock.sendall(b'CONNECT {"version":"2.15.1"}\r\nPING\r\n')
                try:
                    rest = file.read()
                except ConnectionResetError:
                    rest = b""
                check(b"PONG" not in rest and b"LS+" not in rest, f"{rest}")
            check(until(lambda: "first record does not look like a TLS handshake" in node.log(), 10), node.log_tail())
            with socket.create_connection((HOST, node.leaf_port), timeout=30) as sock:
                file = sock.makefile("rb")
                file.readline()
                file.read()  # until it is cut off
            # nats-server's timer and its reader may both see it.
            check(until(lambda: "TLS handshake timeout" in node.log() or "i/o timeout" in node.log(), 10), node.log_tail())
            check(node.leafs() == [], "somebody stayed")
            with Client(node) as client:
                client.sync()


@alone
def tls_wrong_files_are_refused(server):
    with Certificates() as certificates:
        good = certificates.block("a")
        certificates.pair("b")
        for wrong, text in {
            good.replace("a.pem", "none.pem", 1): f"open {certificates.path('none.pem')}: no such file or directory",
            good.replace("a-key.pem", "b-key.pem"): "tls: private key does not match public key",
            good.replace(f', key_file: "{certificates.path("a")}-key.pem"', ""): "missing 'key_file' in TLS configuration",
            certificates.block("a", 'cipher_suites: ["NONE"]'): "unrecognized cipher NONE",
            certificates.block("a", 'curve_preferences: ["NONE"]'): "unrecognized curve preference NONE",
        }.items():
            for place in ("leafnodes {{ port: -1\n {} }}", 'leafnodes {{ remotes: [ {{ url: "nats://127.0.0.1:1",\n {} }} ] }}',
                          "gateway {{ name: a, port: -1\n {} }}", "cluster {{ port: -1\n {} }}"):
                config = place.format(wrong)
                for args in ([], ["-t"]):
                    try:
                        Broker(server, config, args).stop()
                        raise AssertionError(f"started: {config}")
                    except StartError as error:
                        check(text in str(error), f"{config}: {error}")
                        check("test.conf:5:" in str(error), f"where the tls block stands: {error}")
