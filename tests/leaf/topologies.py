"""More than one link: chains, circles, clusters at either end, and gateways behind."""

import time

from servers import HOST, Client, Link, Members, Node, barrier, check, url, version
from pairs import pair
from broker import free_port, is_reference, until


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
    same = 'cluster { name: "C" }'
    with Node(hub, same) as node, Node(leaf, same, listen=False, remotes=[url(node)]) as other:
        check(until(lambda: "remote leafnode has same cluster name" in node.log()), node.log_tail())
        check(until(lambda: "Delaying attempt to reconnect for 30s" in other.log()), other.log_tail())


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
    with Node(hub, leaf="min_version: 99.0.0") as node, Node(leaf, listen=False, remotes=[url(node)]):
        text = 'connection rejected since minimum version required is "99.0.0"'
        if "2.9" not in version(hub):
            check(until(lambda: text in node.log()), node.log_tail())
        check(until(lambda: "connection closed" in node.log(), 5) or "2.9" in version(hub), node.log_tail())
        check(node.leafs() == [], "let in")


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
