"""The route protocol line by line, with a peer played by hand on one side: what a node says, when, in which fields, and how it closes.

The tables are what nats-server does; where 2.9 differs, the row says so."""

import json
import socket

from broker import until
from client import PATIENCE_S
from hostile import Peer
from nodes import HOST, Cluster
from registry import case, check, equal

ID, OTHER_ID = "NBYHAND", "NANOTHER"


def connect(**more):
    return b"CONNECT " + json.dumps({"echo": True, "verbose": False, "pedantic": False, "tls_required": False, "headers": True, "name": ID,
                                     "cluster": "c1", "lnoc": True, **more}).encode() + b"\r\n"


def info(**more):
    """A newer server's, without pools."""
    return b"INFO " + json.dumps({"server_id": ID, "server_name": ID, "version": "2.15.1", "proto": 3, "go": "go1.25", "host": HOST, "port": 1,
                                  "headers": True, "max_payload": 1 << 20, "cluster": "c1", "lnoc": True, "lnocu": True, **more}).encode() + b" \r\n"


POOL = {"route_pool_size": 3}
# What is said behind the greeting, what the node says before it closes, and why. What nats-server 2.9 sees differently it does not play.
REFUSED = [
    (connect(lang="go"), b"attempted to connect to route port", "Incorrect Port", "PND"),
    (connect(gateway="G"), b'Rejecting connection from gateway "G" on the Route port', "Wrong Gateway", "PND"),
    (connect(cluster=""), b'Rejecting connection, cluster name "" does not match "c1"', "Cluster Name Conflict", "PND"),
    (b"CONNECT {}\r\n", b'Rejecting connection, cluster name "" does not match "c1"', "Cluster Name Conflict", "PND"),
    (b"CONNECT []\r\n", None, "Protocol Violation", "PND"),
    (b"CONNECT\r\n", None, "Protocol Violation", "PND"),
    (connect(verbose="x"), None, "Protocol Violation", "PND"),
    (connect() + info(port="x"), None, "Protocol Violation", "PND"),
    (connect() + info(cluster="c2"), None, "Cluster Name Conflict", "PND"),
    (connect() + info(server_name="n1"), None, "Duplicate Server Name", "PND"),
    (connect() + info(**POOL, route_pool_idx=3), b"Invalid route pool index: 3 - pool size is 3", "Protocol Violation", "PN"),
    (connect() + info(**POOL, route_pool_idx=-1), b"Invalid route pool index: -1 - pool size is 3", "Protocol Violation", "PN"),
    (connect() + info(**POOL, route_account="$G"), b'No route for account "$G"', "Protocol Violation", "PN"),
    (connect() + info(**POOL, route_account="NOPE"), b'Unable to lookup account "NOPE": account missing', "Missing Account", "PN"),
    (connect() + info(route_account="$SYS"), b'Not possible to have a dedicated route for account "$SYS" between those servers',
     "Protocol Violation", "PN"),
    (connect() + info(**POOL, compression="zip"), b'unsupported route compression mode "zip"', "Protocol Violation", "PN"),
    # Nothing is looked at before CONNECT.
    *((line, b"Authorization Violation", "Authentication Failure", "PN")
      for line in (b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'x'\r\n", b"Z", b"RS+ $G t.x\r\n", info())),
]
JOINED = connect() + info()
WRONG_LINES = [
    *((line, b"Unknown Protocol Operation", "Protocol Violation")
      for line in (b"RS+\r\n", b"RS-\r\n", b"LS-\r\n", b"A+\r\n", b"RMSG\r\n", b"-ERR\r\n", b"RS+$G t.x\r\n", b"ZZZ\r\n", b"RMSG $G t.x 3\r\nxx\r\nPING\r\n")),
    *((line, None, "Protocol Violation")
      for line in (b"RS+ \r\n", b"RS+ $G\r\n", b"RS+ $G t.x q\r\n", b"RS+ $G t.x q 1 2\r\n", b"RS- $G\r\n", b"RS- $G t.x q 1\r\n", b"LS+ L $G\r\n",
                   b"LS+ L $G t.x q\r\n", b"LS- $G\r\n", b"RMSG $G\r\n", b"RMSG $G t.x\r\n", b"RMSG $G t.x a b 2\r\nxx\r\n", b"RMSG $G t.x ++ b 2\r\nxx\r\n",
                   b"RMSG $G t.x 2147483648\r\n", b"HMSG $G t.x 14\r\n", b"HMSG $G t.x 15 14\r\n", b"HMSG $G t.x x 14\r\n",
                   b"LMSG L $G t.x 2\r\nxx\r\n", b"LMSG L $G t.x 3 2\r\nxx\r\n", b"INFO {\r\n")),
    (b"-ERR 'whatever'\r\n", None, "Parse Error"),
]
# These are taken, and the connection stays.
GOOD_LINES = [
    b"A+ $G\r\nA- $G\r\na+ x\r\n", b"+OK\r\n", b"RS+\t$G\t\tt.x  q\t 1 \r\n", b"RS+ $G t.x q 0\r\n", b"RS+ $G t.x q many\r\n", b"RS+ $G t.x q -1\r\n",
    b"RS- $G never.there\r\n", b"RS+ NOPE t.x\r\nRS- NOPE t.x\r\nRMSG NOPE t.x 2\r\nxx\r\n", b"RS+ $G t.x\n", b"rs+ $G t.x\r\nrmsg $G t.x 02\r\nxx\r\n",
    b"LS+ L $G t.x\r\nLS- L $G t.x\r\n", b"LS+ L $G t.x q 2\r\n", b"HMSG $G t.x 0 2\r\nxx\r\n", b"LMSG L $G t.x 0 2\r\nxx\r\n",
    b"RS+ $G " + b"a" * 65_000 + b"\r\n", b"RMSG $G t.x 2000000\r\n" + bytes(2_000_000) + b"\r\n", info(), info(gateway="g"),
    info(server_id=OTHER_ID, server_name=OTHER_ID, ip="%%%"),
]


def closes(node, sent, said, reason):
    start = len(node.log())
    peer = Peer(node)
    peer.greet()
    peer.send(sent)
    try:
        last = [line for line in peer.closed().split(b"\r\n") if line.startswith(b"-ERR ")]
    except TimeoutError:
        raise AssertionError(f"still open after {sent[-60:]!r}") from None
    equal(last, [b"-ERR '%s'" % said] if said else [], f"said after {sent[-60:]!r}")
    check(until(lambda: f"Router connection closed: {reason}" in node.log()[start:], PATIENCE_S), f"after {sent[-60:]!r} not closed for {reason!r}")


@case(nodes=1, short=True)
def refusals(mix):
    with Cluster(mix) as cluster:
        cluster.start()
        for sent, said, reason, players in REFUSED:
            if mix[0].letter in players:
                closes(cluster[0], sent, said, reason)


@case(nodes=1, short=True)
def wrong_lines(mix):
    with Cluster(mix) as cluster:
        cluster.start()
        for sent, said, reason in WRONG_LINES:
            closes(cluster[0], JOINED + sent, said, reason)
        if mix[0].letter != "D":
            for sent in (JOINED + b"RS+ $G " + b"a" * 66_000 + b"\r\n", JOINED + b"RS+ $G " + b"a" * 70_000, b"CONNECT {\"x\":\"" + b"a" * 70_000):
                closes(cluster[0], sent, b"maximum control line exceeded", "Maximum Control Line Exceeded")


@case(nodes=1, short=True)
def good_lines(mix):
    with Cluster(mix) as cluster:
        cluster.start()
        for sent in GOOD_LINES:
            peer = Peer(cluster[0])
            peer.greet()
            peer.send(JOINED + sent)
            check(peer.ping(), "no PONG")
            peer.sock.close()
            until(lambda: not cluster[0].routes(), PATIENCE_S)
        peer = Peer(cluster[0])  # fields in any case, as Go reads them
        peer.greet()
        peer.send(b'connect {"CLUSTER":"c1","Name":"%s"}\r\n' % ID.encode() + info().replace(b"INFO", b"info").replace(b"cluster", b"Cluster"))
        check(peer.ping(), "no PONG")


@case(nodes=1, short=True, needs=lambda mix: mix[0] != "D")
def an_account_of_its_own(mix):
    """No line on its connection names it; what another connection of the pool would carry is told there, and not here."""
    with Cluster(mix, 'accounts: ["$G"]') as cluster:
        cluster.start()
        node = cluster[0]
        pool = Peer(node)
        pool.greet()
        pool.send(connect() + info(**POOL, route_pool_idx=2))
        own = Peer(node)
        own.greet()
        own.send(connect() + info(**POOL, route_account="$G") + b"RS+ t.there\r\nRS+ t.queue q 2\r\nLS+ L t.leaf\r\n")
        own.ping()
        pool.ping()
        client = cluster.client(0)
        here, queued = client.sub("t.here"), client.sub("t.queue", "q")
        client.flush()
        equal(sorted(own.until(lambda lines: len(lines) == 2)), [b"RS+ t.here", b"RS+ t.queue q 1"], "interest in an account's own route")
        for subject in ("t.there", "t.leaf"):
            client.publish(subject, b"1")
            client.publish(subject, b"2", reply="r", headers={"A": "b"})
        client.flush()
        wanted = []
        for subject in (b"t.there", b"t.leaf"):
            wanted += [b"RMSG %s 1" % subject, b"1", b"HMSG %s r 18 19" % subject, b"NATS/1.0", b"A: b", b"", b"2"]
        equal(own.until(lambda lines: len(lines) == len(wanted)), wanted, "messages on an account's own route")
        own.send(b"RMSG t.here 1\r\na\r\nRMSG t.here r 1\r\nb\r\nRMSG t.queue | q 1\r\nc\r\nRMSG t.queue + r q 1\r\nd\r\n"
                 b"HMSG t.here 12 13\r\nNATS/1.0\r\n\r\ne\r\nLMSG L t.here 0 1\r\nf\r\nLMSG L t.queue + r q 12 13\r\nNATS/1.0\r\n\r\ng\r\n")
        equal([(m.payload, m.reply or "") for m in here.wait(4)], [(b"a", ""), (b"b", "r"), (b"e", ""), (b"f", "")], "messages received")
        equal([(m.payload, m.reply or "") for m in queued.wait(3)], [(b"c", ""), (b"d", "r"), (b"g", "r")], "messages for the queue group")
        pool.send(b"PING\r\n")
        equal(pool.until(lambda lines: b"PONG" in lines), [b"PONG"], "said on the pool's connection")
        row = next(row for row in node.routes("?subs=detail")[ID] if row.get("account") == "$G")
        equal(sorted(sub["sid"] for sub in row["subscriptions_list_detail"]), ["L L t.leaf", "R t.queue q", "R t.there"], "sids in /routez")


@case(nodes=1, short=True)
def interest_as_it_changes(mix):
    with Cluster(mix, 'permissions { import: {allow: ["t.>"], deny: ["t.secret"]}, export: ["t.>"] }') as cluster:
        cluster.start()
        peer = Peer(cluster[0])
        greeting = peer.greet()
        equal([greeting.get(key) for key in ("import", "export")], [{"allow": ["t.>"], "deny": ["t.secret"]}, {"allow": ["t.>"]}], "permissions in INFO")
        peer.send(JOINED)
        peer.ping()
        client = cluster.client(0)

        def says(wanted, what):
            client.flush()
            equal(peer.until(lambda lines: len(lines) >= len(wanted)), wanted, what)
        subs = [client.sub("t.a")]
        says([b"RS+ $G t.a"], "the first subscription")
        subs += [client.sub("t.a"), client.sub("t.secret"), client.sub("other"), client.sub("t.a", "q")]
        says([b"RS+ $G t.a q 1"], "a second one, two that are not allowed, and a queue group")
        subs += [client.sub("t.a", "q")]
        says([b"RS+ $G t.a q 2"], "one more member")
        client.unsub(subs[5])
        says([b"RS+ $G t.a q 1"], "one member less")
        client.unsub(subs[4])
        says([b"RS- $G t.a q"], "no member")
        client.unsub(subs[0])
        client.unsub(subs[1])
        says([b"RS- $G t.a"], "no subscription")
        peer.send(b"RS+ $G t.wanted\r\nRS+ $G not.exported\r\nLS+ L $G t.leaf q 3\r\n")
        peer.ping()
        row = cluster[0].routes("?subs=detail")[ID][0]
        wanted = ["L L $G t.leaf q", "R $G t.wanted"]
        equal(sorted(sub["sid"] for sub in row["subscriptions_list_detail"]),
              wanted if mix[0].letter != "D" else ["$G t.leaf q", "$G t.wanted"], "sids in /routez")


@case(nodes=1, short=True)
def gossip_tables(mix):
    """Who is told of whom, and with which mode; and who asks for silence gets it."""
    with Cluster(mix) as cluster:
        cluster.start()
        peers = {}
        for name, more in (("NONE", {}), ("NTWO", {}), ("NTHREE", {"gossip_mode": 1})):
            peer = peers[name] = Peer(cluster[0])
            peer.greet()
            peer.send(connect(name=name) + info(server_id=name, server_name=name, nonce="secret", **more))
            peer.ping()
        told = {}
        for name, peer in peers.items():
            peer.send(b"PING\r\n")
            lines = peer.until(lambda lines: b"PONG" in lines)
            told[name] = [json.loads(line[5:]) for line in lines if line.startswith(b"INFO ")]
        heard = {name: [each["server_id"] for each in news] for name, news in told.items()}
        if mix[0].letter == "D":  # modes came with 2.11
            return equal(heard, {"NONE": ["NTWO", "NTHREE"], "NTWO": ["NTHREE"], "NTHREE": []}, "news")
        if mix[0].own:  # after a while Peregrine tells what others should have told
            heard = {name: [each for each in ids if each != "NTHREE"] for name, ids in heard.items()}
        equal(heard, {"NONE": ["NTWO"], "NTWO": [], "NTHREE": []}, "news")
        news = told["NONE"][0]
        equal([news.get(key) for key in ("ip", "gossip_mode", "nonce")], [f"nats-route://{HOST}:1/", 1, None], "what is said of a newcomer")


class Listener:
    """A route port of our own, for a node that dials."""

    def __init__(self):
        self.sock = socket.create_server((HOST, 0))
        self.sock.settimeout(PATIENCE_S)
        self.url = f"nats-route://me:secret@{HOST}:{self.sock.getsockname()[1]}"

    def accept(self):
        peer = Peer.__new__(Peer)
        peer.sock, _ = self.sock.accept()
        peer.sock.settimeout(PATIENCE_S)
        peer.buffer, peer.info = b"", None
        return peer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def dialled(listener, **more):
    """The next connection, its CONNECT, and the INFO that follows ours; the latter None if it is one of the system account."""
    peer = listener.accept()
    line = peer.line()
    check(line.startswith(b"CONNECT "), f"said {line!r} first")
    peer.send(info(server_id=OTHER_ID, server_name=OTHER_ID, **more))
    while not (said := peer.line()).startswith(b"INFO "):
        check(said.startswith(b"PING"), f"said {said!r} before INFO")
    return peer, json.loads(line[8:]), json.loads(said[5:])


@case(nodes=1, short=True)
def what_who_dials_says(mix):
    """CONNECT at once; INFO with a pool's index after the other side's; one more connection for each PONG until the pool is as large as the
    larger side wants it, and one for the system account."""
    with Cluster(mix) as cluster, Listener() as listener:
        cluster.known[0] = [listener.url]
        cluster.start(formed=False)
        pools = mix[0].letter != "D"
        peers, indices, accounts = [], [], []
        for _ in range(6 if pools else 1):
            peer, said, theirs = dialled(listener, route_pool_size=5, compression="accept")
            peers.append(peer)
            check(list(said)[:9] == ["echo", "verbose", "pedantic", "user", "pass", "tls_required", "headers", "name", "cluster"], f"CONNECT {said}")
            equal([said[key] for key in ("echo", "verbose", "pedantic", "user", "pass", "headers", "cluster", "lnoc")],
                  [True, False, False, "me", "secret", True, "c1", True], "CONNECT")
            if "route_account" in theirs:
                accounts.append(theirs["route_account"])
            else:
                indices.append(theirs.get("route_pool_idx", 0))
            if pools:
                equal(theirs["compression"], "off", "compression of two that accept")
            peer.send(b"PONG\r\n")
        equal((indices, accounts), (list(range(5)), ["$SYS"]) if pools else ([0], []), "pool indices, accounts")
        if pools:  # and no more
            listener.sock.settimeout(1.5)
            try:
                extra = listener.accept()
                raise AssertionError(f"one more connection: {extra.line()!r}")
            except TimeoutError:
                pass


@case(nodes=1, short=True)
def connect_retries(mix):
    """A configured route is tried for ever; one that gossip told of once, and then as often as connect_retries says."""
    with Cluster(mix, "connect_retries: 1", "connect_error_reports: 1") as cluster, Listener() as closed, Listener() as later:
        closed_ports = []
        for listener in (closed, later):
            closed_ports.append(listener.sock.getsockname()[1])
        explicit = closed_ports[0]
        closed.sock.close()
        later.sock.close()
        cluster.known[0] = [f"nats-route://{HOST}:{explicit}"]
        cluster.start(formed=False)
        node = cluster[0]

        def attempts(port):
            return sum(f"127.0.0.1:{port}: " in line and "Error trying to connect to route (attempt " in line for line in node.log().splitlines())

        def told(name, port):
            peer = Peer(node)
            peer.greet()
            peer.send(connect() + info() + info(server_id=name, server_name=name, ip=f"nats-route://{HOST}:{port}/"))
            peer.ping()
            return peer
        # Without pools the peer does not speak of accounts' own routes, so the system account's is asked for, too.
        each = 1 if mix[0].letter == "D" else 2
        first = told("NFIRST", closed_ports[1])
        check(until(lambda: attempts(closed_ports[1]) == 2 * each, PATIENCE_S), f"{attempts(closed_ports[1])} attempts at what gossip told of, not {2 * each}")
        seen = attempts(explicit)
        check(until(lambda: attempts(explicit) >= seen + 4, PATIENCE_S), "a configured route is given up")
        equal(attempts(closed_ports[1]), 2 * each, "attempts at what gossip told of, two retries later")
        first.sock.close()


@case(nodes=2, short=True, needs=lambda mix: "P" in mix)
def pools_of_many_shards(mix):
    """Two Peregrines have a connection for each shard of the one that has fewer, if that is more than the pool would be and nobody chose its
    size; a nats-server has what it expects. Also when one of them has come back: each stream is in order, nothing comes twice."""
    for shards, chosen, wanted, with_others in (((4, 6), (None, None), 4, 3), ((4, 6), (2, None), 3, 3), ((2, 3), (1, 1), 1, 1)):
        if not all(program.own for program in mix):
            wanted = with_others if all(program.pools for program in mix) else 1
        programs_of = [program.with_arguments("--shards", str(count)) if program.own else program for program, count in zip(mix, shards)]
        options = [f"pool_size: {size}" if size and program.pools else "" for size, program in zip(chosen, mix)]
        with Cluster(programs_of, options) as cluster:
            cluster.start()

            def pool(index):
                return sum("account" not in row for row in cluster[index].routes().get(cluster[1 - index].name, []))

            def whole():
                return pool(0) == pool(1) == wanted
            check(until(whole, PATIENCE_S), f"shards {shards}, {chosen}: pools of {pool(0)} and {pool(1)}, not {wanted}")
            listeners = [cluster.client(i) for i in range(2)]
            for life in range(2):
                heard = [client.sub("t.many.>") for client in listeners]
                cluster.settle_interest({0: ["t.many.>"], 1: ["t.many.>"]})
                speakers = [cluster.client(i) for i in (0, 0, 1, 1)]
                for first in range(0, 1000, 50):
                    for who, client in enumerate(speakers):
                        client.publish_many((f"t.many.{who}.{n % 7}", b"%d %d" % (who, n)) for n in range(first, first + 50))
                for i, sub in enumerate(heard):
                    sub.wait(4000)
                    for who in range(4):
                        got = [int(p.split()[1]) for p in sub.payloads() if p.startswith(b"%d " % who)]
                        check(got == list(range(1000)), f"n{i + 1} got {len(got)} of 1000 from {who}, {len(set(got))} different")
                if life == 0:
                    for client in (listeners[1], speakers[2], speakers[3]):
                        client.close()
                    cluster.restart(1)
                    check(until(whole, PATIENCE_S), f"shards {shards}, {chosen}, after a restart: pools of {pool(0)} and {pool(1)}, not {wanted}")
                    listeners[0].unsub(heard[0])
                    listeners[1] = cluster.client(1)
            cluster.probe()
