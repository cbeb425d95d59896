"""Hosts and wires: the tutorial's three hosts as it starts them, and what a cluster is like after a cable was out."""

import json
import random
import subprocess
import time

from broker import until
from change import Load
from nodes import Cluster
from registry import case, check, equal
from world import World

# Twenty seconds of silence are too many for a test: a route is given up after three.
IMPATIENT = "ping_interval: 1s\nping_max: 2"


@case(short=True)
def the_tutorial(mix):
    """Section 2 of the tutorial: three containers, only started without Docker. Then curl, and its two programs' messages."""
    names = ["nats-server-1", "nats-server-2", "nats-server-3"]
    with World(names) as world, Cluster(mix, hosts=world.hosts) as cluster:
        lines = ["-cluster nats://0.0.0.0:6222 -routes nats://nats-server-2:6222,nats://nats-server-3:6222 -m 8222",
                 "-cluster nats://0.0.0.0:6223 -routes nats://nats-server-1:6222,nats://nats-server-3:6222 -m 8223",
                 "-cluster nats://0.0.0.0:6224 -routes nats://nats-server-1:6222,nats://nats-server-2:6223 -m 8224"]
        for node, line in zip(cluster.nodes, lines):
            node.arguments = line.split()
            node.monitor_port = int(line.split()[-1])
            node.start()
        cluster.formed()
        for node in cluster.nodes:
            with node.where.entered():
                said = subprocess.run(["curl", "-s", f"http://localhost:{node.monitor_port}/varz"], capture_output=True, check=True).stdout
                varz = json.loads(said)
                equal(varz["cluster"]["cluster_port"], 6221 + node.where.number, "varz cluster.cluster_port")
                equal(varz["port"], 4222, "varz port")
                check(varz["routes"] >= 2, f"varz routes {varz['routes']}")
                written = [url.split("://")[1] for url in node.arguments[3].split(",")]
                equal(sorted(varz["cluster"]["urls"]), sorted(written), "varz cluster.urls")
        subscriber = cluster.client(1).sub("greeting")
        cluster.settle_interest_of_one("greeting", 1)
        publishers = [cluster.client(i) for i in range(3)]
        for i, publisher in enumerate(publishers):
            publisher.publish("greeting", f"Hello World {i}")
            publisher.flush()
        equal(sorted(m.payload for m in subscriber.wait(3)), [b"Hello World %d" % i for i in range(3)], "greetings")
        client = cluster.client(0)
        check(client.wait_info(lambda info: {f"10.99.0.{n}:4222" for n in (1, 2, 3)} <= set(info.get("connect_urls") or [])),
              f"connect_urls {client.infos[-1].get('connect_urls')}")


def cut_and_heal(mix, how, seconds):
    with World([f"host{i + 1}" for i in range(3)]) as world, Cluster(mix, extra=IMPATIENT, hosts=world.hosts) as cluster:
        cluster.start()
        load = Load(cluster, pinned=True)
        extra = [cluster.client(i) for i in range(3)]
        subs = [[client.sub(f"t.{i}.{n}", flush=False) for n in range(50)] for i, client in enumerate(extra)]
        for client in extra:
            client.flush()
        wanted = {i: [f"t.{i}.{n}" for n in range(50)] + ["t.load.*"] for i in range(3)}
        cluster.settle_interest(wanted)
        time.sleep(0.5)
        victim = world.hosts[2]
        if how == "down":
            world.unplug(victim)
        elif how == "drop":
            world.drop(victim)
        else:  # two that do not hear each other, though both hear the third
            world.drop(victim, world.hosts[0])
        since = time.monotonic()
        # Interest goes on changing while nobody can tell.
        for i, client in enumerate(extra):
            for sub in subs[i][:25]:
                client.unsub(sub)
            for n in range(10):
                client.sub(f"t.new.{i}.{n}", flush=False)
            client.flush()
        time.sleep(seconds)
        world.heal()
        cluster.formed()
        wanted = {i: [f"t.{i}.{n}" for n in range(25, 50)] + [f"t.new.{i}.{n}" for n in range(10)] + ["t.load.*"] for i in range(3)}
        cluster.settle_interest(wanted)
        healed = time.monotonic()
        time.sleep(1)
        load.stop()
        # Those the cut was none of anybody's business for: between hosts 1 and 2, or 2 and 3, nothing may be missing at any time.
        whole = [(0, 1), (1, 0)] + ([(1, 2), (2, 1)] if how == "pair" else [])
        load.settle(*[(s, [(since - 0.5, healed, None)]) for s in range(3)])
        load.verdict(cuts=1)
        for s in range(3):
            lost = load.missing(s, [(since - 0.5, healed, None)])
            check(not lost, f"subscriber {s} lost {len(lost)} messages of calm times: {lost[:5]}")
        for s, got in enumerate(load.received):
            others = {int(payload.split()[0]) for payload, _ in got}
            equal(others, {0, 1, 2}, f"publishers heard by subscriber {s}")
        for publisher, subscriber in whole:
            lost = [entry for entry in load.missing(subscriber) if entry[0] == publisher]
            check(not lost, f"{len(lost)} messages of publisher {publisher} did not reach subscriber {subscriber}, whose wire was whole")
        cluster.probe()


@case(short=True)
def cable_out_for_a_second(mix):
    cut_and_heal(mix, "down", 1)


@case()
def frames_lost_for_a_second(mix):
    cut_and_heal(mix, "drop", 1)


@case()
def cable_out_for_ten_seconds(mix):
    cut_and_heal(mix, "down", 10)


@case()
def frames_lost_for_ten_seconds(mix):
    cut_and_heal(mix, "drop", 10)


@case()
def two_that_do_not_hear_each_other(mix):
    cut_and_heal(mix, "pair", 10)


@case(long=True)
def cable_out_for_a_minute(mix):
    cut_and_heal(mix, "down", 60)


@case(long=True)
def frames_lost_for_a_minute(mix):
    cut_and_heal(mix, "drop", 60)


@case()
def cuts_at_random(mix, long=False):
    """Short and long cuts, one host or two of them, while everybody talks."""
    with World([f"host{i + 1}" for i in range(3)]) as world, Cluster(mix, extra=IMPATIENT, hosts=world.hosts) as cluster:
        cluster.start()
        load = Load(cluster, pinned=True)
        cuts = 20 if long else 5
        for _ in range(cuts):
            host = random.choice(world.hosts)
            random.choice([world.unplug, world.drop, lambda h: world.drop(h, random.choice([o for o in world.hosts if o is not h]))])(host)
            time.sleep(random.choice([0.05, 0.3, 1, 4]))
            world.heal()
            time.sleep(random.random())
        cluster.formed()
        cluster.settle_interest({i: ["t.load.*"] for i in range(3)})
        healed = time.monotonic()
        time.sleep(1)
        load.stop()
        load.settle(*[(s, [(0, healed, None)]) for s in range(3)])
        load.verdict(cuts)
        for s in range(3):
            lost = load.missing(s, [(0, healed, None)])
            check(not lost, f"subscriber {s} lost {len(lost)} messages published after everything had healed")
        cluster.probe()
