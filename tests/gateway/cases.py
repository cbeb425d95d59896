"""What must hold between clusters, whatever servers they are made of."""

import collections
import random
import socket
import time

from broker import until
from registry import check, equal
from supercluster import SuperCluster

CASES = []


def case(short=False):
    def register(body):
        body.short = short
        CASES.append(body)
        return body
    return register


def places(mix):
    return [(i, j) for i, cluster in enumerate(mix) for j in range(len(cluster))]


@case(short=True)
def every_kind_between_all_clusters(mix):
    """Plain, wildcard, headers, large and empty payloads from every node to every cluster: each message once, in order."""
    with SuperCluster(mix) as world:
        world.start()
        readers = [world.client(i, j, echo=False) for i, j in places(mix)]
        plain = [client.sub("t.plain") for client in readers]
        star = [client.sub("t.*") for client in readers]
        for i in range(len(mix)):
            world.wait_for_interest(i, "t.plain")
            world.wait_for_interest(i, "t.*")
        chance = random.Random(1)
        payloads = [chance.randbytes(size) for size in (0, 1, 100, 4096, 65536, 1 << 20)]
        for number, client in enumerate(readers):
            for payload in payloads:
                client.publish("t.plain", payload, reply=f"back.{number}")
            client.publish("t.heads", b"body", headers={"From": str(number)})
        for number, client in enumerate(readers):
            others = len(readers) - 1
            wanted = others * len(payloads)
            equal(len(plain[number].wait(wanted)), wanted, f"plain messages at {places(mix)[number]}")
            wanted += others
            equal(len(star[number].wait(wanted)), wanted, f"messages for * at {places(mix)[number]}")
        time.sleep(0.3)  # for what must not come
        for number, client in enumerate(readers):
            client.flush()
            equal(plain[number].count(), (len(readers) - 1) * len(payloads), "plain messages after a while")
            for sender in set(range(len(readers))) - {number}:
                got = [m.payload for m in plain[number].messages if m.reply == f"back.{sender}"]
                check(got == payloads, f"from {places(mix)[sender]} to {places(mix)[number]}: other payloads, or in another order")
            heads = sorted(m.headers for m in star[number].messages if m.headers)
            equal(heads, sorted(b"NATS/1.0\r\nFrom: %d\r\n\r\n" % n for n in range(len(readers)) if n != number), "headers")


@case(short=True)
def request_and_reply(mix):
    """A request whose inbox is made that moment finds its answer, from every node to a responder in every other cluster."""
    with SuperCluster(mix) as world:
        world.start()
        for at in range(len(mix)):
            responder = world.client(at, len(mix[at]) - 1)
            service = responder.sub(f"svc.{at}", on=lambda m, r=responder: r.publish(m.reply, b"answer to " + m.payload))
            world.wait_for_interest(at, f"svc.{at}")
            for i, j in places(mix):
                if len(mix[i]) > 1 and i == at:
                    continue
                for n in range(3):
                    client = world.client(i, j)
                    inbox = client.sub(f"_INBOX.{i}.{j}.{at}.{n}", flush=False)
                    client.publish(f"svc.{at}", f"{i}{j}{n}", reply=f"_INBOX.{i}.{j}.{at}.{n}")
                    got = inbox.wait(1)
                    equal([m.payload for m in got], [b"answer to %d%d%d" % (i, j, n)], f"from c{i + 1}n{j + 1} to c{at + 1}")
                    equal(got[0].subject, f"_INBOX.{i}.{j}.{at}.{n}", "the subject of the answer")
                    client.close()
            check(all(not m.reply.startswith("_GR_") for m in service.messages), "the responder was shown a mapped reply")
            responder.close()


@case(short=True)
def nobody_there(mix):
    """No responders: told at once, over all clusters; and no longer when somebody comes, and again when he has gone."""
    with SuperCluster(mix) as world:
        world.start()
        asker = world.client(0, 0)
        inbox = asker.sub("inbox.none")
        asker.publish("t.none", b"?", reply="inbox.none")
        got = inbox.wait(1)
        check(got and got[0].headers and b"503" in got[0].headers, f"no 503: {got}")
        last = len(mix) - 1
        other = world.client(last, 0)
        sub = other.sub("t.none")
        world.wait_for_interest(last, "t.none")
        asker.publish("t.none", b"?", reply="inbox.none")
        equal(len(sub.wait(1)), 1, "requests at the responder")
        other.unsub(sub)
        other.flush()
        world.wait_for_interest(last, "t.none", wanted=False)
        asker.publish("t.none", b"?", reply="inbox.none")
        got = inbox.wait(2)
        equal(len(got), 2, "503s")


@case(short=True)
def queue_groups_stay_home(mix):
    """A queue group is served in the publisher's cluster while it has a member there; else in one other cluster; never twice."""
    with SuperCluster(mix) as world:
        world.start()
        members = {}
        for i in range(len(mix)):
            client = world.client(i, len(mix[i]) - 1)
            members[i] = (client, client.sub("t.work", "team"))
        for i in range(len(mix)):
            world.wait_for_interest(i, "t.work")
        count = 40
        for i in range(len(mix)):
            publisher = world.client(i, 0)
            before = members[i][1].count()
            if len(mix[i]) > 1:
                node = world.clusters[i][0]
                check(until(lambda: any("t.work" in found for found in node.interest().values()), 10, 0.02), f"{node.name} knows of no member")
            for n in range(count):
                publisher.publish("t.work", b"%d" % n)
            publisher.flush()
            equal(len(members[i][1].wait(before + count)), before + count, f"at home, c{i + 1}")
        equal(sum(sub.count() for _, sub in members.values()), count * len(mix), "all messages")
        # Home has gone: somebody else serves, once each.
        client, sub = members.pop(0)
        client.unsub(sub)
        client.flush()
        world.wait_for_interest(0, "t.work", wanted=False)
        publisher = world.client(0, 0)
        before = sum(sub.count() for _, sub in members.values())
        time.sleep(0.2)
        for n in range(count):
            publisher.publish("t.work", b"away %d" % n)
        publisher.flush()
        check(until(lambda: sum(sub.count() for _, sub in members.values()) >= before + count, 10, 0.02), "messages for the group were lost")
        time.sleep(0.3)
        got = collections.Counter(m.payload for _, sub in members.values() for m in sub.messages if m.payload.startswith(b"away"))
        equal(set(got.values()), {1}, "deliveries of each message")
        equal(len(got), count, "messages")


@case(short=True)
def clusters_find_each_other(mix):
    """A triangle of which each cluster was told of one other only: gossip does the rest."""
    knows = [[(i + 1) % len(mix)] if i + 1 < len(mix) else [] for i in range(len(mix))]
    with SuperCluster(mix, knows=knows) as world:
        world.start()
        subs = []
        for i in range(len(mix)):
            client = world.client(i, 0, echo=False)
            subs.append((client, client.sub("t.hello")))
        for i in range(len(mix)):
            world.wait_for_interest(i, "t.hello")
        for client, _ in subs:
            client.publish("t.hello", b"x")
        for client, sub in subs:
            equal(len(sub.wait(len(mix) - 1)), len(mix) - 1, "greetings")


@case()
def a_cluster_that_goes_and_comes(mix):
    """Servers end and start again: gateways are there again, interest is exact, nothing comes twice, home traffic never stops."""
    with SuperCluster(mix) as world:
        world.start()
        home = world.client(0, 0)
        echo = home.sub("t.home")
        last = len(mix) - 1
        for node in world.clusters[last].nodes:
            node.end()
        for n in range(100):
            home.publish("t.home", b"%d" % n)
        equal(len(echo.wait(100)), 100, "messages at home while the other cluster was down")
        for node in world.clusters[last].nodes:
            node.start()
        world.formed(40)
        other = world.client(last, 0)
        sub = other.sub("t.again")
        world.wait_for_interest(last, "t.again")
        for n in range(50):
            home.publish("t.again", b"%d" % n)
        home.flush()
        equal([m.payload for m in sub.wait(50)], [b"%d" % n for n in range(50)], "messages after the return")
        time.sleep(0.2)
        equal(sub.count(), 50, "messages after a while")


@case(short=True)
def strangers_at_the_port(mix):
    """Clients, garbage and wrong names at the gateway port are told and cut off; what works goes on."""
    with SuperCluster(mix, options="reject_unknown_cluster: true") as world:
        world.start()
        for i, j in places(mix)[:2]:
            port = world.gateway_ports[i][j]

            def say(data):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                    sock.sendall(data)
                    got = b""
                    try:
                        while chunk := sock.recv(65536):
                            got += chunk
                    except ConnectionResetError:
                        pass
                    return got
            got = say(b'CONNECT {"verbose":false,"name":"a client"}\r\nPING\r\n')
            check(b"-ERR 'attempted to connect to gateway port'" in got, f"a client was told {got[-200:]!r}")
            got = say(b'CONNECT {"gateway":"unknown","name":"X"}\r\n')
            check(b"-ERR 'Connection to gateway \"c%d\" rejected'" % (i + 1) in got, f"an unknown cluster was told {got[-200:]!r}")
            say(b"GARBAGE\r\n")
        world.formed()
