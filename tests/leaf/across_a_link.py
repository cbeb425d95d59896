"""What goes across one link, and what its options change in that."""

import os
import random
import time

from servers import HOST, Client, Link, Members, Node, barrier, check, is_old, solicit, url, version
from pairs import pair
import client as talking
from across import conversation
from broker import until


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
    with Node(hub, accounts) as node, Node(leaf, listen=False, remotes=[url(node, "edge:edge@")]) as other:
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


@pair
def wrong_password_is_refused(hub, leaf):
    with Node(hub, leaf="authorization { user: edge, password: secret }") as node:
        with Node(leaf, listen=False, remotes=[url(node, "edge:wrong@")]) as other:
            check(until(lambda: "Authorization Violation" in other.log(), 8), f"leaf: {other.log_tail()}")
            check(until(lambda: "authentication error" in node.log()), f"hub: {node.log_tail()}")
            check(node.leafs() == [], "let in")
        with Node(leaf, listen=False, remotes=[url(node, "edge:secret@")]):
            node.linked()


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
            check(until(lambda: alone.interest() == ["middle"]), f"the one that asked: {alone.interest()}")


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


@pair
def a_hub_that_does_not_advertise(hub, leaf):
    if is_old(leaf) and not is_old(hub):  # the newest hub's INFO names no URL then, which 2.9 takes for another port's
        return
    with Link(hub, leaf, hub_leaf="no_advertise: true") as link:
        conversation(at(link.hub), at(link.leaf))
