"""What a super-cluster with a leafnode says of itself over HTTP: ours beside nats-server's, field by field, in the same topology."""

import re
import time

from broker import free_port, until
from certificates import Certificates
from nodes import HOST, Node
from registry import check, equal
from supercluster import SuperCluster

# Differ from run to run: only whether they are there, and their kind.
VOLATILE = {"cid", "id", "port", "in_bytes", "out_bytes", "pending_bytes", "start", "last_activity", "rtt", "uptime", "idle", "now",
            "subscriptions", "num_subs", "in_msgs", "out_msgs", "cluster_port", "compression", "version", "tls_cipher_suite"}
TEXT = [(re.compile(r"N[A-Z2-7]{55}"), "ID"), (re.compile(r"127\.0\.0\.1:\d+"), "HOST:PORT"), (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME")]


def plain(value, key=""):
    """With what is different every time put aside."""
    if isinstance(value, dict):
        return {k: plain(v, k) for k, v in value.items()}
    if isinstance(value, list):
        # Interest of the system account and of the servers themselves is nats-server's own business.
        rows = [v for v in value if not (isinstance(v, dict) and (v.get("name") == "$SYS" or own_subject(v.get("subject", ""))))]
        rows = [v for v in rows if not (isinstance(v, str) and own_subject(v))]
        return sorted((plain(v, key) for v in rows), key=str)
    if key in VOLATILE:
        return type(value).__name__ if not isinstance(value, (int, float)) else "number"
    if isinstance(value, str):
        for pattern, word in TEXT:
            value = pattern.sub(word, value)
    return value


def own_subject(subject):
    return subject.startswith(("$", "_GR_"))


def differences(ours, theirs, path=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        out = [f"{path}.{k}: only ours, {ours[k]!r}" for k in ours.keys() - theirs.keys()]
        out += [f"{path}.{k}: missing, {theirs[k]!r}" for k in theirs.keys() - ours.keys()]
        for k in ours.keys() & theirs.keys():
            out += differences(ours[k], theirs[k], f"{path}.{k}")
        return out
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [text for n, (a, b) in enumerate(zip(ours, theirs)) for text in differences(a, b, f"{path}[{n}]")]
    return [] if ours == theirs else [f"{path}: {ours!r} instead of {theirs!r}"]


PAGES = ["/gatewayz", "/gatewayz?accs=1", "/gatewayz?accs=1&subs=1", "/gatewayz?acc_name=$G&subs=detail", "/gatewayz?acc_name=nobody",
         "/gatewayz?gw_name=c2", "/gatewayz?gw_name=c9", "/gatewayz?accs=perhaps", "/leafz", "/leafz?subs=1", "/leafz?acc=$G",
         "/leafz?acc=nobody", "/leafz?subs=perhaps", "/connz", "/connz?subs=1", "/healthz", "/varz"]
# Of /varz only what is this part's.
VARZ = ("gateway", "leaf", "leafnodes", "remotes", "routes", "gateways")
OF_TLS = ("tls_timeout", "tls_required", "tls_verify", "tls_cert_not_after")


def pages_of(program, certificates=None):
    """{place: {page: answer}} of two clusters with a gateway between them and a leafnode of the first; with certificates all of that,
    and the listener for routes, is TLS."""
    port = free_port()
    tls = {name: certificates.block(name) + "\n" if certificates else "" for name in ("hub", "gateway", "remote", "route", "leaf")}
    system = "" if program.own else 'accounts { "$SYS": { users: [ { user: sys, password: sys } ] } }\nsystem_account: "$SYS"\n'
    hub = f'{system}leafnodes {{ listen: "{HOST}:{port}", authorization {{ user: edge, password: edge, timeout: 3 }}\n {tls["hub"]} }}\n'
    options = 'reject_unknown_cluster: true\n connect_retries: 3\n authorization { user: gw, password: gw, timeout: 4 }\n ' + tls["gateway"]
    with SuperCluster([[program], [program]], extra=hub, options=options) as world:
        for clusters in world.clusters:
            clusters.extra[0] = clusters.extra[0].replace("nats://", "nats://gw:gw@").replace("name: c2, urls", f"name: c2,\n {tls['remote']} urls")
            clusters.options[0] = tls["route"]
        world.clusters[1].extra[0] = world.clusters[1].extra[0].replace(hub, system)
        world.start()
        leaf = Node("leaf", program)
        try:
            leaf.config = (f'server_name: leaf\nlisten: "{HOST}:{leaf.port}"\nhttp: "{HOST}:{leaf.monitor_port}"\n'
                           f'leafnodes {{ remotes: [ {{ url: "nats://edge:edge@{HOST}:{port}", deny_imports: "no.in", deny_exports: "no.out"\n {tls["leaf"]} }} ] }}\n')
            leaf.start()
            nodes = {"c1": world.clusters[0][0], "c2": world.clusters[1][0], "leaf": leaf}
            check(until(lambda: nodes["c1"].get_json("/leafz")["leafnodes"] == 1, 10), "no leafnode")
            clients = {name: node.client(name=f"client at {name}") for name, node in nodes.items()}
            subs = {name: client.sub(f"t.{name}") for name, client in clients.items()}
            for name, client in clients.items():
                client.sub("t.work", "crew")
            everywhere = [f"t.{name}" for name in subs]

            def known():
                interest = world.interest(nodes["c1"], "c2") + world.interest(nodes["c2"], "c1")
                told = [s for row in leaf.get_json("/leafz?subs=1")["leafs"] for s in row.get("subscriptions_list") or []]
                return all(subject in interest for subject in everywhere) and "t.c2" in told and "t.c1" in told
            check(until(known, 10, 0.05), "interest does not spread")
            for subject in everywhere:
                clients["c1"].publish(subject, b"x")
            for sub in subs.values():
                sub.wait(1)
            time.sleep(1.2)  # until everybody has been pinged: rtt
            answers = {}
            for name, node in nodes.items():
                answers[name] = {}
                for page in PAGES:
                    status, body = node.get(page)
                    answers[name][page] = (status, node.get_json(page) if body.startswith("{") else body)
            for client in clients.values():
                client.close()
            return answers
        finally:
            leaf.remove()


def monitoring_of_tls(mix):
    """The same with TLS everywhere."""
    with Certificates() as certificates:
        monitoring_field_by_field(mix, certificates)


def monitoring_field_by_field(mix, certificates=None):
    """mix: ours, theirs."""
    ours, theirs = (pages_of(cluster[0], certificates) for cluster in mix)
    wrong = []
    for place, pages in theirs.items():
        for page, (status, answer) in pages.items():
            equal(ours[place][page][0], status, f"status of {page} at {place}")
            mine = ours[place][page][1]
            if page == "/varz":
                mine, answer = ({**{k: v for k, v in each.items() if k in VARZ}, "cluster": {k: each["cluster"].get(k) for k in OF_TLS}}
                                for each in (mine, answer))
            if page.startswith("/connz"):
                mine, answer = ({"connections": each["connections"], "total": each["total"]} for each in (mine, answer))
            wrong += differences(plain(mine), plain(answer), f"{place} {page}")
    check(not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong))
