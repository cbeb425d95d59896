"""How clusters come to be: orders of start, gossip, names, authorization, pools, compression, what clients learn of it."""

import itertools
import re
import socket
import time

from broker import until
from nodes import HOST, Cluster
from registry import case, check, equal


def all_pairs(cluster):
    return [(a, b) for a in range(len(cluster)) for b in range(len(cluster)) if a != b]


@case(nodes=2, short=True)
def two_in_both_orders(mix):
    for order in ([0, 1], [1, 0]):
        with Cluster(mix) as cluster:
            cluster.start(order).probe()


@case()
def three_in_every_order(mix):
    for order in itertools.permutations(range(3)):
        with Cluster(mix) as cluster:
            cluster.start(order).probe()


@case()
def all_at_once(mix):
    for _ in range(2):
        with Cluster(mix) as cluster:
            for index, node in enumerate(cluster.nodes):
                cluster.configure(index)
                node.start(wait=False)
            for node in cluster.nodes:
                node.ready()
            cluster.formed().probe()


@case(short=True)
def gossip(mix):
    """Two nodes know only the third; /routez says who was configured and who was learnt."""
    with Cluster(mix) as cluster:
        cluster.known = [[cluster[2].route_url], [cluster[2].route_url], []]
        cluster.start([2, 0, 1]).probe()
        for index in (0, 1):
            rows = None

            def all_configured():
                nonlocal rows
                rows = cluster[index].routes().get(cluster[2].name, [])
                return rows and all(row["did_solicit"] and row["is_configured"] for row in rows)
            check(until(all_configured), f"configured route shown as {rows}")
        rows = cluster[0].routes()[cluster[1].name] + cluster[1].routes()[cluster[0].name]
        check(not any(row["is_configured"] for row in rows), f"a learnt route is shown as configured: {rows}")
        # The one everybody knew goes: the others stay together, and it finds both again.
        cluster[2].end()
        cluster.formed()
        cluster[2].start()
        cluster.formed().probe()


@case()
def chain(mix):
    """Each knows only the one before it."""
    with Cluster(mix) as cluster:
        cluster.known = [[], [cluster[0].route_url], [cluster[1].route_url]]
        cluster.start([2, 1, 0]).probe()


@case(nodes=2, short=True)
def own_address_among_routes(mix):
    with Cluster(mix) as cluster:
        everybody = [node.route_url for node in cluster.nodes]
        cluster.known = [everybody + [f"nats-route://localhost:{cluster[0].route_port}"], everybody]
        cluster.start().probe()
        time.sleep(1.5)
        cluster.formed()


@case(nodes=2)
def same_node_under_two_names(mix):
    with Cluster(mix) as cluster:
        cluster.known[0].append(f"nats-route://localhost:{cluster[1].route_port}")
        cluster.start().probe()
        time.sleep(1.5)
        cluster.formed()


@case(nodes=2)
def unreachable_routes_do_no_harm(mix):
    with socket.socket() as closed, Cluster(mix) as cluster:
        closed.bind((HOST, 0))  # bound, not listening: refused
        for known in cluster.known:
            known.insert(0, f"nats-route://{HOST}:{closed.getsockname()[1]}")
            known.insert(0, "nats-route://no-such-host.invalid:6222")
        cluster.start().probe()


def names_told(cluster):
    """What clients are told; /varz of nats-server goes on showing the name a node had first."""
    names = set()
    for node in cluster.nodes:
        with node.client() as client:
            names.add(client.infos[-1].get("cluster", ""))
    return names


@case(nodes=2, short=True)
def dynamic_names(mix):
    """Without a name each makes one up, and they agree on one of them."""
    with Cluster(mix, name=None) as cluster:
        cluster.start().probe()
        check(until(lambda: len(names := names_told(cluster)) == 1 and "" not in names, 5), f"cluster names {names_told(cluster)}")


@case(nodes=2)
def a_given_name_wins(mix):
    for given in (0, 1):
        with Cluster(mix, name=["given" if i == given else None for i in range(2)]) as cluster:
            cluster.start().probe()
            check(until(lambda: names_told(cluster) == {"given"}, 5), f"cluster names {names_told(cluster)}")


@case(nodes=2, short=True)
def name_conflict(mix):
    with Cluster(mix, name=["alpha", "beta"]) as cluster:
        cluster.start(formed=False)
        said = until(lambda: re.search(r'cluster name "(alpha|beta)" does not match "(alpha|beta)"', cluster[0].log() + cluster[1].log()), 15)
        check(said, f"no line about the names: {cluster[0].log_tail()}")
        time.sleep(1)
        for node in cluster.nodes:
            check(node.running(), f"{node.name} is down")
            equal(node.routes(), {}, f"routes of {node.name}")


AUTHORIZATION = 'authorization { user: route, password: secret, timeout: 2 }'


@case(nodes=2, short=True)
def authorization(mix):
    with Cluster(mix, AUTHORIZATION) as cluster:
        cluster.known = [[node.route_url.replace("://", "://route:secret@")] for node in reversed(cluster.nodes)]
        cluster.start().probe()


@case(nodes=2)
def wrong_password(mix):
    with Cluster(mix, [AUTHORIZATION, AUTHORIZATION]) as cluster:
        cluster.known = [[], [cluster[0].route_url.replace("://", "://route:wrong@")]]
        cluster.start(formed=False)
        check(until(lambda: "uthorization" in cluster[0].log() or "uthentication" in cluster[0].log(), 10), cluster[0].log_tail())
        heard, speaker = cluster.client(1).sub("t.secret"), cluster.client(0)
        for _ in range(20):  # the one that dials shows a route for a moment each time, but nothing passes
            speaker.publish("t.secret", "x")
            speaker.flush()
            time.sleep(0.05)
            equal(cluster[0].routes(), {}, "routes of n1")
        equal(heard.count(), 0, "messages through a route that was refused")


@case()
def authorization_by_gossip(mix):
    """A learnt route uses the credentials of the authorization block."""
    with Cluster(mix, AUTHORIZATION) as cluster:
        seed = cluster[2].route_url.replace("://", "://route:secret@")
        cluster.known = [[seed], [seed], []]
        cluster.start().probe()


@case(nodes=2)
def pool_sizes(mix):
    for sizes in ((-1, -1), (1, 1), (5, 5), (-1, 3), (3, 5)):
        with Cluster(mix, [f"pool_size: {size}" if program.pools else "" for size, program in zip(sizes, mix)]) as cluster:
            cluster.start().probe()


ACCOUNTS = """
accounts {
  A { users: [ { user: a, password: a } ] }
  B { users: [ { user: b, password: b } ] }
  C { users: [ { user: c, password: c } ] }
}
"""


def all_have_accounts(mix):
    """Peregrine refuses a configuration with accounts so far."""
    return "P" not in mix


@case(nodes=2)
def pinned_global_account(mix):
    """The account everybody is in has a connection of its own, whose lines do not name it."""
    with Cluster(mix, ["accounts: [\"$G\"]" if program.pools else "" for program in mix]) as cluster:
        cluster.start()
        if all(program.pools for program in mix):
            def of_account():
                return [row["account"] for row in cluster[0].routes().get(cluster[1].name, []) if row.get("account") == "$G"]
            check(until(lambda: of_account() == ["$G"], 10), f"routes of $G: {of_account()}")
        clients = [cluster.client(i) for i in range(2)]
        heard = [client.sub("t.pinned.*", queue) for client in clients for queue in ("", "q")]
        cluster.settle_interest({i: ["t.pinned.*"] * 2 for i in range(2)})
        for i, client in enumerate(clients):
            for n in range(500):
                client.publish(f"t.pinned.{i}", str(n), headers={"N": n} if n % 2 else None)
            client.flush()
        for sub in heard[0], heard[2]:
            for i in range(2):
                sub.wait(1000)
                equal([int(m.payload) for m in sub.messages if m.subject == f"t.pinned.{i}"], list(range(500)), f"from n{i + 1}")
        check(until(lambda: heard[1].count() + heard[3].count() == 1000, 10), f"queue: {heard[1].count()} and {heard[3].count()} of 1000")
        cluster.probe()


@case(nodes=2, needs=all_have_accounts)
def pinned_accounts(mix):
    pinned = ["accounts: [A,B]" if program.pools else "" for program in mix]
    with Cluster(mix, pinned, ACCOUNTS) as cluster:
        cluster.start()
        if all(program.pools for program in mix):
            rows = cluster[0].routes()[cluster[1].name]
            equal(sorted(row["account"] for row in rows if row.get("account") in ("A", "B")), ["A", "B"], "routes of accounts")
        clients = {(user, i): cluster.client(i, user=user, password=user) for user in "abc" for i in range(2)}
        heard = {key: client.sub("t.pinned") for key, client in clients.items()}
        deadline = time.monotonic() + 15
        for user in "abc":  # until the first message of each account comes through
            while True:
                clients[user, 0].publish("t.pinned", f"{user} first")
                if heard[user, 1].wait(1, 0.2):
                    break
                check(time.monotonic() < deadline, f"nothing comes through in account {user.upper()}")
        for (user, i), client in clients.items():
            for n in range(200):
                client.publish("t.pinned", f"{user} {i} {n}")
            client.flush()
        for (user, i), sub in heard.items():
            wanted = {f"{user} {j} {n}".encode() for j in range(2) for n in range(200)}
            until(lambda: len([p for p in sub.payloads() if b"first" not in p]) >= 400, 15)
            clients[user, i].flush()
            got = [payload for payload in sub.payloads() if b"first" not in payload]
            check(len(got) == 400 and set(got) == wanted, f"account {user.upper()} on node {i + 1} got {len(got)} of 400")


def negotiated(local, remote):
    """What /routez shows of a route's compression on the side with `local`; the table of server.go selectCompressionMode."""
    if local in ("off", None) or remote in ("off", None):
        return {"off", "not supported", ""} if None in (local, remote) else {"off"}
    if remote == "accept":
        chosen = "off" if local == "accept" else local
    elif local == "accept":
        chosen = "s2_fast" if remote == "s2_auto" else remote
    else:
        chosen = local
    # Automatic: chosen by the round trip, which on a busy machine may be anything.
    return {"s2_uncompressed", "s2_fast", "s2_better", "s2_best"} if chosen == "s2_auto" else {chosen}


@case(nodes=2, short=True)
def compression(mix):
    """Every mode; messages of all kinds get through, in both directions."""
    both = [("s2_fast", "s2_fast"), ("s2_better", "accept"), ("s2_auto", "s2_auto"), ("off", "s2_best")]
    some_more = [("s2_best", "s2_best"), ("s2_auto", "accept"), ("accept", "s2_fast"), ("s2_auto", "s2_better"), ("accept", "accept")]
    for modes in both + some_more:
        modes = [mode if program.compresses else None for mode, program in zip(modes, mix)]
        with Cluster(mix, [f"compression: {mode}" if mode else "" for mode in modes]) as cluster:
            cluster.start()
            for a, b in all_pairs(cluster):
                shown = {row.get("compression", "") for row in cluster[a].routes()[cluster[b].name]}
                if mix[a].compresses and mix[b].compresses:
                    check(shown <= negotiated(modes[a], modes[b]), f"{modes}: n{a + 1} shows {shown}, not {negotiated(modes[a], modes[b])}")
            clients = [cluster.client(i) for i in range(2)]
            heard = [clients[i].sub(f"t.to.{i}") for i in range(2)]
            cluster.settle_interest({i: [f"t.to.{i}"] for i in range(2)})
            payloads = [b"", b"x", b"text " * 3000, bytes(range(256)) * 400, b"z" * 1_000_000] + [b"small %d" % n for n in range(3000)]
            for i in range(2):
                for payload in payloads:
                    clients[i].publish(f"t.to.{1 - i}", payload)
            for i in range(2):
                heard[i].wait(len(payloads))
                equal([len(p) for p in heard[i].payloads()], [len(p) for p in payloads], f"{modes}: sizes received by n{i + 1}")
                check(heard[i].payloads() == payloads, f"{modes}: n{i + 1} got other bytes")


def urls(cluster, indices):
    return sorted(f"{HOST}:{cluster[i].port}" for i in indices)


@case(short=True)
def connect_urls(mix):
    """Clients learn by INFO of nodes that come and go."""
    with Cluster(mix) as cluster:
        cluster.configure(0)
        cluster[0].start()
        client = cluster.client(0)
        known = lambda indices: lambda info: sorted(info.get("connect_urls") or []) == urls(cluster, indices)  # noqa: E731
        for index in (1, 2):
            cluster.configure(index)
            cluster[index].start()
            together = range(index + 1)
            check(client.wait_info(known(together)), f"after a join: {client.infos[-1].get('connect_urls')}, not {urls(cluster, together)}")
        cluster.formed()
        for index in range(3):
            late = cluster.client(index)
            check(late.wait_info(known(range(3))), f"newcomer at n{index + 1}: {late.infos[-1].get('connect_urls')}")
        cluster[1].end()
        check(client.wait_info(known([0, 2])), f"after n2 left: {client.infos[-1].get('connect_urls')}")


@case(nodes=3)
def no_advertise(mix):
    with Cluster(mix, ["", "no_advertise: true", ""]) as cluster:
        cluster.start()
        expected = {0: [0, 2], 2: [0, 2]}  # what n2 tells its own clients: nothing
        for index, known in expected.items():
            info = cluster.client(index).wait_info(lambda info: sorted(info.get("connect_urls") or []) == urls(cluster, known))
            check(info, f"n{index + 1} does not say {urls(cluster, known)}")
        info = cluster.client(1).infos[-1]
        check(not set(info.get("connect_urls") or []) - set(urls(cluster, [1])), f"n2 says {info.get('connect_urls')}")
        cluster.probe()


@case(nodes=2)
def client_advertise(mix):
    with Cluster(mix, extra=['client_advertise: "broker.example:4333"', ""]) as cluster:
        cluster.start()
        info = cluster.client(1).wait_info(lambda info: "broker.example:4333" in (info.get("connect_urls") or []))
        check(info, "an advertised address is not passed on")


@case(nodes=2)
def cluster_advertise(mix):
    """What peers are told to dial is the advertised address: a third node finds the first through it."""
    with Cluster([*mix, mix[0]]) as cluster:
        cluster.options = [f'cluster_advertise: "localhost:{node.route_port}"' for node in cluster.nodes]
        cluster.known = [[], [cluster[0].route_url], [cluster[1].route_url]]
        cluster.start().probe()


@case(nodes=3)
def from_yaml(mix):
    with Cluster(mix, format="yaml") as cluster:
        cluster.start().probe()


@case(nodes=3, short=True)
def from_the_command_line(mix):
    with Cluster(mix) as cluster:
        for node, known in zip(cluster.nodes, cluster.known):
            node.arguments = ["-a", HOST, "-p", str(node.port), "-m", str(node.monitor_port), "--server_name", node.name, "--cluster_name",
                              "flags", "-cluster", f"nats://{HOST}:{node.route_port}", "-routes", ",".join(known)]
        cluster.start().probe()
        for node in cluster.nodes:
            varz = node.get_json("/varz")
            equal(varz["cluster"]["name"], "flags", "varz cluster.name")
            equal(varz["cluster"]["cluster_port"], node.route_port, "varz cluster.cluster_port")
            equal(sorted(varz["cluster"]["urls"]), sorted(f"{HOST}:{other.route_port}" for other in cluster.nodes if other is not node),
                  "varz cluster.urls")
            check(until(lambda: node.get_json("/varz")["routes"] == node.get_json("/routez")["num_routes"]), "varz routes is not num_routes")
