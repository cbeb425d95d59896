"""What nodes know of each other's subscriptions: exact at any time, whatever clients do, and within what permissions allow."""

import os
import signal
import time

from broker import until
from nodes import Cluster
from registry import case, check, equal


@case(short=True)
def follows_subscriptions(mix):
    """/routez?subs=1 of everybody lists what there is: once per subject and queue, gone with the last one."""
    with Cluster(mix) as cluster:
        cluster.start()
        one, two, three = (cluster.client(i) for i in range(3))
        a1, a2 = one.sub("t.a"), one.sub("t.a")
        one.sub("t.*.b")
        one.sub("t.>")
        queue1, queue2 = two.sub("t.q", "workers"), two.sub("t.q", "workers")
        two.sub("t.q", "others")
        two.sub("t.q")
        three.sub("t.a")
        cluster.settle_interest({0: ["t.a", "t.*.b", "t.>"], 1: ["t.q"] * 3, 2: ["t.a"]})
        one.unsub(a1)
        one.flush()
        cluster.settle_interest({0: ["t.a", "t.*.b", "t.>"], 1: ["t.q"] * 3, 2: ["t.a"]})
        one.unsub(a2)
        two.unsub(queue1)
        one.flush()
        cluster.settle_interest({0: ["t.*.b", "t.>"], 1: ["t.q"] * 3, 2: ["t.a"]})
        two.unsub(queue2)
        two.flush()
        cluster.settle_interest({0: ["t.*.b", "t.>"], 1: ["t.q"] * 2, 2: ["t.a"]})
        one.close()
        cluster.settle_interest({1: ["t.q"] * 2, 2: ["t.a"]})
        for client in (two, three):
            client.close()
        cluster.settle_interest({})


@case(short=True)
def is_told_to_newcomers(mix):
    """Who joins later hears it all; who leaves takes its own along."""
    with Cluster(mix) as cluster:
        for index in (0, 1):
            cluster.configure(index)
            cluster[index].start()
        count = 500
        clients = [cluster.client(i) for i in range(2)]
        for i, client in enumerate(clients):
            for n in range(count):
                client.sub(f"t.{i}.{n}", f"q{n % 3}" if n % 2 else "", flush=False)
            client.flush()
        wanted = {i: [f"t.{i}.{n}" for n in range(count)] for i in range(2)}
        cluster.settle_interest(wanted)
        cluster.configure(2)
        cluster[2].start()
        cluster.formed()
        cluster.settle_interest(wanted)
        cluster[0].end()
        cluster.formed()
        cluster.settle_interest(wanted)


@case(nodes=2, short=True)
def in_great_number(mix):
    """Many subjects, added and taken away in bulk; the counts of /routez agree to the last one."""
    with Cluster(mix) as cluster:
        cluster.start()
        count = 20_000

        def counted():
            return sum(row["subscriptions"] for row in cluster[1].routes()[cluster[0].name])
        before = counted()
        client = cluster.client(0)
        subs = [client.sub(f"t.many.{n}.{n % 7}", flush=False) for n in range(count)]
        client.flush()
        check(until(lambda: counted() == before + count, 20), f"{counted() - before} of {count} subscriptions known")
        for sub in subs[::2]:
            client.unsub(sub)
        client.flush()
        check(until(lambda: counted() == before + count // 2, 20), f"{counted() - before} of {count // 2} subscriptions known")
        client.close()
        check(until(lambda: counted() == before, 20), f"{counted() - before} subscriptions too many")


@case(nodes=2)
def coming_and_going(mix):
    """The same subject on and off, fast: what stands at the end is true."""
    with Cluster(mix) as cluster:
        cluster.start()
        client = cluster.client(0)
        for n in range(3000):
            sub = client.sub(f"t.flicker.{n % 5}", flush=False)
            if n < 2995:
                client.unsub(sub)
        client.flush()
        cluster.settle_interest({0: [f"t.flicker.{n}" for n in range(5)]})


@case(nodes=2)
def after_auto_unsubscribe(mix):
    with Cluster(mix) as cluster:
        cluster.start()
        client, speaker = cluster.client(0), cluster.client(1)
        sub = client.sub("t.five")
        client.unsub(sub, 5)
        client.flush()
        cluster.settle_interest({0: ["t.five"]})
        for n in range(20):
            speaker.publish("t.five", str(n))
        speaker.flush()
        sub.wait(5)
        cluster.settle_interest({})
        time.sleep(0.2)
        equal(sub.count(), 5, "messages after an UNSUB with a maximum")


PERMISSIONS = """
permissions {
  import: ["t.in.>", "t.both"]
  export: ["t.out.>", "t.both"]
}
"""


@case(nodes=2, short=True)
def within_permissions(mix):
    """import: what this node asks others for; export: what it lets them ask for. Nothing else passes."""
    with Cluster(mix, [PERMISSIONS, ""]) as cluster:
        cluster.start()
        subjects = ["t.in.1", "t.out.1", "t.both", "t.none"]
        guarded, free = cluster.client(0), cluster.client(1)
        heard = {(client, subject): client.sub(subject) for client in (guarded, free) for subject in subjects}
        cluster.settle_interest({0: ["t.in.1", "t.both"], 1: ["t.out.1", "t.both"]})
        for subject in subjects:
            guarded.publish(subject, "guarded")
            free.publish(subject, "free")
        for client in (guarded, free):
            client.flush()
        heard[guarded, "t.both"].wait(2)
        heard[free, "t.both"].wait(2)
        time.sleep(0.2)
        expected = {"t.in.1": (2, 1), "t.out.1": (1, 2), "t.both": (2, 2), "t.none": (1, 1)}
        for subject, counts in expected.items():
            equal((heard[guarded, subject].count(), heard[free, subject].count()), counts, f"received of {subject} by guarded and free")


@case(nodes=2, needs=lambda mix: mix[1] == "N")
def after_permissions_were_widened(mix):
    """A node that lets others ask for more is asked again, without a new connection."""
    with Cluster(mix, ["", "permissions { export: [\"t.out.1\"] }"]) as cluster:
        cluster.start()
        client = cluster.client(0)
        for subject in ("t.out.1", "t.out.2", "t.gone"):
            client.sub(subject)
        client.sub("t.out.3", "queue")
        gone = client.sub("t.out.gone")
        cluster.settle_interest({0: ["t.out.1"]})
        connections = [row["rid"] for row in cluster[1].routes()["n1"]]
        client.unsub(gone)
        client.flush()
        cluster.options[1] = "permissions { export: [\"t.out.>\"] }"
        cluster.configure(1)
        with open(os.path.join(cluster[1].directory, "server.conf"), "w", encoding="utf-8") as file:
            file.write(cluster[1].config)
        cluster[1].signal(signal.SIGHUP)
        cluster.settle_interest({0: ["t.out.1", "t.out.2", "t.out.3"]})
        equal([row["rid"] for row in cluster[1].routes()["n1"]], connections, "the same connections")
        speaker = cluster.client(1)
        subs = {sub.subject: sub for sub in client.subscriptions.values()}
        for subject in ("t.out.1", "t.out.2", "t.out.3"):
            speaker.publish(subject, b"x")
        speaker.flush()
        for subject in ("t.out.1", "t.out.2", "t.out.3"):
            equal(len(subs[subject].wait(1)), 1, subject)
        client.unsub(subs["t.out.2"])
        client.flush()
        cluster.settle_interest({0: ["t.out.1", "t.out.3"]})
