"""What must hold between clusters, whatever servers they are made of."""

import base64
import collections
import json
import random
import socket
import time

from across import barrier, conversation
from broker import free_port, port_that_answers_no_syn, until
from nodes import HOST, Cluster, Node
from registry import check, equal
from streams import stream
from supercluster import SuperCluster

CASES = []


def case(short=False, mixes=None):
    """short: scripts/check holds it; mixes: instead of the usual ones, (for scripts/check, for a whole run)."""
    def register(body):
        body.short, body.mixes = short, mixes
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


@case(short=True, mixes=(["P/N", "D/P", "P/O"], ["PP/NN", "NN/PP", "PP/DD", "DD/PP", "PP/PP", "PP/O", "OO/P", "PP/OO/N", "NP/PN"]))
def the_whole_conversation(mix):
    """The conversation suite between every two clusters, both ways, in the interest modes the servers use with each other."""
    with SuperCluster(mix) as world:
        world.start()
        for i in range(len(mix)):
            for k in range(i):
                conversation(lambda i=i: world.client(i, len(mix[i]) - 1), lambda k=k: world.client(k, 0))


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
        # The two ends of the chain were never told of each other.
        conversation(lambda: world.client(0, 0), lambda: world.client(len(mix) - 1, len(mix[-1]) - 1))


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


@case(short=True, mixes=(["P/N"], ["P/N", "N/P", "P/D", "D/P", "P/P"]))
def credentials_and_names(mix):
    """User and password of the URL, or of the own block; a wrong one is refused; `advertise` is what others are told to dial."""
    def start(password, in_url=False):
        secret = f"authorization {{ user: gw, password: {password} }}"
        world = SuperCluster(mix, options=secret)
        cluster = world.clusters[0]
        if in_url:
            cluster.extra[0] = cluster.extra[0].replace("nats://", "nats://gw:right@").replace(f"password: {password}", "password: right")
        world.clusters[1].extra[0] = world.clusters[1].extra[0].replace(f"password: {password}", "password: right")
        return world
    for in_url in (False, True):
        with start("right", in_url) as world:
            world.start()
    with start("wrong") as world:
        world.start(formed=False)
        check(until(lambda: "authentication error" in world.clusters[1][0].log(), 10), world.clusters[1][0].log_tail())
        check(until(lambda: "Authorization Violation" in world.clusters[0][0].log(), 10), world.clusters[0][0].log_tail())


@case(short=True, mixes=(["P"], ["P", "N"]))
def advertised_and_given_up(mix):
    """`advertise` is what INFO shows; a cluster that is only heard of is dialled connect_retries times more, and then forgotten."""
    port, dead = free_port(), free_port()
    gateway = f'gateway {{ name: c1, listen: "{HOST}:{port}", advertise: "gw.example:7333", connect_retries: 2 }}'
    with Cluster([mix[0][0]], extra=gateway) as cluster:
        cluster.start()
        with socket.create_connection((HOST, port)) as sock:
            sock.settimeout(10)
            file = sock.makefile("rb")
            info = json.loads(file.readline()[5:])
            equal((info["gateway_url"], info["gateway_urls"]), ("gw.example:7333", ["gw.example:7333"]), "what INFO shows")
            told = {"server_id": "NRAW", "server_name": "raw", "version": "2.15.0", "host": HOST, "port": 1, "max_payload": 1 << 20,
                    "gateway": "raw", "gateway_urls": [f"{HOST}:{dead}"], "gateway_nrp": True, "gateway_iom": True}
            sock.sendall(b'CONNECT {"verbose":false,"pedantic":false,"name":"NRAW","gateway":"raw"}\r\nINFO ' + json.dumps(told).encode() + b"\r\n")

            def attempts():
                return cluster[0].log().count('Error connecting to implicit gateway "raw"')
            # Only the first attempt, and every so many-th after it, is said in the log.
            check(until(lambda: attempts() >= 1, 5), cluster[0].log_tail())
            file.close()  # it holds the connection, too
        time.sleep(4)
        with socket.create_server((HOST, dead)) as listener:
            listener.settimeout(2.5)
            try:
                listener.accept()
                raise AssertionError("still dialled after its retries")
            except TimeoutError:
                pass


@case(short=True, mixes=(["P"], ["P", "N"]))
def pauses_grow(mix):
    """connect_backoff: one second, two, four between attempts to reach a cluster that is not there."""
    dead = free_port()
    gateway = (f'debug: true\nconnect_error_reports: 1\ngateway {{ name: c1, listen: "{HOST}:{free_port()}", connect_backoff: true\n'
               f'  gateways: [ {{ name: gone, url: "nats://{HOST}:{dead}" }} ] }}')
    with Cluster([mix[0][0]], extra=gateway) as cluster:
        cluster.start()

        def attempt(number):
            return cluster[0].logged_at('Error connecting to explicit gateway "gone"', f"(attempt {number})")
        check(until(lambda: attempt(4), 10, 0.1), cluster[0].log_tail())
        pauses = [(attempt(n + 1) - attempt(n)) % 86400 for n in (1, 2, 3)]
        check(all(pause > least - 0.1 for pause, least in zip(pauses, (1, 2, 4))), f"pauses of {pauses} s")


@case(short=True, mixes=(["P"], ["P", "N"]))
def a_cluster_that_answers_no_syn(mix):
    """Each attempt is given up after a second, not when the kernel gives up, and the next one follows."""
    with port_that_answers_no_syn() as port:
        gateway = (f'connect_error_reports: 1\ngateway {{ name: c1, listen: "{HOST}:{free_port()}"\n'
                   f'  gateways: [ {{ name: gone, url: "nats://{HOST}:{port}" }} ] }}')
        with Cluster([mix[0][0]], extra=gateway) as cluster:
            cluster.start()
            failed = f"dial tcp {HOST}:{port}: i/o timeout"
            check(until(lambda: cluster[0].log().count(failed) >= 2, 10, 0.1), cluster[0].log_tail())


class Silent:
    """A cluster that wants everything published on `flood`, and reads nothing of it until it is told to."""

    def __init__(self, program, options):
        self.peer = RawPeer(iom=True)
        gateway = (f'gateway {{ name: c1, listen: "{HOST}:{free_port()}", {options}\n'
                   f'  gateways: [ {{ name: raw, url: "nats://{HOST}:{self.peer.port}" }} ] }}')
        self.cluster = Cluster([program], extra=gateway)

    def __enter__(self):
        try:
            self.node = self.cluster.start(formed=False)[0]
            self.peer.accept()
            self.peer.command(2)
            self.peer.say("RS+ $G flood")
            self.peer.command(3)
            self.peer.settled()
            self.client = self.cluster.client(0)
            self.kept = self.client.sub("flood")
            for n in range(24):  # more than two sockets hold, less than what may wait
                self.client.publish("flood", b"%02d" % n + bytes(1 << 20)[2:])
            self.client.flush()
            check(until(lambda: "Slow Consumer Detected: WriteDeadline of 300" in self.node.log(), 10), self.node.log_tail())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.cluster.__exit__(None, None, None)
        self.peer.close()


@case(short=True, mixes=(["P"], ["P", "N"]))
def a_cluster_that_does_not_read(mix):
    """write_deadline: said in the log, and with write_timeout: close the end of the connection; else it may catch up. Those at home
    have everything."""
    with Silent(mix[0][0], 'write_deadline: "300ms", write_timeout: close') as silent:
        closed = "Gateway connection closed: Slow Consumer (Write Deadline)"
        check(until(lambda: closed in silent.node.log(), 10), silent.node.log_tail())
        equal(len(silent.kept.wait(24)), 24, "messages at home")
    with Silent(mix[0][0], 'write_deadline: "300ms"') as silent:
        equal(len(silent.kept.wait(24)), 24, "messages at home")
        for n in range(24):
            equal(silent.peer.until("RMSG")[-1], f"RMSG $G flood {1 << 20}", f"line of message {n}")
            equal(silent.peer.file.read((1 << 20) + 2)[:2], b"%02d" % n, f"message {n}")
        check("Gateway connection closed" not in silent.node.log(), silent.node.log_tail())


# ---------------------------------------------------------------------------------------------------- interest modes


def account_row(node, cluster, account="$G"):
    """What /gatewayz says of the account on this node's outbound connection to that cluster; nothing: {}."""
    remote = (node.get_json("/gatewayz?accs=1").get("outbound_gateways") or {}).get(cluster) or {}
    return next((row for row in remote.get("accounts") or [] if row["name"] == account), {})


def mode_of(node, cluster, account="$G"):
    """How this node's outbound connection to that cluster treats the account; None: it says nothing of it."""
    return account_row(node, cluster, account).get("interest_mode")


@case(short=True, mixes=(["P/N", "D/P"], ["P/N", "N/P", "P/D", "D/P", "P/P"]))
def interest_only_from_the_start(mix):
    """Since 2.9 both ends announce it: nothing is sent that nobody wants, in either direction."""
    with SuperCluster(mix) as world:
        world.start()
        for i in (0, 1):
            node = world.clusters[i][0]
            check(until(lambda: mode_of(node, f"c{2 - i}") == "Interest-Only", 10, 0.05), f"{node.name}: {mode_of(node, f'c{2 - i}')}")
            world.client(1 - i, 0).sub("t.other")
            publisher = world.client(i, 0)
            for n in range(50):
                publisher.publish(f"t.{n}")
            publisher.flush()
            time.sleep(0.2)
            outbound = node.get_json("/gatewayz")["outbound_gateways"][f"c{2 - i}"]["connection"]
            equal(outbound["out_msgs"], 0, f"messages {node.name} sent for nobody")


@case(short=True, mixes=(["P/O"], ["P/O", "PP/O", "N/O"]))
def guesses_until_told(mix):
    """An older peer: everything is sent, but for what it has refused; after a thousand refusals it tells all it wants."""
    with SuperCluster(mix) as world:
        world.start()
        node = world.clusters[0][-1]
        other = world.client(1, 0)
        other.sub("t.wanted")  # so that it is subjects that are refused, not the account
        publisher = world.client(0, -1)
        barrier(other, publisher)

        def sent():
            return node.get_json("/gatewayz")["outbound_gateways"]["c2"]["connection"]["out_msgs"]
        start = sent()
        publisher.publish("t.unwanted")
        publisher.flush()
        check(until(lambda: sent() > start, 5), "not even a guess")
        check(until(lambda: mode_of(node, "c2") == "Optimistic", 5), f"mode {mode_of(node, 'c2')}")

        def refused():
            before = sent()
            publisher.publish("t.unwanted")
            publisher.flush()
            return sent() == before
        check(until(refused, 10, 0.05), "goes on guessing")
        equal(account_row(node, "c2").get("no_interest_count"), 1, "subjects refused, in /gatewayz")
        start = sent()
        for _ in range(100):
            publisher.publish("t.unwanted")
        publisher.flush()
        time.sleep(0.3)
        equal(sent(), start, "messages sent though they are not wanted")
        # Wanted now, by a pattern: told with RS+, and sent again.
        late = other.sub("t.*")
        check(until(lambda: publisher.publish("t.unwanted", b"late") or publisher.flush() or late.count(), 10, 0.05), "what was refused is never sent again")
        other.unsub(late)
        other.flush()
        for n in range(1100):
            publisher.publish(f"t.nobody.{n}")
            if n % 100 == 0:
                publisher.flush()
        publisher.flush()
        check(until(lambda: mode_of(node, "c2") == "Interest-Only", 10, 0.05), f"mode after 1100 refusals: {mode_of(node, 'c2')}")
        time.sleep(0.3)
        start = sent()
        for n in range(100):
            publisher.publish(f"t.other.{n}")
        publisher.publish("t.wanted")
        publisher.flush()
        time.sleep(0.3)
        equal(sent(), start + 1, "messages sent to a peer that told all it wants")
        conversation(lambda: world.client(0, 0), lambda: world.client(1, 0))


class RawPeer:
    """The other cluster, by hand: listens, and says what it likes. `iom`: whether it announces interest-only mode."""

    def __init__(self, iom=False):
        self.listener = socket.create_server((HOST, free_port()))
        self.listener.settimeout(20)
        self.port = self.listener.getsockname()[1]
        self.iom = iom

    def accept(self):
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(10)
        self.file = self.sock.makefile("rb")
        info = {"server_id": "NRAW", "server_name": "raw", "version": "2.8.0", "host": HOST, "port": self.port, "headers": True,
                "max_payload": 1 << 20, "gateway": "raw", "gateway_urls": [f"{HOST}:{self.port}"], "gateway_nrp": True}
        if self.iom:
            info["gateway_iom"] = True
        self.say("INFO " + json.dumps(info))
        self.until("INFO")
        self.say("PING")
        self.until("PONG")
        return self

    def say(self, *lines):
        self.sock.sendall("".join(line + "\r\n" for line in lines).encode())

    def command(self, number, account="$G"):
        payload = base64.b64encode(account.encode()).decode()
        self.say("INFO " + json.dumps({"gateway": "raw", "gateway_cmd": number, "gateway_cmd_payload": payload}))

    def until(self, word):
        """Lines up to the first that begins with `word`; PINGs are answered, PINGs and PONGs not shown."""
        lines = []
        while True:
            line = self.file.readline().decode().rstrip("\r\n")
            if line == "PING":
                self.say("PONG")
            elif line != "PONG" or word == "PONG":
                lines.append(line)
            if line.startswith(word):
                return lines

    def settled(self):
        """What it sent so far has been taken in; what came meanwhile."""
        self.say("PING")
        return self.until("PONG")

    def close(self):
        self.sock.close()
        self.listener.close()


def with_raw_peer(program, iom, body):
    peer = RawPeer(iom)
    gateway = f'gateway {{ name: c1, listen: "{HOST}:{free_port()}", gateways: [ {{ name: raw, url: "nats://{HOST}:{peer.port}" }} ] }}'
    with Cluster([program], extra=gateway) as cluster:
        try:
            cluster.start()
            peer.accept()
            client = cluster.client(0)
            got = client.sub("_INBOX.x")

            def sends(*subjects):
                """Which of these subjects it is sent; the rest are asked about, and the asker told that nobody is there."""
                before = got.count()
                for subject in subjects:
                    client.publish(subject, subject, reply="_INBOX.x")
                client.flush()
                peer.say("RS+ $G mark q 1")
                lines = peer.settled()
                client.publish("mark", b"end")
                lines += peer.until("RMSG $G mark")
                peer.file.readline()
                sent = [line.split(" ")[2] for line in lines if line.startswith("RMSG $G")][:-1]
                refused = len(subjects) - len(sent)
                until(lambda: got.count() >= before + refused, 1)
                equal(got.count() - before, refused, f"503s; sent were {sent}")
                return sent
            body(peer, sends, cluster[0])
        finally:
            peer.close()


@case(short=True, mixes=(["P"], ["P", "N"]))
def optimistic_word_for_word(mix):
    def guesses(peer, sends, _):
        equal(sends("a", "b.c"), ["a", "b.c"], "sent without knowing anything")
        peer.say("RS- $G a", "RS- $G b.c", "RS- $G b.d")
        peer.settled()
        equal(sends("a", "b.c", "x"), ["x"], "after RS-")
        peer.say("RS+ $G b.*")
        peer.settled()
        equal(sends("a", "b.c", "b.d"), ["b.c", "b.d"], "after RS+ of a pattern")
        peer.say("RS+ $G a", "RS- $G mark q")
        peer.settled()
        equal(sends("a"), ["a"], "after RS+")
        peer.say("RS- $G mark q", "A- $G")
        peer.settled()
        equal(sends("z"), [], "after A-")
        # sends() itself had a queue group come: whoever has one is interested in the account again.
        equal(sends("z"), ["z"], "after a queue group came")
        peer.say("RS- $G mark q", "A- $G")
        peer.settled()
        peer.say("A+ $G")
        peer.settled()
        equal(sends("z"), ["z"], "after A+")
        peer.say("RS- $G gone")
        peer.settled()
        # Too many refusals: it tells all. Until it is through, both count.
        peer.command(2)
        peer.say("RS+ $G only.*", "RS+ $G one", "RS- $G one")
        peer.settled()
        equal(sends("gone", "z", "only.x"), ["z", "only.x"], "while all interest is being told")
        peer.command(3)
        peer.settled()
        equal(sends("gone", "z", "only.x", "one"), ["only.x"], "when all interest is told")
        peer.say("RS- $G only.*")
        peer.settled()
        equal(sends("only.x"), [], "when it is taken back")

    def knows(peer, sends, _):
        equal(sends("a", "b.c"), [], "sent to a peer that has told nothing")
        peer.command(2)
        peer.say("RS+ $G a")
        peer.command(3)
        peer.settled()
        equal(sends("a", "b.c"), ["a"], "after all interest")
    with_raw_peer(mix[0][0], False, guesses)
    with_raw_peer(mix[0][0], True, knows)


@case(short=True, mixes=(["P"], ["P", "N"]))
def a_stream_in_any_pieces(mix):
    """What a gateway brings, alone and many alike: every subscriber gets what is meant for it, and the counts are true."""
    port = free_port()
    text, sent = stream("RMSG", "$G ", ["t.a", "t.a", "t.b", "t.c", "t.d", "t.nobody"], 8, 150)
    with Cluster([mix[0][0]], extra=f'gateway {{ name: c1, listen: "{HOST}:{port}" }}') as cluster:
        cluster.start()
        one, two = cluster.client(0), cluster.client(0)
        subs = [one.sub("t.a"), two.sub("t.a"), two.sub("t.*"), one.sub("t.c"), one.sub("t.d", "q")]
        for number, pieces in enumerate((1 << 20, 70_000, 1400)):
            name = f"stream{number}"
            with socket.create_connection((HOST, port)) as sock:
                sock.settimeout(30)
                file = sock.makefile("rb")
                info = {"server_id": f"N{name}", "server_name": name, "version": "2.10.0", "host": HOST, "port": 1, "headers": True,
                        "max_payload": 1 << 20, "gateway": name, "gateway_urls": [f"{HOST}:1"], "gateway_nrp": True, "gateway_iom": True}
                hello = f'CONNECT {{"verbose":false,"pedantic":false,"name":"N{name}","gateway":"{name}"}}\r\nINFO {json.dumps(info)}\r\n'
                sock.sendall(hello.encode() + b"PING\r\n")

                def until_pong():
                    while (line := file.readline()) != b"PONG\r\n":
                        check(line, "closed")
                        if line == b"PING\r\n":
                            sock.sendall(b"PONG\r\n")
                until_pong()
                for at in range(0, len(text), pieces):
                    sock.sendall(text[at:at + pieces])
                sock.sendall(b"PING\r\n")
                until_pong()
                for sub in subs:
                    wanted = [each for each in sent if sub.subject in (each.subject, "t.*") and (each.queue or not sub.queue)]
                    wanted = [(each.subject, each.reply, each.payload, each.headers) for each in wanted]
                    got = [(m.subject, m.reply or "", m.payload, m.headers or b"") for m in sub.wait(len(wanted))]
                    check(got == wanted, f"{sub.subject} in pieces of {pieces}: {len(got)} messages, expected {len(wanted)}, alike up to "
                          f"{next((n for n, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))}")
                    sub.messages.clear()
                row = cluster[0].get_json("/gatewayz")["inbound_gateways"][name][0]
                equal(row["connection"]["in_msgs"], len(sent), "in_msgs of the gateway")
                file.close()


@case(short=True, mixes=(["P"], ["P", "N"]))
def accounts_nobody_has(mix):
    """A message in an account that does not exist here is answered with A-, once; one for an account that does is not."""
    port = free_port()
    with Cluster([mix[0][0]], extra=f'gateway {{ name: c1, listen: "{HOST}:{port}" }}') as cluster:
        cluster.start()
        with socket.create_connection((HOST, port)) as sock:
            sock.settimeout(10)
            file = sock.makefile("rb")

            def say(*lines):
                sock.sendall("".join(line + "\r\n" for line in lines).encode())

            def until_pong():
                lines = []
                while (line := file.readline().decode().rstrip("\r\n")) != "PONG":
                    if line == "PING":
                        say("PONG")
                    lines.append(line)
                return lines
            info = {"server_id": "NRAW", "server_name": "raw", "version": "2.8.0", "host": HOST, "port": 1, "max_payload": 1 << 20,
                    "gateway": "raw", "gateway_urls": [f"{HOST}:1"], "gateway_nrp": True}
            say('CONNECT {"verbose":false,"pedantic":false,"name":"NRAW","gateway":"raw"}', "INFO " + json.dumps(info), "PING")
            commands = []
            while 3 not in commands:
                commands += [json.loads(line[5:]).get("gateway_cmd") for line in until_pong() if line.startswith("INFO")]
                say("PING")
            check(2 in commands, "the start of all interest")
            until_pong()
            say("RMSG nobody a 1", "x", "RMSG nobody b 1", "x", "RMSG $G a 1", "x", "PING")
            equal([line for line in until_pong() if line.startswith(("A", "RS"))], ["A- nobody"], "answers")


@case(short=True, mixes=(["P/O"], ["P/O", "N/O"]))
def a_leafnode_ends_the_guessing(mix):
    """A hub has to know what other clusters want, or its leafnodes would send nothing: with the first one it asks."""
    port = free_port()
    system = "" if mix[0][0].own else 'accounts { "$SYS": { users: [ { user: sys, password: sys } ] } }\nsystem_account: "$SYS"\n'
    with SuperCluster(mix, extra=f'{system}leafnodes {{ listen: "{HOST}:{port}" }}\n') as world:
        world.clusters[1].extra[0] = world.clusters[1].extra[0].replace(f'leafnodes {{ listen: "{HOST}:{port}" }}', "")
        world.start()
        far = world.client(1, 0)
        got = far.sub("t.far")
        publisher = world.client(0, 0)
        barrier(far, publisher)
        publisher.publish("t.nobody")
        publisher.flush()
        check(until(lambda: mode_of(world.clusters[0][0], "c2") == "Optimistic", 5), f"mode {mode_of(world.clusters[0][0], 'c2')}")
        leaf = Node("leaf", mix[0][0])
        try:
            leaf.config = (f'server_name: leaf\nlisten: "{HOST}:{leaf.port}"\nhttp: "{HOST}:{leaf.monitor_port}"\n'
                           f'leafnodes {{ remotes: [ {{ url: "nats://{HOST}:{port}" }} ] }}\n')
            leaf.start()
            check(until(lambda: mode_of(world.clusters[0][0], "c2") == "Interest-Only", 10, 0.05), f"mode {mode_of(world.clusters[0][0], 'c2')}")

            def wanted():
                rows = world.clusters[0][0].get_json("/leafz").get("leafs") or []
                told = leaf.get_json("/leafz?subs=1")["leafs"]
                return rows and "t.far" in (told[0].get("subscriptions_list") or []) and ">" not in told[0]["subscriptions_list"]
            check(until(wanted, 10, 0.05), f"the leafnode was told {leaf.get_json('/leafz?subs=1')}")
            with leaf.client() as near:
                near.publish("t.far", b"hello")
                near.flush()
                equal([m.payload for m in got.wait(1)], [b"hello"], "from the leafnode")
        finally:
            leaf.remove()
