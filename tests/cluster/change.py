"""Nodes that come, go, and become another program, while clients talk all the time."""

import contextlib
import os
import random
import signal
import threading
import time

from broker import until
from client import Disconnected
from nodes import Cluster
from registry import case, check, equal


# nats-server may answer a PING a moment before it writes what was published ahead of it to its routes: 50 ms are more than it needs, when
# it is given a processor.
LATE_S = 0.05 * max(1, os.getloadavg()[0])


class Load:
    """Publishers and subscribers that roam. Each publisher numbers its messages and notes which numbers were flushed."""

    def __init__(self, cluster, pinned):
        self.cluster = cluster
        self.going = True
        self.publishers = [cluster.roaming(i, name=f"publisher {i}") for i in range(len(cluster))]
        self.subscribers = [(cluster.client(i, name=f"pinned {i}") if pinned else cluster.roaming(i, name=f"subscriber {i}"))
                            for i in range(len(cluster))]
        self.received = [[] for _ in self.subscribers]
        for client, received in zip(self.subscribers, self.received):
            client.sub("t.load.*", on=lambda m, r=received: r.append((m.payload, m.life)))
        self.numbers = [0] * len(self.publishers)
        self.flushed = [[] for _ in self.publishers]  # (first, end, server, when) of each batch that was flushed on one connection
        cluster.settle_interest_of("t.load.*")
        self.threads = [threading.Thread(target=self._publish, args=(i,), daemon=True) for i in range(len(self.publishers))]
        for thread in self.threads:
            thread.start()

    def _publish(self, i):
        client = self.publishers[i]
        while self.going:
            first = self.numbers[i]
            self.numbers[i] += 20
            started = time.monotonic()
            try:
                client.publish_many((f"t.load.{i}", b"%d %d" % (i, n)) for n in range(first, first + 20))
                client.flush()
                self.flushed[i].append((first, first + 20, client.lives[-1], started, time.monotonic()))
            except Disconnected:
                pass
            time.sleep(0.01)

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a publisher hangs")

    def settle(self, *wanted):
        """Waits until what must come has come, `wanted` being what missing() is asked, and then nothing for half a second."""
        until(lambda: not any(self.missing(*each) for each in wanted), 20, 0.2)

        def quiet():
            before = [len(r) for r in self.received]
            time.sleep(0.5)
            return [len(r) for r in self.received] == before
        check(until(quiet, 20, 0), "messages never end")

    def verdict(self, cuts=0):
        """No message twice on one connection (who moves from a node that has delivered it to one that is still to read it from a route gets it
        from both), and each publisher's in order: that is, in order on each route there was between two nodes. What
        a route that was cut still held may come after what its successor brought, so every cut allows one more rising sequence."""
        for s, received in enumerate(self.received):
            rising, seen = {}, {}
            for at, (payload, life) in enumerate(received):
                who, n = map(int, payload.split())
                check((who, n, life) not in seen, f"subscriber {s} got message {n} of publisher {who} twice: as number {seen.get((who, n, life))} and "
                      f"as number {at} of {len(received)}, on its connection {life}, between {[each for each, _ in received[max(at - 2, 0):at + 3]]}")
                again = any((who, n, before) in seen for before in range(life))
                seen[who, n, life] = at
                if again:
                    continue
                ends = rising.setdefault(who, [])  # of the sequences it takes so far, the greatest first
                place = next((i for i, end in enumerate(ends) if end < n), len(ends))
                check(place <= cuts, f"subscriber {s} got message {n} of publisher {who} after {ends}")
                ends[place:place + 1] = [n]

    def missing(self, subscriber, windows=()):
        """Flushed messages this subscriber never got, without those flushed within `windows`: (start, end, server or None for any)."""
        got = {tuple(map(int, payload.split())) for payload, _ in self.received[subscriber]}
        lost = []
        for i, batches in enumerate(self.flushed):
            for first, end, server, started, ended in batches:
                if any(started < to and ended > since and place in (None, server) for since, to, place in windows):
                    continue
                lost += [(i, n, server) for n in range(first, end) if (i, n) not in got]
        return lost


def replace(cluster, load, index, program, gentle):
    """Node `index` becomes `program`. Returns when that began and when all interest was back."""
    node = cluster[index]
    since = time.monotonic()
    if gentle:
        node.signal(signal.SIGUSR2)  # lame duck: clients are asked to leave, then sent away
        check(until(lambda: node.process.poll() is not None, 60, 0.05), f"{node.name} is still there 60 s after the lame duck signal")
    node.end()
    if program is not None:
        node.program = program
    cluster.configure(index)
    node.start()
    cluster.formed()
    for client in load.publishers + load.subscribers:
        check(until(lambda c=client: c.connected, 20), f"{client.name} did not come back: {client.errors}")
    cluster.settle_interest(load_interest(load, cluster))
    return since, time.monotonic()


def load_interest(load, cluster):
    names = [node.name for node in cluster.nodes]
    return {names.index(client.lives[-1]): ["t.load.*"] for client in load.subscribers if client.connected}


def rolling(mix, sequence, gentle):
    extra = "lame_duck_duration: 30s\nlame_duck_grace_period: 1s" if gentle else ""
    with Cluster(mix, extra=extra) as cluster:
        cluster.start()
        load = Load(cluster, pinned=False)
        windows = {s: [] for s in range(3)}
        for step, program in enumerate(sequence):
            index = step % 3
            lives = [len(client.lives) for client in load.subscribers]
            since, to = replace(cluster, load, index, program, gentle)
            for s, client in enumerate(load.subscribers):
                # Who moved missed something; and a node that has just started takes messages before it knows who wants them.
                # And nats-server may answer a PING a moment before it writes to its routes.
                windows[s].append((since - LATE_S, to, None if len(client.lives) != lives[s] else cluster[index].name))
            time.sleep(0.7)  # time in which nothing may be lost
        load.stop()
        load.settle(*windows.items())
        load.verdict()
        for s in range(3):
            lost = load.missing(s, windows[s])
            check(not lost, f"subscriber {s} ({load.subscribers[s].lives}) lost {len(lost)} flushed messages: {lost[:5]}")
        moves = [client.lives for client in load.publishers + load.subscribers]
        check(any(len(lives) > 1 for lives in moves), "nobody had to reconnect")
        for i in range(3):
            check(len(load.flushed[i]) > 20, f"publisher {i} flushed only {len(load.flushed[i])} batches")


@case(short=True)
def rolling_replacement(mix):
    """From one program to the other and back, node by node, by SIGTERM; who was not on the node replaced loses nothing flushed."""
    other = mix[1] if mix[1].letter != mix[0].letter else mix[2]
    rolling([mix[0]] * 3, [other] * 3 + [mix[0]] * 3, gentle=False)


@case(long=True)
def rolling_replacement_by_lame_duck(mix):
    other = mix[1] if mix[1].letter != mix[0].letter else mix[2]
    rolling([mix[0]] * 3, [other] * 3, gentle=True)


@case()
def random_restarts(mix, long=False):
    """Killed or ended at random under load; afterwards everything is as if nothing had been."""
    with Cluster(mix) as cluster:
        cluster.start()
        load = Load(cluster, pinned=False)
        for _ in range(20 if long else 6):
            index = random.randrange(3)
            cluster[index].end(random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            time.sleep(random.random() * 0.5)
            cluster.configure(index)
            cluster[index].start()
            time.sleep(random.random())
        cluster.formed()
        for client in load.publishers + load.subscribers:
            check(until(lambda c=client: c.connected, 20), f"{client.name} did not come back")
        cluster.settle_interest(load_interest(load, cluster))
        calm_since = time.monotonic()
        time.sleep(1)
        load.stop()
        load.settle(*[(s, [(0, calm_since, None)]) for s in range(3)])
        load.verdict()
        for s in range(3):
            lost = load.missing(s, [(0, calm_since, None)])
            check(not lost, f"subscriber {s} lost {len(lost)} messages published after everything had healed")
        cluster.probe()


@case(short=True)
def clients_fail_over(mix):
    """A client that knows one address finds the others by connect_urls when its node dies, and keeps its subscriptions."""
    from client import Client
    with Cluster(mix) as cluster:
        cluster.start()
        client = Client(cluster[0].dial, reconnect=True, name="failing over")
        cluster.clients.append(client)
        check(client.wait_info(lambda info: len(info.get("connect_urls") or []) == 3), f"connect_urls {client.infos[-1].get('connect_urls')}")
        sub = client.sub("t.over")
        cluster[0].end(signal.SIGKILL)
        check(until(lambda: len(client.lives) == 2 and client.connected, 20), f"no new connection: {client.lives}")
        cluster.formed()
        with contextlib.closing(cluster[1].client()) as speaker:
            deadline = time.monotonic() + 15
            while not sub.count():
                check(time.monotonic() < deadline, "its subscription is not known any more")
                speaker.publish("t.over", b"again")
                speaker.flush()
                sub.wait(1, 0.1)


@case(short=True)
def lame_duck(mix):
    """The duck's clients are told, its address disappears from connect_urls elsewhere, and what is sent meanwhile arrives."""
    with Cluster(mix, extra="lame_duck_duration: 30s\nlame_duck_grace_period: 2s") as cluster:
        cluster.start()
        on_duck, elsewhere = cluster.client(0), cluster.client(1)
        duck_url = f"127.0.0.1:{cluster[0].port}"
        check(elsewhere.wait_info(lambda info: duck_url in (info.get("connect_urls") or [])), "the duck was never known")
        sub = elsewhere.sub("t.duck")
        cluster.settle_interest({1: ["t.duck"]})
        cluster[0].signal(signal.SIGUSR2)
        check(on_duck.wait_info(lambda info: info.get("ldm")), f"no ldm in INFO: {on_duck.infos[-1]}")
        check(elsewhere.wait_info(lambda info: duck_url not in (info.get("connect_urls") or [])), "its address is still given to clients")
        for n in range(100):
            on_duck.publish("t.duck", str(n))
        on_duck.flush()
        equal([int(m.payload) for m in sub.wait(100)], list(range(100)), "messages from the duck")
        on_duck.close()
        cluster[0].end(signal.SIGTERM)
        cluster.formed()
        cluster.settle_interest({1: ["t.duck"]})


@case(nodes=2, short=True)
def drain(mix):
    """Nothing published before a drain began is lost by it, wherever it was published."""
    with Cluster(mix) as cluster:
        cluster.start()
        speaker = cluster.client(1)
        for _ in range(3):
            client = cluster.client(0)
            sub = client.sub("t.drain")
            cluster.settle_interest({0: ["t.drain"]})
            for n in range(500):
                speaker.publish("t.drain", str(n))
            speaker.flush()
            sub.wait(500)
            client.drain()
            cluster.settle_interest({})
            equal([int(m.payload) for m in sub.messages], list(range(500)), "messages before the end of a drain")
