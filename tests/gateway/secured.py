"""Gateways, and the routes behind them, with TLS."""

import contextlib
import random
import socket

from broker import until
from cases import case, places
from certificates import Certificates
from nodes import HOST, Cluster
from registry import check, equal
from supercluster import SuperCluster


def with_certificates(world, certificates, more="", routes=False):
    """Every node shows a certificate of its own."""
    for i, cluster in enumerate(world.clusters):
        for j in range(len(cluster)):
            block = certificates.block(f"c{i + 1}n{j + 1}", f"timeout: 20{more}")
            cluster.extra[j] = cluster.extra[j].replace("#tls", block)
            if routes:
                cluster.options[j] = block
    return world


def large_payloads(world, mix):
    readers = [world.client(i, j, echo=False) for i, j in places(mix)]
    subs = [client.sub("t.large") for client in readers]
    for i in range(len(mix)):
        world.wait_for_interest(i, "t.large")
    chance = random.Random(1)
    payloads = [chance.randbytes(size) for size in (0, 1, 16384, 100_000, 1 << 20)]
    for number, client in enumerate(readers):
        for payload in payloads:
            client.publish("t.large", payload, reply=f"from.{number}")
    for number, sub in enumerate(subs):
        wanted = (len(readers) - 1) * len(payloads)
        equal(len(sub.wait(wanted)), wanted, f"messages at {places(mix)[number]}")
        for sender in set(range(len(readers))) - {number}:
            check([m.payload for m in sub.messages if m.reply == f"from.{sender}"] == payloads, f"from {sender} to {number}: others")


@case(short=True, mixes=(["PP/NN", "D/P"], ["PP/NN", "NN/PP", "D/P", "P/D", "P/P", "PN/NP"]))
def tls_between_clusters(mix):
    """Gateways and routes show certificates to each other, before they say anything; large messages cross both."""
    with Certificates() as certificates, SuperCluster(mix, options="#tls") as world:
        with_certificates(world, certificates, routes=True).start()
        large_payloads(world, mix)
        for i, j in places(mix):
            node = world.clusters[i][j]
            shown = node.get_json("/varz")
            for part in ("gateway", "cluster"):
                check(shown[part].get("tls_required") and shown[part].get("tls_verify"), f"{part} of {node.name}: {shown[part]}")
                equal(shown[part]["tls_timeout"], 20, f"{part} of {node.name}: tls_timeout")
            gateways = node.get_json("/gatewayz")
            connections = [each["connection"] for each in (gateways["outbound_gateways"] or {}).values()]
            connections += [row["connection"] for rows in (gateways["inbound_gateways"] or {}).values() for row in rows]
            check(connections and all(row.get("tls_version") == "1.3" and row.get("tls_cipher_suite") for row in connections),
                  f"{node.name}: {connections}")
        with socket.create_connection((HOST, world.gateway_ports[0][0]), timeout=30) as plain:
            plain.sendall(b'CONNECT {"gateway":"c2","name":"X"}\r\n')
            rest = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := plain.recv(65536):
                    rest += chunk
            check(b"INFO" not in rest, f"in clear: {rest[:100]}")
        check(until(lambda: "TLS gateway handshake error: tls: first record does not look like a TLS handshake"
                    in world.clusters[0][0].log(), 10), world.clusters[0][0].log_tail())
        world.formed()


@case(short=True, mixes=(["P/N", "N/P"], ["P/N", "N/P", "D/P", "P/P"]))
def tls_of_one_gateway(mix):
    """A block of a remote's own; by host name, which gossip's addresses are checked by, too."""
    with Certificates() as certificates, SuperCluster(mix, options="#tls") as world:
        for i, cluster in enumerate(world.clusters):
            names = f"DNS:c{i + 1}.test,DNS:localhost"  # no address
            block = certificates.block(f"c{i + 1}", "timeout: 20", names=names)
            other = certificates.block(f"towards-c{2 - i}", "timeout: 20", names="DNS:nobody")
            cluster.extra[0] = cluster.extra[0].replace("#tls", block).replace(f"nats://{HOST}", "nats://localhost")
            cluster.extra[0] = cluster.extra[0].replace(f"{{ name: c{2 - i}, ", f"{{ name: c{2 - i}, {other}, ")
        world.start()
        # The connection that is made again goes to the address the other side tells of itself.
        for cluster in world.clusters:
            cluster.restart(0, formed=False)
        world.formed()
        for i, cluster in enumerate(world.clusters):
            rows = (cluster[0].get_json("/gatewayz")["inbound_gateways"] or {})[f"c{2 - i}"]
            check(all(row["connection"].get("tls_version") for row in rows), f"{rows}")


@case(short=True, mixes=(["P/N", "D/P"], ["P/N", "N/P", "P/D", "D/P", "P/P"]))
def tls_strangers(mix):
    """Another authority, or none at all: no gateway comes of it, and the logs say why."""
    unknown = "TLS gateway handshake error: tls: failed to verify certificate: x509: certificate signed by unknown authority"
    old_unknown = "TLS gateway handshake error: x509: certificate signed by unknown authority"
    with Certificates() as ours, Certificates() as theirs, SuperCluster(mix, options="#tls") as world:
        for certificates, cluster in zip((ours, theirs), world.clusters):
            cluster.extra[0] = cluster.extra[0].replace("#tls", certificates.block("own", "timeout: 20"))
        world.start(formed=False)
        for cluster in world.clusters:
            log = cluster[0].log
            check(until(lambda log=log: unknown in log() or old_unknown in log(), 10), cluster[0].log_tail())
            check(until(lambda log=log: "TLS Handshake Failure" in log(), 10), cluster[0].log_tail())
            check(not cluster[0].get_json("/gatewayz")["outbound_gateways"], "a gateway")
    with Certificates() as ours, SuperCluster(mix, options="#tls") as world:
        world.clusters[0].extra[0] = world.clusters[0].extra[0].replace("#tls", ours.block("own", "timeout: 20"))
        world.start(formed=False)
        log = world.clusters[0][0].log
        check(until(lambda: "TLS gateway handshake error: " in log(), 10), world.clusters[0][0].log_tail())
        for cluster in world.clusters:
            check(not cluster[0].get_json("/gatewayz")["outbound_gateways"], "a gateway")


@case(short=True, mixes=(["P/N", "N/P"], ["P/N", "N/P", "P/D", "P/P"]))
def tls_of_known_urls(mix):
    """verify_cert_and_check_known_urls: the certificate of who connects must be for a host of the urls we have; passwords do not count."""
    check_urls = ", verify_cert_and_check_known_urls: true"
    for known in (True, False):
        options = "#tls\n authorization { user: gw, password: pw }"
        with Certificates() as certificates, SuperCluster(mix, options=options) as world:
            with_certificates(world, certificates, more=check_urls)
            for i, cluster in enumerate(world.clusters):
                # Certificates are for localhost and 127.0.0.1; only names count.
                if known:
                    cluster.extra[0] = cluster.extra[0].replace(f"nats://{HOST}", "nats://gw:wrong@LocalHost")
                elif i == 1:
                    cluster.extra[0] = cluster.extra[0].replace(check_urls, "")
            world.start(formed=known)
            if known:
                continue
            asked, asking = world.clusters[0][0], world.clusters[1][0]
            check(until(lambda: "Gateway connection closed: Authentication Failure" in asked.log(), 10), asked.log_tail())
            check(until(lambda: "Gateway Error 'Authorization Violation'" in asking.log(), 10), asking.log_tail())
            check(not asked.get_json("/gatewayz")["inbound_gateways"], "let in")


@case(short=True, mixes=(["PN"], ["PN", "NP", "PP"]))
def tls_of_known_routes(mix):
    """The same of routes."""
    for host, formed in (("localhost", True), (HOST, False)):
        with Certificates() as certificates, Cluster(mix[0]) as cluster:
            for index, known in enumerate(cluster.known):
                cluster.options[index] = certificates.block(f"n{index}", "timeout: 20, verify_cert_and_check_known_urls: true")
                known[:] = [url.replace(HOST, host) for url in known]
            cluster.start(formed=formed)
            for node in [] if formed else cluster.nodes:
                check(until(lambda node=node: "Router connection closed: Authentication Failure" in node.log(), 10), node.log_tail())
                equal(node.get_json("/routez")["num_routes"], 0, f"routes of {node.name}")
