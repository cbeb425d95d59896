#!/usr/bin/env python3
"""Leafnode links between servers: the broker under test with itself and with real nats-servers, in both roles.

    run.py [--server BIN] [--against NATS_SERVER] [--older NATS_SERVER] [--only WORD]... [--list] [--jobs N]

Every case starts servers of its own on random ports. A pair "hub<-leaf" says who is which; "us" is the broker under test,
"new" the nats-server of --against ($NATS_SERVER or the PATH), "old" that of --older (/usr/sbin/nats-server, Debian's 2.9,
where there is one). Each case is also held between nats-servers only ("new<-new"), so that a wrong expectation shows;
`--against none` leaves nats-server out.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import random
import socket
import sys
import threading
import time

import secured
from servers import HOST, Client, Link, Node, barrier, check, url, version

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir)
sys.path[:0] = [os.path.join(TESTS, "conversation"), os.path.join(TESTS, "cluster")]
import client as talking  # noqa: E402
from across import conversation  # noqa: E402
from streams import stream  # noqa: E402
from broker import Broker, StartError, Tally, default_server, find_reference, free_port, is_reference, until  # noqa: E402

PAIRS = []  # (name, function): held between a hub and a leaf of every combination
ALONE = []  # (name, function): held on one server at a time


def pair(function):
    PAIRS.append((function.__name__, function))
    return function


def alone(function):
    ALONE.append((function.__name__, function))
    return function


# ---------------------------------------------------------------------------------------------------- across a link


@pair
def talks_both_ways(hub, leaf):
    with Link(hub, leaf) as link:
        check(link.hub.leafs()[0].get("is_spoke", False) is False, "the hub's role in /leafz")
        check(link.leaf.leafs()[0].get("is_spoke", True) is True, "the leaf's role in /leafz")
        for receiver, sender in link.sides():
            receiver.sub("a.b")
            receiver.sub("a.*")
            receiver.sub("a.>")
            barrier(receiver, sender)
            sender.pub("a.b", "one")
            sender.pub("a.x.y", "two")
            sender.pub("other", "three")
            got = sorted((m.subject, m.payload) for m in barrier(receiver, sender))
            check(got == [("a.b", b"one")] * 3 + [("a.x.y", b"two")], f"plain and wildcards: {got}")
            # headers, replies, empty and large payloads
            header = b"NATS/1.0\r\nName: value\r\n\r\n"
            large = bytes(range(256)) * 3000
            sender.pub("a.x.h", b"body", reply="answer.here", header=header)
            sender.pub("a.x.0", b"")
            sender.pub("a.x.l", large)
            got = barrier(receiver, sender)
            check([m.subject for m in got] == ["a.x.h", "a.x.0", "a.x.l"], f"order {[m.subject for m in got]}")
            check((got[0].header, got[0].payload, got[0].reply) == (header, b"body", "answer.here"), "headers")
            check(got[1].payload == b"" and got[2].payload == large, "payloads")


def at(node):
    """Makes clients there, as conversation() wants them."""
    return lambda: talking.Client(node.connect, name=f"client at {node.port}")


@pair
def the_whole_conversation(hub, leaf):
    with Link(hub, leaf) as link:
        conversation(at(link.hub), at(link.leaf))


@pair
def the_whole_conversation_of_a_leaf_of_a_leaf(hub, leaf):
    """Between its ends, and from the middle to both."""
    with Node(hub) as center, Node(leaf, remotes=[url(center)]) as middle, Node(hub, listen=False, remotes=[url(middle)]) as end:
        center.linked()
        middle.linked(2)
        end.linked()
        conversation(at(center), at(end))
        conversation(at(middle), at(end))


@pair
def the_whole_conversation_of_two_leafs(hub, leaf):
    with Node(hub) as center, Node(leaf, listen=False, remotes=[url(center)]) as east, Node(leaf, listen=False, remotes=[url(center)]) as west:
        center.linked(2)
        conversation(at(east), at(west))


@pair
def streams_of_all_sizes(hub, leaf):
    """Small and large, on one subject and on several, to two clients: all of it, in order, as it was sent."""
    chance = random.Random(5)
    sizes = [chance.choice([0, 10, 10, 300, 3000, 16_384, 16_384, 70_000]) for _ in range(60)]
    sizes = [size for size in sizes for _ in range(chance.choice([1, 3, 12]))] + [1 << 20, 5, 1 << 20]
    sent = [(chance.choice(["s.a", "s.a", "s.b"]), b"%d:" % n + bytes([n % 251]) * size) for n, size in enumerate(sizes)]
    sent = [(subject, payload[:1 << 20]) for subject, payload in sent]
    with Link(hub, leaf) as link:
        for receiver, sender in link.sides():
            with Client(receiver.broker) as other:
                receiver.sub("s.a")
                other.sub("s.*")
                barrier(receiver, sender)
                barrier(other, sender)
                for subject, payload in sent:
                    sender.pub(subject, payload)
                got = [(m.subject, m.payload) for m in barrier(receiver, sender)]
                check(got == [each for each in sent if each[0] == "s.a"], f"{len(got)} messages on s.a, or others")
                got = [(m.subject, m.payload) for m in barrier(other, sender)]
                check(got == sent, f"{len(got)} messages on s.*, or others")


@pair
def queue_groups_get_one_each(hub, leaf):
    with Link(hub, leaf) as link:
        for receiver, sender in link.sides():
            other = Client(receiver.broker)
            for client in (receiver, other):
                client.sub("work.*", "workers")
            receiver.sub("work.*", "audit")
            other.sync()
            barrier(other, sender)
            barrier(receiver, sender)
            for n in range(40):
                sender.pub("work.now", str(n), reply="r" if n % 2 else "")
            first, second = barrier(receiver, sender), barrier(other, sender)
            check(len(first) + len(second) == 80, f"{len(first)} + {len(second)} messages of 2 x 40")
            check(len(second) > 0, "one of two workers never works")
            # a member of our own is preferred to those behind the link
            mine = Client(sender.broker)
            mine.sub("work.*", "workers")
            mine.sync()
            for n in range(20):
                sender.pub("work.now", str(n))
            check(len(barrier(receiver, sender)) == 20, "audit")
            check(len(barrier(other, sender)) == 0, "workers behind the link")
            for client in (mine, other):
                client.close()


@pair
def requests_are_answered(hub, leaf):
    with Link(hub, leaf) as link:
        for asker, answerer in link.sides():
            inbox = "_INBOX.x.1"
            asker.sub(inbox)
            service = answerer.sub("service")
            barrier(answerer, asker)
            for n in range(20):
                asker.pub("service", str(n), reply=inbox)
                question = answerer.message()
                check(question.reply == inbox, f"reply {question.reply}")
                answerer.pub(question.reply, b"answer " + question.payload)
                asker.expect_message(inbox, f"answer {n}")
            answerer.unsub(service)
            answerer.sync()

            def refused():
                asker.pub("service", "?", reply=inbox)
                try:
                    return b"503" in asker.message(0.2).header
                except AssertionError:
                    return False
            check(until(refused), "no 503 when nobody is left")
            asker.pub("nobody", "?", reply=inbox)
            check(asker.message().header.startswith(b"NATS/1.0 503"), "503 for a subject nobody ever wanted")


@pair
def interest_is_exact(hub, leaf):
    with Link(hub, leaf) as link:
        for receiver, sender in link.sides():
            node = sender.broker
            sids = [receiver.sub(f"exact.{n}") for n in range(50)]
            again = [receiver.sub(f"exact.{n}") for n in range(10)]
            wild = receiver.sub("exact.*.>")
            barrier(receiver, sender)
            wanted = sorted([f"exact.{n}" for n in range(50)] + ["exact.*.>"])
            check(until(lambda: node.interest() == wanted), f"interest {node.interest()[:8]}")
            for sid in sids[5:] + [wild]:
                receiver.unsub(sid)
            check(until(lambda: node.interest() == sorted(f"exact.{n}" for n in range(10))), f"kept {node.interest()[:12]}")
            for sid in sids[:5] + again:
                receiver.unsub(sid)
            check(until(lambda: node.interest() == []), f"left over {node.interest()[:8]}")
            with Client(receiver.broker) as visitor:
                visitor.sub("visit")
                visitor.sub("visit", "q")
                visitor.sync()
                check(until(lambda: node.interest() == ["visit", "visit"]), "of a second client")
            check(until(lambda: node.interest() == []), "of a client that has gone")


@pair
def links_heal(hub, leaf):
    with Link(hub, leaf, leaf_config="", hub_leaf="") as link:
        link.at_hub.sub("from.leaf")
        link.at_leaf.sub("from.hub")
        link.at_leaf.sub("from.hub", "q")
        barrier(link.at_leaf, link.at_hub)
        port = link.hub.leaf_port
        # the hub goes and comes back on the same port
        link.hub.stop()
        link.hub = Node(hub, leaf_port=port)
        link.hub.linked()
        check(until(lambda: link.hub.interest() == ["from.hub", "from.hub"]), f"interest {link.hub.interest()}")
        at_hub = Client(link.hub)
        at_hub.sub("from.leaf")
        barrier(at_hub, link.at_leaf)
        link.at_leaf.pub("from.leaf", "1")
        at_hub.expect_message("from.leaf", "1")
        at_hub.pub("from.hub", "2")
        got = [(m.subject, m.payload) for m in barrier(link.at_leaf, at_hub)]
        check(got == [("from.hub", b"2")] * 2, f"each once: {got}")
        # the leaf is killed and another one takes its place
        link.leaf.process.kill()
        link.leaf.stop()
        check(until(lambda: link.hub.leafs() == []), "the dead leaf is still there")
        link.leaf = Node(leaf, listen=False, remotes=[url(link.hub)])
        link.hub.linked()
        check(link.hub.interest() == [], f"interest of the dead: {link.hub.interest()}")
        with Client(link.leaf) as client:
            check(until(lambda: link.leaf.interest() == ["from.leaf"]), f"interest {link.leaf.interest()}")
            client.pub("from.leaf", "3")
            at_hub.expect_message("from.leaf", "3")


@pair
def denied_subjects_stay(hub, leaf):
    remote = 'deny_imports: ["secret.in.>"], deny_exports: ["secret.out.>"]'
    with Link(hub, leaf, remote=remote) as link:
        link.at_leaf.sub("secret.in.a")
        link.at_leaf.sub(">")
        link.at_hub.sub("secret.out.a")
        link.at_hub.sub("open.out")
        barrier(link.at_leaf, link.at_hub)
        barrier(link.at_hub, link.at_leaf)
        check("secret.in.a" not in link.hub.interest(), f"told to the hub: {link.hub.interest()}")
        link.at_hub.pub("secret.in.a", "x")
        link.at_hub.pub("open.in", "x")
        got = [m.subject for m in barrier(link.at_leaf, link.at_hub) if not m.subject.startswith("barrier")]
        check(got == ["open.in"], f"the leaf got {got}")
        link.at_leaf.pub("secret.out.a", "x")
        link.at_leaf.pub("open.out", "x")
        got = [m.subject for m in barrier(link.at_hub, link.at_leaf)]
        check(got == ["open.out"], f"the hub got {got}")


@pair
def jetstream_stays_at_home(hub, leaf):
    with Link(hub, leaf) as link:
        for receiver, sender in link.sides():
            receiver.sub("$JS.API.>")
            receiver.sub("$KV.b.>")
            receiver.sub("$OBJ.b")
            receiver.sub("$JS.ACK.>")
            barrier(receiver, sender)
            for subject in ("$JS.API.INFO", "$KV.b.k", "$OBJ.b", "$JS.ACK.x"):
                sender.pub(subject, "x")
            got = [m.subject for m in barrier(receiver, sender)]
            check(got == ["$JS.ACK.x"], f"crossed: {got}")


@pair
def compressed(hub, leaf):
    if "2.9" in version(hub) or "2.9" in version(leaf):
        return
    for mode in ("s2_fast", "s2_best", "accept", "off"):
        with Link(hub, leaf, hub_leaf=f"compression: {mode}", remote="compression: s2_better") as link:
            expected = {"accept": ("s2_better", "s2_better"), "off": ("off", "off")}.get(mode, (mode, "s2_better"))
            shown = link.hub.leafs()[0].get("compression"), link.leaf.leafs()[0].get("compression")
            check(shown == expected, f"{mode}: {shown}")
            payload = (b"compress me " * 40 + os.urandom(64)) * 300
            for receiver, sender in link.sides():
                receiver.sub("big.*")
                barrier(receiver, sender)
                for n in range(5):
                    sender.pub(f"big.{n}", payload)
                check([m.payload for m in barrier(receiver, sender)] == [payload] * 5, f"{mode}: payloads")


@pair
def users_and_permissions(hub, leaf):
    accounts = """
authorization { users: [
  { user: client, password: client }
  { user: edge, password: edge, permissions: { publish: ["up.>", "_INBOX.>"], subscribe: { allow: ["down.>", "_INBOX.>"], deny: ["down.not"] } } }
] }
"""
    node = Node(hub, accounts)
    other = None
    try:
        other = Node(leaf, listen=False, remotes=[url(node, "edge:edge@")])
        node.linked()
        at_hub, at_leaf = Client(node, "client"), Client(other)
        for subject in ("down.yes", "down.not", "elsewhere"):
            at_leaf.sub(subject)
        for subject in ("up.yes", "elsewhere", "barrier.>"):
            at_hub.sub(subject)
        at_leaf.sync()
        check(until(lambda: node.interest() == ["down.yes"]), f"told: {node.interest()}")
        check(until(lambda: other.interest() == ["up.yes"] or "elsewhere" in other.interest()), f"{other.interest()}")
        at_leaf.pub("elsewhere", "x")
        at_leaf.expect_message("elsewhere", "x")  # its own
        at_leaf.pub("up.yes", "x")
        at_hub.expect_message("up.yes", "x")
        at_hub.pub("down.not", "x")
        at_hub.pub("elsewhere", "x")
        at_hub.expect_message("elsewhere", "x")  # its own
        at_hub.pub("down.yes", "x")
        at_leaf.expect_message("down.yes", "x")
        check(len(node.leafs()) == 1, "the link was cut")
    finally:
        for each in (other, node):
            if each:
                each.stop()


@pair
def wrong_password_is_refused(hub, leaf):
    node = Node(hub, leaf="authorization { user: edge, password: secret }")
    other = None
    try:
        other = Node(leaf, listen=False, remotes=[url(node, "edge:wrong@")])
        check(until(lambda: "Authorization Violation" in other.log(), 8), f"leaf: {other.log_tail()}")
        check(until(lambda: "authentication error" in node.log()), f"hub: {node.log_tail()}")
        check(node.leafs() == [], "let in")
        other.stop()
        other = Node(leaf, listen=False, remotes=[url(node, "edge:secret@")])
        node.linked()
    finally:
        for each in (other, node):
            if each:
                each.stop()


@pair
def mappings_apply(hub, leaf):
    with Link(hub, leaf, hub_config="mappings: { order: shop.order, gone: shop.gone }") as link:
        link.at_hub.sub("shop.*")
        link.at_hub.sub("shop.order", "q")
        barrier(link.at_hub, link.at_leaf)
        check(until(lambda: "order" in link.leaf.interest()), f"sources told: {link.leaf.interest()}")
        link.at_leaf.pub("order", "x")
        link.at_leaf.pub("gone", "y")
        got = [(m.subject, m.payload) for m in barrier(link.at_hub, link.at_leaf)]
        check(got == [("shop.order", b"x")] * 2 + [("shop.gone", b"y")], f"{got}")


# ---------------------------------------------------------------------------------------------------- options


def is_old(*binaries):
    return any("2.9" in version(binary) for binary in binaries)


@pair
def a_token_in_the_url(hub, leaf):
    if is_old(hub, leaf):  # 2.9 knows no tokens of leafnodes
        return
    with Node(hub, "authorization { token: secret }") as center:
        with Node(leaf, listen=False, remotes=[url(center, "wrong@")]) as edge:
            check(until(lambda: "Authorization Violation" in edge.log(), 8), edge.log_tail())
            check(center.leafs() == [], "let in")
        with Node(leaf, listen=False, remotes=[url(center, "secret@")]):
            center.linked()


@pair
def isolation_is_asked_for(hub, leaf):
    """request_isolation: the hub does not tell this one what other leafnodes want."""
    if is_old(hub, leaf):
        return
    with Node(hub) as center, Node(leaf, listen=False, remotes=[url(center) + ", request_isolation: true"]) as alone, \
            Node(leaf, listen=False, remotes=[url(center)]) as other:
        center.linked(2)
        check(sorted(bool(row.get("is_isolated")) for row in center.leafs()) == [False, True], "is_isolated in /leafz")
        with Client(other) as east, Client(center) as middle, Client(alone) as west:
            east.sub("east")
            middle.sub("middle")
            west.sub("west")
            barrier(middle, west)
            check(until(lambda: other.interest() == ["middle", "west"]), f"the other one: {other.interest()}")
            check(alone.interest() == ["middle"], f"the one that asked: {alone.interest()}")


@pair
def isolation_on_our_side(hub, leaf):
    """isolate of a remote: the hub is not told what our own leafnodes want."""
    if is_old(hub, leaf):
        return
    with Node(hub) as center, Node(leaf, remotes=[url(center) + ", isolate: true"]) as middle, \
            Node(leaf, listen=False, remotes=[url(middle)]) as end:
        center.linked()
        middle.linked(2)
        with Client(end) as far, Client(middle) as near, Client(center) as top:
            far.sub("far")
            near.sub("near")
            top.sub("top")
            barrier(near, top)
            barrier(top, far)
            check(until(lambda: center.interest() == ["near"]), f"the hub was told {center.interest()}")
            check(until(lambda: "top" in end.interest()), f"the end was told {end.interest()}")


@pair
def disabled_remotes_stay_away(hub, leaf):
    if is_old(hub, leaf):
        return
    with Node(hub) as one, Node(hub) as two, Node(leaf, listen=False, remotes=[url(one) + ", disabled: true", url(two)]):
        two.linked()
        time.sleep(1.2)
        check(one.leafs() == [], "connected to the disabled one")


@pair
def servers_it_is_told_of(hub, leaf):
    """leafnode_urls of INFO: the cluster's, but for no_advertise and advertise; and a remote may ignore them."""
    if is_old(hub, leaf):
        return
    with Members("HUBS") as hubs:
        first = hubs.add(hub)
        second = hubs.add(hub, leaf='no_advertise: true')
        third = hubs.add(hub, leaf='advertise: "leafs.example:1234"')
        hubs.formed()

        def told(node):
            raw, info = solicit(node, None)
            raw.sock.close()
            return sorted(info["leafnode_urls"])
        urls = [f"{HOST}:{first.leaf_port}", f"{HOST}:{second.leaf_port}"]
        check(until(lambda: told(first) == sorted([urls[0], "leafs.example:1234"])), f"{told(first)}")
        check(until(lambda: "leafs.example:1234" in told(second)), f"the one that does not advertise: {told(second)}")
        check(until(lambda: told(third) == sorted(["leafs.example:1234", urls[0]])), f"advertise: {told(third)}")
        with Node(leaf, listen=False, leaf='reconnect: "100ms"', remotes=[url(first) + ", ignore_discovered_servers: true"]):
            first.linked()
            first.stop()
            time.sleep(1.5)
            check(second.leafs() == [] and third.leafs() == [], "went to one it was told of")


# ---------------------------------------------------------------------------------------------------- topologies


@pair
def a_chain_of_three(hub, leaf):
    """hub <- leaf <- hub's kind: a leaf of a leaf reaches the hub."""
    with Link(hub, leaf) as link:
        link.leaf.stop()
        link.leaf = Node(leaf, remotes=[url(link.hub)])
        link.hub.linked()
        end = Node(hub, listen=False, remotes=[url(link.leaf)])
        try:
            link.leaf.linked(2)
            far = Client(end)
            far.sub("down")
            link.at_hub.sub("up")
            link.at_hub.sub("up", "q")
            barrier(far, link.at_hub)
            barrier(link.at_hub, far)
            link.at_hub.pub("down", "1")
            far.expect_message("down", "1")
            far.pub("up", "2")
            got = [(m.subject, m.payload) for m in barrier(link.at_hub, far)]
            check(got == [("up", b"2")] * 2, f"{got}")
            middle = Client(link.leaf)
            middle.sub("up")
            middle.sub("down")
            barrier(middle, far)
            barrier(middle, link.at_hub)
            far.pub("up", "3")
            middle.expect_message("up", "3")
            link.at_hub.pub("down", "4")
            middle.expect_message("down", "4")
            far.expect_message("down", "4")
            # requests all the way
            inbox = "_INBOX.far"
            far.sub(inbox)
            service = Client(link.hub)
            service.sub("service")
            barrier(service, far)
            far.pub("service", "?", reply=inbox)
            service.pub(service.message().reply, "!")
            check([m.payload for m in barrier(far, service)] == [b"!"], "an answer from the hub")
        finally:
            end.stop()


@pair
def two_leafs_of_a_hub(hub, leaf):
    for isolated in (False, True):
        with Link(hub, leaf) as link:
            if isolated:
                if "2.9" in version(hub):
                    return
                link.hub.stop()
                link.hub = Node(hub, leaf="isolate_leafnode_interest: true", leaf_port=link.hub.leaf_port)
                link.hub.linked()
            second = Node(leaf, listen=False, remotes=[url(link.hub)])
            try:
                link.hub.linked(2)
                other = Client(second)
                other.sub("east")
                if isolated:
                    center = Client(link.hub)
                    center.sub("center")
                    barrier(center, link.at_leaf)
                    check(until(lambda: link.hub.interest() == ["east"]), "the hub knows")
                    check(until(lambda: link.leaf.interest() == ["center"]), f"isolated: {link.leaf.interest()}")
                    link.at_leaf.pub("east", "x")
                else:
                    barrier(other, link.at_leaf)
                    link.at_leaf.pub("east", "x")
                    got = [m.payload for m in barrier(other, link.at_leaf)]
                    check(got == [b"x"], f"west to east: {got}")
            finally:
                second.stop()


@pair
def loops_are_refused(hub, leaf):
    """The leaf's leaf connects to the hub as well: whoever hears its own loop subject closes the link it came by. Which
    links those are is a matter of microseconds, with nats-server too."""
    with Link(hub, leaf) as link:
        link.leaf.stop()
        link.leaf = Node(leaf, remotes=[url(link.hub)])
        link.hub.linked()
        third = Node(leaf, listen=False, remotes=[url(link.leaf), url(link.hub)])
        nodes = (link.hub, link.leaf, third)
        try:
            text = 'Loop detected for leafnode account=\\"$G\\". Delaying attempt to reconnect for 30s'.replace("\\", "")
            check(until(lambda: any(text in node.log() for node in nodes), 15),
                  "no loop found: " + " | ".join(node.log_tail() for node in nodes))
            check(until(lambda: sum(len(node.leafs()) for node in nodes) <= 4), f"{[len(n.leafs()) for n in nodes]}")
            # What is left is no circle: nothing comes twice, and nobody tries again at once.
            clients = [Client(node) for node in nodes]
            for client in clients:
                client.sub("round")
                client.sync()
            time.sleep(1.5)
            check(sum(len(node.leafs()) for node in nodes) <= 4, "a circle again")
            clients[0].pub("round", "x")
            time.sleep(0.3)
            for client in clients:
                client.sync()
                check(len(client.kept) <= 1, f"{len(client.kept)} copies")
            check(len(clients[0].kept) == 1, "not even its own")
        finally:
            third.stop()


@pair
def the_same_cluster_name_is_refused(hub, leaf):
    node = Node(hub, 'cluster { name: "C" }')
    other = None
    try:
        other = Node(leaf, 'cluster { name: "C" }', listen=False, remotes=[url(node)])
        check(until(lambda: "remote leafnode has same cluster name" in node.log()), node.log_tail())
        check(until(lambda: "Delaying attempt to reconnect for 30s" in other.log()), other.log_tail())
    finally:
        for each in (other, node):
            if each:
                each.stop()


@pair
def roles_can_be_swapped(hub, leaf):
    with Link(hub, leaf, remote="hub: true") as link:
        check(link.hub.leafs()[0].get("is_spoke", True) is True, "the acceptor's role")
        check(link.leaf.leafs()[0].get("is_spoke", False) is False, "the solicitor's role")
        for receiver, sender in link.sides():
            receiver.sub("swap")
            barrier(receiver, sender)
            sender.pub("swap", "x")
            check([m.payload for m in barrier(receiver, sender)] == [b"x"], "crosses")


@pair
def too_old_versions_are_refused(hub, leaf):
    node = Node(hub, leaf="min_version: 99.0.0")
    other = None
    try:
        other = Node(leaf, listen=False, remotes=[url(node)])
        text = 'connection rejected since minimum version required is "99.0.0"'
        if "2.9" not in version(hub):
            check(until(lambda: text in node.log()), node.log_tail())
        check(until(lambda: "connection closed" in node.log(), 5) or "2.9" in version(hub), node.log_tail())
        check(node.leafs() == [], "let in")
    finally:
        for each in (other, node):
            if each:
                each.stop()


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


@pair
def hubs_in_a_cluster(hub, leaf):
    """A leaf of one hub talks with clients of the other; when its hub goes, it finds the other by what INFO said."""
    with Members("HUBS") as hubs:
        first = hubs.add(hub)
        second = hubs.add(leaf)
        hubs.formed()
        edge = Node(leaf, listen=False, remotes=[url(first)])
        try:
            first.linked()
            far, near, at_edge = Client(second), Client(first), Client(edge)
            far.sub("up")
            far.sub("up", "q")
            near.sub("up", "q")
            at_edge.sub("down")
            for client in (far, near):
                barrier(client, at_edge)
                barrier(at_edge, client)
            for n in range(20):
                at_edge.pub("up", str(n))
            plain, queued = barrier(far, at_edge), barrier(near, at_edge)
            check(len(plain) + len(queued) == 40, f"{len(plain)} + {len(queued)}")
            far.pub("down", "1")
            near.pub("down", "2")
            got = sorted(m.payload for m in barrier(at_edge, far) + barrier(at_edge, near))
            check(got == [b"1", b"2"], f"{got}")
            inbox = "_INBOX.cluster"
            far.sub(inbox)
            at_edge.sub("service")
            barrier(at_edge, far)
            far.pub("service", "?", reply=inbox)
            at_edge.pub(at_edge.message().reply, "!")
            check([m.payload for m in barrier(far, at_edge) if m.subject == inbox] == [b"!"], "an answer from the edge")
            first.stop()
            second.linked()
            barrier(at_edge, far)
            far.pub("down", "3")
            at_edge.expect_message("down", "3")
        finally:
            edge.stop()


@pair
def leafs_in_a_cluster(hub, leaf):
    """Two servers of one cluster, each with a connection to the hub: nothing goes round by it, nothing comes twice."""
    center = Node(hub)
    try:
        with Members("EDGE") as edge:
            first = edge.add(leaf, listen=False, remotes=[url(center)])
            second = edge.add(leaf, listen=False, remotes=[url(center)])
            edge.formed()
            center.linked(2)
            one, two, middle = Client(first), Client(second), Client(center)
            for client in (one, two, middle):
                client.sub("all")
            one.sub("work", "q")
            two.sub("work", "q")
            for client in (one, two):
                barrier(client, middle)
                barrier(middle, client)
            barrier(two, one)
            barrier(one, two)
            for n, sender in enumerate((one, two, middle)):
                sender.pub("all", str(n))
                for receiver in (one, two, middle):
                    if receiver is not sender:
                        got = [m.payload for m in barrier(receiver, sender) if m.subject == "all"]
                        check(got == [str(n).encode()], f"from {n}: {got}")
                sender.sync()
                check([m.payload for m in sender.kept] == [str(n).encode()], f"its own: {len(sender.kept)}")
                sender.kept.clear()
            for n in range(20):
                middle.pub("work", str(n))
            got = [m for m in barrier(one, middle) + barrier(two, middle) if m.subject == "work"]

            def all_there():  # one of the cluster may have handed some to the other
                for client in (one, two):
                    client.sync()
                    got.extend(client.kept)
                    client.kept.clear()
                return len(got) >= 20
            until(all_there)
            check(len(got) == 20, f"{len(got)} of 20")
            # what only the cluster itself wants is not told to it
            two.sub("private")
            two.sync()
            check(until(lambda: "private" in center.interest()), "the hub knows")
            middle.sub("public")
            barrier(middle, one)
            check("private" not in [s for each in first.leafs() for s in each.get("subscriptions_list") or []],
                  "told back to its own cluster")
    finally:
        center.stop()


@pair
def one_cluster_on_two_hubs(hub, leaf):
    """Both servers of a leafnode cluster have a connection to the same cluster of hubs, one to each: what the cluster wants is known
    there as its own, nothing comes back to it by way of the other hub, and nothing comes twice."""
    with Members("HUBS") as hubs:
        first = hubs.add(hub)
        second = hubs.add(leaf)
        hubs.formed()
        with Members("EDGE") as edge:
            low = edge.add(leaf, listen=False, remotes=[url(first)])
            high = edge.add(leaf, listen=False, remotes=[url(second)])
            edge.formed()
            first.linked()
            second.linked()
            near, far, one, two = Client(first), Client(second), Client(low), Client(high)
            every = (near, far, one, two)
            for client in every:
                client.sub("all")
            two.sub("home")
            for receiver in every:
                for sender in every:
                    if receiver is not sender:
                        barrier(receiver, sender)
            for n, sender in enumerate(every):
                for round_trip in range(20):
                    sender.pub("all", f"{n}.{round_trip}")
                sender.sync()
                sender.kept.clear()
                for receiver in every:
                    if receiver is not sender:
                        got = [m.payload for m in barrier(receiver, sender) if m.subject == "all"]
                        check(got == [b"%d.%d" % (n, each) for each in range(20)], f"from {n} to {every.index(receiver)}: {got}")
            time.sleep(0.2)
            for n, client in enumerate(every):
                client.sync()
                check(not [m for m in client.kept if m.subject == "all" and not m.payload.startswith(b"%d." % n)], f"{n} heard something twice")
                client.kept.clear()

            # (Servers before 2.10 take interest back without saying whose it was; ours tells it to them as its own.)
            if "v2.9" in version(hub) + version(leaf):
                return
            # What only the cluster itself wants stays within it: no hub hears of such a message, none hands it to the other.
            def heard():
                return [sum(row["in_msgs"] + row["out_msgs"] for row in node.get_json("/routez")["routes"]) for node in (first, second)]
            before = heard()
            for n in range(50):
                one.pub("home", str(n))
            one.sync()
            got = [m.payload for m in barrier(two, one) if m.subject == "home"]
            check(got == [str(n).encode() for n in range(50)], f"within the cluster: {len(got)} of 50")
            most = 40  # the barrier's own
            check(all(b - a < most for a, b in zip(before, heard())), f"messages between the hubs: {before}, then {heard()}")

            # A queue group has members among the other hub's clients and in the cluster: clients come first.
            far.sub("work", "q")
            two.sub("work", "q")
            for client in (far, two):
                barrier(client, near)
            for n in range(30):
                near.pub("work", str(n))
            near.sync()
            got = len([m for m in barrier(far, near) if m.subject == "work"])
            check(got == 30, f"{got} of 30 to the client of the other hub")


@pair
def through_gateways(hub, leaf):
    """The last section of the tutorial: a leafnode of one cluster and clients of another reach each other."""
    ports = []
    for _ in range(2):
        ports.append(free_port())
    others = ", ".join(f'{{ name: {name}, url: "nats://{HOST}:{port}" }}' for name, port in zip("AB", ports))

    def config(n):
        # nats-server wants the system account named when leafnodes and gateways meet.
        system = 'accounts { "$SYS": { users: [ { user: sys, password: sys } ] } }\n' if is_reference((hub, leaf)[n]) else ""
        return ('system_account: "$SYS"\n' + system +
                f'gateway {{ name: {"AB"[n]}, listen: "{HOST}:{ports[n]}", gateways: [ {others} ] }}\n')
    center = Node(hub, config(0))
    away = edge = None
    try:
        away = Node(leaf, config(1))
        edge = Node(leaf, listen=False, remotes=[url(center)])
        center.linked()
        for node in (center, away):
            check(until(lambda: node.get_json("/gatewayz")["outbound_gateways"], 20), node.log_tail())
            check(until(lambda: node.get_json("/gatewayz")["inbound_gateways"], 20), node.log_tail())
        far, near = Client(away), Client(edge)
        far.sub("far")
        near.sub("near")
        near.sub("near", "q")
        barrier(far, near)
        barrier(near, far)
        near.pub("far", "1")
        far.expect_message("far", "1")
        far.pub("near", "2")
        got = [m.payload for m in barrier(near, far)]
        check(got == [b"2"] * 2, f"{got}")
        for asker, answerer in ((far, near), (near, far)):
            inbox = f"_INBOX.{'far' if asker is far else 'near'}"
            subject = f"service.{inbox}"
            answerer.sub(subject)
            barrier(answerer, asker)
            asker.sub(inbox)
            for n in range(5):
                asker.pub(subject, str(n), reply=inbox)
                question = answerer.message()
                answerer.pub(question.reply, b"answer " + question.payload)
                asker.expect_message(inbox, f"answer {n}")
    finally:
        for node in (edge, away, center):
            if node:
                node.stop()


# ---------------------------------------------------------------------------------------------------- byte for byte


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


@alone
def an_accepted_connection_word_for_word(server):
    with Node(server, "server_name: hubname") as node:
        raw, info = solicit(node)
        for field, value in {"server_name": "hubname", "auth_required": True, "headers": True, "max_payload": 1048576,
                             "info_on_connect": True, "compression": "s2_auto", "proto": 3,
                             "leafnode_urls": [f"{HOST}:{node.leaf_port}"], "ip": f"{HOST}:{node.leaf_port}"}.items():
            check(info.get(field) == value, f"INFO {field}: {info.get(field)}")
        check(info["nonce"] and info["client_id"] and "cluster" not in info, "INFO nonce, client_id, cluster")
        second = raw.until("INFO")[-1]
        info = json.loads(second[5:])
        check(info["connect_info"] is True and info["remote_account"] == "$G", second)
        loop = raw.until("LS+ $LDS.")[-1].split(" ")[1]
        check(len(loop) == 5 + 22, loop)
        with Client(node) as client:
            client.sub("x.y")
            client.sub("x.>", "q")
            client.sub("x.>", "q")
            client.sync()
            lines = raw.until("LS+ x.> q 2")
            check("LS+ x.y" in lines and "LS+ x.> q 1" in lines, f"{lines}")
            raw.send("LS+ a\nLS+ b g 3\nPING\n")
            raw.until("PONG")
            check(until(lambda: node.interest() == ["a", "b"]), f"{node.interest()}")
            client.pub("a", "1", reply="r")
            client.pub("b", "2")
            client.pub("b", "3", reply="r")
            client.pub("a", "4", header=b"NATS/1.0\r\n\r\n")
            client.sync()
            lines = raw.until("HMSG") + [raw.line(), raw.line()]
            expected = ["LMSG a r 1", "1", "LMSG b | g 1", "2", "LMSG b + r g 1", "3", "HMSG a 12 13", "NATS/1.0", ""]
            check([line for line in lines if line != "PING"] == expected, f"{lines}")
            check(raw.line() == "4", "body")
            raw.send("LMSG x.y 1\n5\nLMSG x.z 1\nno\n".replace("no", "n"))
            client.expect_message("x.y", "5")
            raw.send("LMSG x.y + re q 1\n6\nHMSG x.z | q 12 13\nNATS/1.0\n\n7\n")
            got = [client.message() for _ in range(3)]
            check(sorted(m.payload for m in got) == [b"6", b"6", b"7"], f"{[m.payload for m in got]}")
            check(all(m.reply == ("re" if m.payload == b"6" else "") for m in got), "reply")
            raw.send("LS- a\nLS- b g\nPING\n")
            raw.until("PONG")
            check(until(lambda: node.interest() == []), f"{node.interest()}")
            client.send(b"UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\n")
            lines = raw.until("LS- x.> q")
            check("LS- x.y" in lines and "LS+ x.> q 1" in lines, f"{lines}")
        # our own loop subject comes back
        raw.send(f"LS+ {loop}\n")
        text = raw.closed()
        check('-ERR \'Loop detected for leafnode account="$G". Delaying attempt to reconnect for 30s\'' in text, text)


@alone
def a_stream_in_any_pieces(server):
    """What a leafnode brings, alone and many alike: every subscriber gets what is meant for it, and the counts are true."""
    text, sent = stream("LMSG", "", ["t.a", "t.a", "t.b", "t.c", "t.d", "t.nobody"], 7, 150)
    with Node(server) as node, Client(node) as one, Client(node) as two, Client(node) as member:
        for client, subject, queue in ((one, "t.a", ""), (one, "t.c", ""), (two, "t.a", ""), (two, "t.*", ""), (member, "t.d", "q")):
            client.sub(subject, queue)
            client.sync()
        for number, pieces in enumerate((1 << 20, 70_000, 1400)):
            connect = {"version": "2.15.1", "server_id": f"NX{number}", "name": f"raw{number}", "headers": True, "protocol": 3}
            raw, _ = solicit(node, json.dumps(connect))
            raw.send("PING\n")
            raw.until("PONG")
            received = [[], [], []]
            drinkers = [threading.Thread(target=drink, args=each) for each in zip((one, two, member), received, (2, 4, 1))]
            for drinker in drinkers:
                drinker.start()
            for at in range(0, len(text), pieces):
                raw.sock.sendall(text[at:at + pieces])
            raw.send("PING\n")
            raw.until("PONG")
            row = node.leafs()[0]
            raw.send("LMSG t.a 3\nend\nLMSG t.c 3\nend\nLMSG t.d | q 3\nend\n")
            for drinker in drinkers:
                drinker.join(60)
            wanted = [[each for each in sent if each.subject in ("t.a", "t.c")],
                      [each for each in sent for _ in range(2 if each.subject == "t.a" else 1)],
                      [each for each in sent if each.queue and each.subject == "t.d"]]
            for who, (got, should) in enumerate(zip(received, wanted)):
                should = [(each.subject, each.reply, each.headers, each.payload) for each in should]
                check(sorted(got) == sorted(should), f"client {who}, pieces of {pieces}: {len(got)} messages instead of {len(should)}")
                for subject in {each[0] for each in should}:
                    same = [[each for each in some if each[0] == subject] for some in (got, should)]
                    check(who == 1 or same[0] == same[1], f"client {who}, pieces of {pieces}: the order on {subject}")
            check(row["in_msgs"] == len(sent), f"in_msgs {row['in_msgs']}, not {len(sent)}")
            raw.sock.close()
            check(until(lambda: node.leafs() == []), "the leafnode stays")


def drink(client, got, ends):
    """Messages up to the last of so many that say "end"."""
    while ends > 0:
        message = client.message(30)
        if message.payload == b"end":
            ends -= 1
        else:
            got.append((message.subject, message.reply, message.header, message.payload))


@alone
def a_second_connection_of_one_server_replaces_the_first(server):
    connect = '{"version":"2.15.1","server_id":"NX","name":"raw","cluster":"RAW","headers":true,"remote_account":"$G"}'
    with Node(server) as node:
        first, _ = solicit(node, connect)
        first.until("LS+ $LDS.")
        second, _ = solicit(node, connect)
        second.until("LS+ $LDS.")
        text = first.closed()
        check("-ERR 'Duplicate Remote LeafNode Connection'" in text, text)
        check(until(lambda: len(node.leafs()) == 1), f"{len(node.leafs())} leafnodes")
        check("Replacing connection from same server" in node.log(), node.log_tail())


@alone
def wrong_visitors_are_turned_away(server):
    with Node(server, 'cluster { name: "HERE" }') as node:
        for connect, error in {
            '{"lang":"go","version":"1.0"}': "attempted to connect to leaf node port",
            '{"version":"2.15.1","name":"x","cluster":"two words"}': "cluster name cannot contain spaces",
            '{"version":"2.15.1","name":"x","cluster":"HERE"}': "remote leafnode has same cluster name",
            '{"version":"2.15.1","name":"x","gateway":"GW"}': 'Rejecting connection from gateway "GW" on the leafnode port',
        }.items():
            raw, _ = solicit(node, connect)
            text = raw.closed()
            check(f"-ERR '{error}'" in text, f"{connect}: {text}")
        for line, error in {"LS+ foo\n": "Authorization Violation", "BOGUS\n": ""}.items():
            raw, _ = solicit(node, None)
            raw.send(line)
            text = raw.closed()
            check(error in text, f"{line}: {text}")
        check(node.leafs() == [], "somebody stayed")


@alone
def a_hub_that_says_nothing(server):
    """first_info_timeout: the next attempt follows."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        remote = f'url: "nats://{HOST}:{listener.getsockname()[1]}", first_info_timeout: "300ms"'
        with Node(server, listen=False, remotes=[remote], leaf='reconnect: "200ms"'):
            first, _ = listener.accept()
            first.settimeout(5)
            check(first.recv(100) == b"", "it gave up without closing")
            listener.accept()[0].close()


def logged_at(node, text):
    """When the log said that first; seconds of the day."""
    line = next(line for line in node.log().splitlines() if text in line)
    hours, minutes, seconds = line.split()[2].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@alone
def a_hub_that_cannot_be_reached(server):
    """dial_timeout: a port whose queue is full answers no SYN."""
    with socket.socket() as listener, contextlib.ExitStack() as queue:
        listener.bind((HOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((HOST, port))
        remote = f'url: "nats://{HOST}:{port}", dial_timeout: "2500ms"'
        with Node(server, listen=False, remotes=[remote], args=["-D"]) as node:
            failed = f"dial tcp {HOST}:{port}: i/o timeout"
            check(until(lambda: failed in node.log(), 10), node.log_tail())
            took = (logged_at(node, failed) - logged_at(node, "Trying to connect as leafnode to remote server")) % 86400
            check(took > 2.4, f"given up after {took} s")  # the usual time is a second


@alone
def a_leaf_that_does_not_read(server):
    """write_deadline, and write_timeout: close."""
    with Node(server, leaf='write_deadline: "300ms"\nwrite_timeout: close') as node, Client(node) as client:
        raw, _ = solicit(node)
        raw.until("LS+ $LDS.")
        raw.send("LS+ flood\nPING\n")
        raw.until("PONG")
        for _ in range(24):  # more than two sockets hold, less than what may wait
            client.pub("flood", bytes(1 << 20))
        client.sync(60)
        closed = "Leafnode connection closed: Slow Consumer (Write Deadline)"
        check(until(lambda: closed in node.log(), 10), node.log_tail())
        check("Slow Consumer Detected: WriteDeadline of 300" in node.log(), node.log_tail())
        check(until(lambda: node.leafs() == []), "still there")
        raw.sock.close()


@alone
def a_solicited_connection_word_for_word(server):
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        remote = f'url: "nats://me:pw@{HOST}:{port}", deny_imports: ["no.in"], compression: off'
        with Node(server, "server_name: spoke", listen=False, remotes=[remote], leaf='reconnect: "200ms"') as node:
            raw = Raw(listener.accept()[0])
            info = {"server_id": "NHUB", "server_name": "hub", "version": "2.15.1", "proto": 3, "go": "go1.24", "host": HOST,
                    "port": port, "headers": True, "auth_required": True, "max_payload": 1048576, "client_id": 7,
                    "nonce": "abc", "cluster": "HUB", "info_on_connect": True, "leafnode_urls": [f"{HOST}:{port}"]}
            raw.send("INFO " + json.dumps(info) + " \n")
            connect = json.loads(raw.until("CONNECT")[-1][8:])
            for field, value in {"user": "me", "pass": "pw", "name": "spoke", "cluster": "spoke", "headers": True,
                                 "deny_pub": ["no.in"], "remote_account": "$G", "protocol": 3}.items():
                check(connect.get(field) == value, f"CONNECT {field}: {connect.get(field)}")
            check("is_hub" not in connect, "is_hub")
            info.update(connect_info=True, remote_account="$G", export={"allow": ["up.>"]}, **{"import": {"deny": ["no.too"]}})
            raw.send("INFO " + json.dumps(info) + " \n")
            raw.until("LS+ $LDS.")
            with Client(node) as client:
                for subject in ("no.in", "no.too", "yes"):
                    client.sub(subject)
                client.sync()
                lines = raw.until("LS+ yes")
                check(not any("no." in line for line in lines), f"{lines}")
                raw.send("LS+ up.a\nLS+ other\nPING\n")
                raw.until("PONG")
                client.pub("other", "x")
                client.pub("up.a", "y")
                client.sync()
                lines = raw.until("LMSG")
                check(lines[-1] == "LMSG up.a 1", f"{lines}")
            # a loop the hub has found: no attempt for 30 s
            raw.send('-ERR \'Loop detected for leafnode account="$G". Delaying attempt to reconnect for 30s\'\n')
            raw.closed()
            check(until(lambda: "Loop detected" in node.log()), node.log_tail())
            listener.settimeout(2.5)
            try:
                listener.accept()
                raise AssertionError("it came back at once")
            except TimeoutError:
                pass


@alone
def urls_are_tried_in_turn(server):
    """The second URL is dead; one that the hub names in INFO is used when the first goes."""
    with Node(server) as hub, socket.create_server((HOST, 0)) as dead:
        port = dead.getsockname()[1]
        dead.close()
        remote = f'urls: ["nats://{HOST}:{port}", "nats://{HOST}:{hub.leaf_port}"], no_randomize: true'
        with Node(server, listen=False, remotes=[remote], leaf='reconnect: "100ms"') as leaf:
            leaf.linked()
            check("Error trying to connect as leafnode to remote server" in leaf.log(), leaf.log_tail())
            check("connection refused" in leaf.log(), leaf.log_tail())


@alone
def the_flag_of_the_tutorial(server):
    """-leafnode URL[,URL]: nats-server has no such flag, whatever its documentation says."""
    if is_reference(server):
        return
    with Node(server) as hub, socket.create_server((HOST, 0)) as dead:
        port = dead.getsockname()[1]
        dead.close()
        urls = f"nats://{HOST}:{hub.leaf_port},nats://{HOST}:{port}"
        with Broker(server, args=["-leafnode", urls]) as leaf:
            hub.linked()
            check(leaf.get_json("/varz")["leafnodes"] == 1, "leafnodes of /varz")
            shown = leaf.get_json("/varz")["leaf"]
            check(shown["remotes"][0]["local_account"] == "$G", f"{shown}")
            row = [r for r in hub.get_json("/connz")["connections"] if r["kind"] == "Leafnode"]
            check(len(row) == 1 and row[0]["name"] == hub.leafs()[0]["name"], "leafnodes of /connz")


@alone
def wrong_configurations_are_refused(server):
    for config, text in {
        'leafnodes { remotes: [ { url: "nats://127.0.0.1:1", account: "A" } ] }': 'cannot find local account "A" specified in',
        'leafnodes { port: -1, min_version: "2.7.0" }': "the minimum version should be at least 2.8.0",
        'leafnodes { remotes: [ { url: "nats://127.0.0.1:1" }, { url: "nats://127.0.0.1:1" } ] }': "duplicate remote",
        'leafnodes { port: -1, authorization { users: [ { user: a, password: a }, { user: a, password: b } ] } }':
            'duplicate user "a" detected in leafnode authorization',
    }.items():
        try:
            Broker(server, config).stop()
            raise AssertionError(f"started: {config}")
        except StartError as error:
            check(text in str(error), f"{config}: {error}")


# ---------------------------------------------------------------------------------------------------- running

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=default_server(), help="broker under test")
    parser.add_argument("--against", default=find_reference(), help="newest nats-server, or none")
    parser.add_argument("--older", default="/usr/sbin/nats-server", help="an older nats-server, if it is there")
    parser.add_argument("--only", action="append", help="only cases whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--jobs", type=int, default=4, help="cases at a time")
    options = parser.parse_args()
    kinds = {"us": os.path.abspath(options.server)}
    if options.against and options.against != "none":
        kinds["new"] = os.path.abspath(options.against)
        if os.access(options.older, os.X_OK):
            kinds["old"] = os.path.abspath(options.older)
    for binary in kinds.values():
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not an executable")

    cases = []
    for name, function in PAIRS + secured.PAIRS:
        for hub in kinds:
            for leaf in kinds:
                # Between nats-servers the newest pair is enough.
                if "us" in (hub, leaf) or (hub, leaf) == ("new", "new"):
                    cases.append((f"{name}: {hub}<-{leaf}", function, (kinds[hub], kinds[leaf])))
    for name, function in ALONE + secured.ALONE:
        for kind in kinds:
            if kind != "old":
                cases.append((f"{name}: {kind}", function, (kinds[kind],)))
    if options.only:
        cases = [case for case in cases if any(word in case[0] for word in options.only)]
    if options.list:
        for name, _, _ in cases:
            print(name)
        return 0

    tally = Tally()
    lock = threading.Lock()

    def hold(case):
        name, function, arguments = case
        start = time.monotonic()
        reason = None
        try:
            function(*arguments)
        except Exception as error:  # whatever goes wrong is the case's failure
            reason = f"{type(error).__name__}: {error}"
        with lock:
            if reason:
                tally.fail(name, reason)
            else:
                tally.ok(name, f"{time.monotonic() - start:.1f} s")

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(hold, cases))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
