"""What /routez and /varz say of a cluster: the same two ends of the same routes, seen from Peregrine and from nats-server."""

import re

from broker import until
from nodes import Cluster
from registry import case, check, equal, eventually

SHAPES = {
    "start": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "last_activity": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "now": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "rtt": r"(\d+m)?\d+(\.\d+)?(ns|µs|ms|s)", "uptime": r"(\d+[dhm])*\d+s",
    "idle": r"(\d+[dhm])*\d+s", "remote_id": r"N[A-Z2-7]{55}", "server_id": r"N[A-Z2-7]{55}",
}
# Each side's own: what it is called there, who dialled, and subscriptions of nats-server's services for the system account.
OWN = {"rid", "remote_id", "remote_name", "did_solicit", "is_configured", "ip", "port", "start", "last_activity", "rtt", "uptime", "idle"}


def same_fields(mine, theirs, what):
    """The same fields in the same order, of the same types and shapes."""
    equal(list(mine), list(theirs), f"fields of {what}")
    for key, value in mine.items():
        equal(type(value), type(theirs[key]), f"type of {what} {key}")
        for text in (value, theirs[key]):
            check(key not in SHAPES or re.fullmatch(SHAPES[key], text), f"{what} {key} is {text!r}")


def main_route(node, query=""):
    """The row of the connection that carries the global account: the one with somebody's subscriptions."""
    page = node.get_json("/routez" + query)
    rows = [row for row in page["routes"] if "account" not in row and row["subscriptions"]]
    return page, rows[0] if len(rows) == 1 else None


OPTIONS = 'permissions { import: ["t.>", "_INBOX.>"], export: ["t.>"] }\n  authorization { timeout: 3 }\n  connect_retries: 5'


@case(nodes=2, short=True, needs=lambda mix: sorted(mix[:2]) == ["N", "P"])
def field_by_field(mix):
    with Cluster(mix, OPTIONS) as cluster:
        cluster.start()
        clients = [cluster.client(i) for i in range(2)]
        subs = [client.sub("t.here") for client in clients]
        for client in clients:
            client.sub("t.queue", "workers")
        cluster.settle_interest({i: ["t.here", "t.queue"] for i in range(2)})
        for n in range(3):
            clients[0].publish("t.here", "seven b" * (n + 1))
        clients[1].publish("t.here", "one", headers={"A": "b"})
        for client in clients:
            client.flush()
        for sub in subs:
            sub.wait(4)
        mine, theirs = (cluster.nodes if cluster[0].program.own else reversed(cluster.nodes))
        check(until(lambda: all("rtt" in row for node in (mine, theirs) for row in node.get_json("/routez")["routes"]), 10), "no rtt")
        def agree(query):
            (page, row), (other_page, other) = main_route(mine, query), main_route(theirs, query)
            check(row and other, f"which route carries the account? {page} {other_page}")
            same_fields(page, other_page, "/routez" + query)
            same_fields(row, other, "a route of /routez" + query)
            for one, two in (("in_msgs", "out_msgs"), ("in_bytes", "out_bytes")):
                equal((row[one], row[two]), (other[two], other[one]), f"{one} and {two} against the other end's")
            for key in row.keys() - OWN - {"in_msgs", "out_msgs", "in_bytes", "out_bytes", "subscriptions_list", "subscriptions_list_detail"}:
                equal(row[key], other[key], key)
            for key in ("import", "export", "num_routes"):
                equal(page[key], other_page[key], key)
            equal(sorted(row.get("subscriptions_list", [])), sorted(other.get("subscriptions_list", [])), "subscriptions_list")
            by_subject = [{sub["subject"]: sub for sub in each.get("subscriptions_list_detail", [])} for each in (row, other)]
            equal(sorted(by_subject[0]), sorted(by_subject[1]), "subjects in detail")
            for side, subs in zip((row, other), by_subject):
                check(not subs or sum(sub["msgs"] for sub in subs.values()) == side["out_msgs"], f"msgs of {subs}, sent {side['out_msgs']}")
            for subject, sub in by_subject[0].items():
                same_fields(sub, by_subject[1][subject], f"the subscription to {subject}")
                for key in ("qgroup", "sid"):
                    equal(sub.get(key), by_subject[1][subject].get(key), f"{key} of {subject}")
            rows = [sorted((tuple(each), each.get("account"), each["compression"]) for each in one["routes"] if not each["subscriptions"])
                    for one in (page, other_page)]
            check(set(rows[0]) <= set(rows[1]) | {(keys, account, how) for keys, account, how in rows[0] if account}, f"other routes: {rows}")

        for query in ("", "?subs=1", "?subs=detail"):
            eventually(lambda query=query: agree(query))
        varz = [node.get_json("/varz") for node in (mine, theirs)]
        same_fields(varz[0]["cluster"], varz[1]["cluster"], "/varz cluster")
        for key in varz[0]["cluster"].keys() - {"cluster_port", "urls"}:
            equal(varz[0]["cluster"][key], varz[1]["cluster"][key], f"/varz cluster {key}")
        for node, each in zip((mine, theirs), varz):
            equal(each["cluster"]["cluster_port"], node.route_port, "/varz cluster cluster_port")
        for key in ("routes", "remotes", "proto", "max_payload"):
            equal(varz[0].get(key), varz[1].get(key), f"/varz {key}")
        equal(sorted(varz[0].get("connect_urls", [])), sorted(varz[1].get("connect_urls", [])), "/varz connect_urls")
