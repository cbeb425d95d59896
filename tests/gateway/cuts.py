"""Links between clusters and between hub and leafnode whose wire is cut, whose far end dies, or is dead from the start.

Hosts in network namespaces (tests/cluster/world.py). Clients live on the hosts of their servers, so that a cut is the link's business
alone: they must not notice it, but for messages that had to cross meanwhile.
"""

import os
import signal
import socket
import threading
import time

from across import conversation
from broker import until
from nodes import Node
from registry import check, equal
from supercluster import SuperCluster, lists_interest
from world import World

# Silence is noticed after three seconds instead of six minutes.
IMPATIENT = "ping_interval: 1s\nping_max: 2"
HEAL_S = 60


class Gateways:
    """Two or more clusters."""

    def __init__(self, mix, world):
        self.world = world
        self.clusters = SuperCluster(mix, hosts=world.hosts, extra=IMPATIENT)
        self.sides = [cluster.nodes for cluster in self.clusters.clusters]

    def start(self):
        self.clusters.start()

    def problem(self, wanted):
        problem = self.clusters.problem()
        for i, side in enumerate(self.sides):
            for node in side:
                for k in range(len(self.sides)):
                    if problem is None and i != k and lists_interest(node):
                        seen = sorted(s for s in SuperCluster.interest(node, f"c{k + 1}") if s.startswith("t."))
                        if seen != sorted(wanted[k]):
                            problem = f"{node.name} thinks c{k + 1} wants {seen}, not {sorted(wanted[k])}"
                # At home, too: what a server has not heard of yet it does not send.
                told = node.interest() if len(side) > 1 and problem is None else {}
                for other in side if told or wanted[i] else []:
                    if problem is None and len(side) > 1 and other is not node:
                        seen = told.get(other.name, [])
                        if ("t.load.*" in wanted[i]) != ("t.load.*" in seen) or not set(seen) <= set(wanted[i]):
                            problem = f"{node.name} thinks {other.name} wants {seen}, of {sorted(wanted[i])}"
        return problem


class Leafnodes:
    """A hub and a leafnode of it; a third one is a leafnode of the leafnode."""

    def __init__(self, mix, world):
        self.world = world
        self.sides = [[Node(f"s{i + 1}", cluster[0], world.hosts[i])] for i, cluster in enumerate(mix)]
        for i, [node] in enumerate(self.sides):
            remotes = f'remotes: [ {{ url: "nats://{world.hosts[i - 1].address}:7422" }} ]' if i else ""
            node.config = (f'server_name: {node.name}\nlisten: "0.0.0.0:4222"\nhttp: "0.0.0.0:8222"\n{IMPATIENT}\n'
                           f'leafnodes {{ listen: "0.0.0.0:7422"\n {remotes} }}\n')

    def start(self):
        for [node] in self.sides:
            node.start()

    def problem(self, wanted):
        last = len(self.sides) - 1
        for i, [node] in enumerate(self.sides):
            rows = node.get_json("/leafz?subs=1").get("leafs") or []
            links = (i > 0) + (i < last)
            if len(rows) != links:
                return f"{node.name} has {len(rows)} leafnode connections, not {links}"
            for row in rows:
                # What is behind that connection: those further up, or further down. A leafnode tells its hub nothing of that hub's.
                # (2.9 does not say which of the two; it only stands at an end of the chain.)
                behind = range(i) if row.get("is_spoke", i == last) else range(i + 1, last + 1)
                seen = sorted(s for s in row.get("subscriptions_list") or [] if s.startswith("t."))
                all_wanted = sorted({s for k in behind for s in wanted[k]})
                if seen != all_wanted:
                    return f"{node.name} thinks s{behind[0] + 1} wants {seen}, not {all_wanted}"
        return None


class Link:
    """The topology under test; ends with it."""

    def __init__(self, kind, mix, world):
        self.world = world
        self.topology = kind(mix, world)
        self.sides = self.topology.sides
        self.nodes = [node for side in self.sides for node in side]
        self.clients = []

    def __enter__(self):
        self.topology.start()
        return self

    def __exit__(self, kind, *_):
        for client in self.clients:
            client.close()
        for node in self.nodes:
            if kind is not None and os.environ.get("GATEWAY_LOGS"):
                print(f"==== log of {node.name}\n{node.log()}", flush=True)
            node.remove()

    def client(self, node, **options):
        self.clients.append(node.client(**options))
        return self.clients[-1]

    def settled(self, wanted, timeout_s=HEAL_S):
        problem = "nothing seen"

        def look():
            nonlocal problem
            try:
                problem = self.topology.problem(wanted)
            except (OSError, ValueError, KeyError) as error:
                problem = repr(error)
            return problem is None
        check(until(look, timeout_s / 6, 0.1), f"after {timeout_s} s: {problem}")

    def cut(self, how, side):
        hosts = [node.where for node in self.sides[side]]
        others = [node.where for node in self.nodes if node.where not in hosts]
        for host in hosts:
            if how == "down":
                self.world.unplug(host)
            for other in others if how == "drop" else []:
                self.world.drop(host, other)


class Load:
    """A publisher and a subscriber at every node, pinned to it."""

    def __init__(self, link):
        self.link, self.going = link, True
        self.publishers = [link.client(node, name=f"publisher of {node.name}") for node in link.nodes]
        self.subs = [link.client(node, name=f"subscriber of {node.name}").sub("t.load.*") for node in link.nodes]
        self.flushed = [[] for _ in link.nodes]  # (first, end, begun, done)
        self.threads = []

    def start(self):
        self.threads = [threading.Thread(target=self._publish, args=(i,), daemon=True) for i in range(len(self.publishers))]
        for thread in self.threads:
            thread.start()

    def _publish(self, i):
        client, first = self.publishers[i], 0
        while self.going:
            begun = time.monotonic()
            client.publish_many((f"t.load.{i}", b"%d %d" % (i, n)) for n in range(first, first + 20))
            client.flush()
            self.flushed[i].append((first, first + 20, begun, time.monotonic()))
            first += 20
            time.sleep(0.01)

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a publisher hangs")
        # What TCP still has to send again may take a while; the last messages are from calm times.
        last = {b"%d %d" % (i, batches[-1][1] - 1) for i, batches in enumerate(self.flushed)}
        until(lambda: all(last <= set(sub.payloads()[-5000:]) for sub in self.subs), 5, 0.1)
        before = None
        while before != (before := [sub.count() for sub in self.subs]):
            time.sleep(0.5)

    def verdict(self, side_of, cuts, window):
        for s, sub in enumerate(self.subs):
            seen, ends = set(), {}
            for payload in sub.payloads():
                who, n = map(int, payload.split())
                check((who, n) not in seen, f"{sub.client.name} got message {n} of {who} twice")
                seen.add((who, n))
                # What a connection still held when it was cut may come after what its successor brought.
                rising = ends.setdefault(who, [])
                place = next((i for i, end in enumerate(rising) if end < n), len(rising))
                check(place <= cuts, f"{sub.client.name} got message {n} of {who} after {rising}")
                rising[place:place + 1] = [n]
            for who, batches in enumerate(self.flushed):
                home = side_of(who) == side_of(s)
                lost = [n for first, end, begun, done in batches if home or done < window[0] or begun > window[1]
                        for n in range(first, end) if (who, n) not in seen]
                check(not lost, f"{sub.client.name} lost {len(lost)} messages of publisher {who} {'at home' if home else 'in calm times'}: {lost[:5]}")
            equal(set(ends), set(range(len(self.flushed))), f"publishers heard by {sub.client.name}")

    def slowest_flush_s(self, side_of, side):
        return max(done - begun for i, batches in enumerate(self.flushed) if side_of(i) == side for _, _, begun, done in batches)


def cut_and_heal(kind, mix, how, seconds, cuts=1):
    hosts = [f"host{i + 1}" for i in range(sum(len(side) for side in mix))]
    with World(hosts) as world, Link(kind, mix, world) as link:
        side_of = [i for i, side in enumerate(link.sides) for _ in side].__getitem__
        load = Load(link)
        ends = [link.client(side[0]) for side in link.sides]
        subs = [[client.sub(f"t.{i}.{n}", flush=False) for n in range(50)] for i, client in enumerate(ends)]
        for client in ends:
            client.flush()
        wanted = [["t.load.*"] + [f"t.{i}.{n}" for n in range(50)] for i in range(len(ends))]
        link.settled(wanted)
        load.start()
        time.sleep(0.5)
        since = time.monotonic()
        for _ in range(cuts):
            link.cut(how, len(link.sides) - 1)
            # Interest goes on changing while nobody can tell.
            for i, client in enumerate(ends):
                for sub in subs[i]:
                    client.unsub(sub)
                subs[i] = subs[i][:25] + [client.sub(f"t.new.{i}.{n}", flush=False) for n in range(10)]
                for sub in subs[i][:25]:
                    client._send(client._sub_line(sub))
                client.flush()
            time.sleep(seconds)
            world.heal()
            time.sleep(0.3 if cuts > 1 else 0)
        wanted = [["t.load.*"] + [sub.subject for sub in subs[i]] for i in range(len(ends))]
        wanted = [sorted(set(each)) for each in wanted]
        link.settled(wanted)
        # A connection whose segments are still to be sent again may yet be taken for dead: pings are patient for three seconds.
        time.sleep(3.5)
        link.settled(wanted)
        healed = time.monotonic()
        time.sleep(0.7)
        load.stop()
        load.verdict(side_of, cuts, (since - 0.5, healed))
        # Once each, everywhere, and nothing is left when all have gone.
        probes = [link.client(node).sub("t.probe") for node in link.nodes]
        link.settled([sorted(each + ["t.probe"]) for each in wanted])
        time.sleep(0 if all(lists_interest(node) for node in link.nodes) else 0.7)
        for i, node in enumerate(link.nodes):
            probes[i].client.publish("t.probe", f"{i}")
            probes[i].client.flush()
        for probe in probes:
            equal(sorted(probe.wait(len(probes)) and probe.payloads()), sorted(b"%d" % i for i in range(len(probes))), "probes")
        time.sleep(0.3)
        for probe in probes:
            equal(probe.count(), len(probes), "probes after a while")
        for client in link.clients:
            client.close()
        link.settled([[] for _ in link.sides])


def far_end_dies(kind, mix):
    """Killed, and another server takes its place; then a polite restart. The near end's clients notice nothing."""
    hosts = [f"host{i + 1}" for i in range(sum(len(side) for side in mix))]
    with World(hosts) as world, Link(kind, mix, world) as link:
        near, far = link.sides[0][0], link.sides[-1][0]
        at_home = link.client(near)
        kept = at_home.sub("t.home")
        sent = 0
        for number in (signal.SIGKILL, signal.SIGTERM):
            visitor = far.client()
            visitor.sub("t.visitor")
            visitor.flush()
            link.settled([["t.home"]] + [[] for _ in link.sides[1:-1]] + [["t.visitor"]])
            for node in link.sides[-1]:
                node.end(number)
            for _ in range(100):
                at_home.publish("t.home", f"{sent}")
                sent += 1
            equal(len(kept.wait(sent)), sent, "messages at home while the far end was gone")
            visitor.close()
            for node in link.sides[-1]:
                node.start()
            link.settled([["t.home"]] + [[] for _ in link.sides[1:]])
        conversation(near.client, far.client)
        equal(kept.payloads(), [b"%d" % n for n in range(sent)], "messages at home")
        link.settled([["t.home"]] + [[] for _ in link.sides[1:]])


def local_cost(node, messages=200_000):
    """(CPU seconds of the server, seconds) for messages from one of its clients to another."""
    with node.where.entered():
        receiver, sender = (socket.create_connection(("127.0.0.1", 4222)) for _ in range(2))
    connect = b'CONNECT {"verbose":false}\r\n'
    receiver.sendall(connect + b"SUB t.local 1\r\nPING\r\n")
    seen = b""
    while b"PONG" not in seen:
        seen = seen[-4:] + receiver.recv(65536)
    sender.sendall(connect)
    frame = b"PUB t.local 16\r\n0123456789abcdef\r\n"
    size = len(b"MSG t.local 1 16\r\n0123456789abcdef\r\n") * messages
    cpu, begun = node.cpu_s(), time.monotonic()
    thread = threading.Thread(target=lambda: [sender.sendall(frame * 1000) for _ in range(messages // 1000)], daemon=True)
    thread.start()
    while size > 0:
        size -= len(receiver.recv(1 << 20))
    cpu, took = node.cpu_s() - cpu, time.monotonic() - begun
    thread.join()
    sender.close()
    receiver.close()
    return cpu, took


def a_dead_far_end_costs_nothing(kind, mix):
    """Local traffic costs what it cost before: while frames to the far end vanish, while it is frozen, and while it refuses."""
    hosts = [f"host{i + 1}" for i in range(sum(len(side) for side in mix))]
    with World(hosts) as world, Link(kind, mix, world) as link:
        near, fars = link.sides[0][0], link.sides[-1]
        visitor = fars[0].client()
        visitor.sub("t.elsewhere")
        link.settled([[] for _ in link.sides[:-1]] + [["t.elsewhere"]])
        local_cost(near, 50_000)
        costs = {"whole": [local_cost(near) for _ in range(3)]}
        for node in fars:
            node.signal(signal.SIGSTOP)
        costs["frozen"] = [local_cost(near) for _ in range(3)]
        link.cut("drop", len(link.sides) - 1)
        costs["cut"] = [local_cost(near) for _ in range(3)]
        time.sleep(4)  # by now it is noticed, and dialled again and again
        costs["cut for long"] = [local_cost(near) for _ in range(3)]
        for node in fars:
            node.signal(signal.SIGCONT)
            node.end(signal.SIGKILL)
        world.heal()
        costs["refusing"] = [local_cost(near) for _ in range(3)]
        visitor.close()
        least = {state: (min(cpu for cpu, _ in runs), min(took for _, took in runs)) for state, runs in costs.items()}
        print("; ".join(f"{state}: {cpu:.2f} s CPU, {took:.2f} s" for state, (cpu, took) in least.items()), flush=True)
        for state, (cpu, took) in least.items():
            # A process's CPU time has steps of 10 ms.
            check(cpu <= 1.5 * least["whole"][0] + 0.03, f"CPU with the far end {state}: {least}")
            check(took <= 4 * least["whole"][1] + 0.2, f"time with the far end {state}: {least}")


GATEWAYS = {"short": ["PP/NN"], "whole": ["P/P", "PP/NN", "NN/PP", "PP/D"], "least": ["P/N"]}
LEAFNODES = {"short": ["P/N"], "whole": ["P/P", "P/N", "N/P", "P/D", "D/P", "P/P/P", "P/N/P"], "least": ["N/P"]}

HOSTED = {}
for kind, mixes in ((Gateways, GATEWAYS), (Leafnodes, LEAFNODES)):
    def add(name, body, arguments, short=(), whole=(), long=False, kind=kind):
        HOSTED[f"{kind.__name__.lower()}_{name}"] = (lambda mix: body(kind, mix, *arguments), list(short), list(whole), long)
    add("frames_lost_for_a_second", cut_and_heal, ("drop", 1), mixes["short"], mixes["whole"])
    add("cable_out_for_a_second", cut_and_heal, ("down", 1), mixes["least"], mixes["whole"])
    add("frames_lost_for_ten_seconds", cut_and_heal, ("drop", 10), mixes["least"], mixes["whole"])
    add("cable_out_for_ten_seconds", cut_and_heal, ("down", 10), (), mixes["whole"])
    add("frames_lost_again_and_again", cut_and_heal, ("drop", 0.2, 5), (), mixes["whole"])
    add("frames_lost_for_a_minute", cut_and_heal, ("drop", 60), mixes["short"], mixes["whole"], long=True)
    add("far_end_dies", far_end_dies, (), mixes["least"], mixes["whole"])
    add("a_dead_far_end_costs_nothing", a_dead_far_end_costs_nothing, (), ["P/P"], ["P/P", "P/N"])
