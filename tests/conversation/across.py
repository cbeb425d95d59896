"""The conversation suite between two places: what two clients of one server can do, two clients of different servers can, too.

`near` and `far` make clients (tests/cluster/client.py) at the two ends of whatever lies between: routes, gateways, leafnodes, several of
them. Every kind of talk is held in both directions. Nothing here knows which servers carry it.
"""

import collections
import itertools
import os
import random
import time

from client import encode

PATIENCE_S = 20
numbers = itertools.count(1)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def equal(got, wanted, what):
    check(got == wanted, f"{what}: {str(got)[:300]} instead of {str(wanted)[:300]}")


def barrier(receiver, sender):
    """What `receiver` has subscribed is known where `sender` publishes, and what the sender has published has come: interest keeps its
    order on its way, and messages theirs."""
    subject = f"barrier.{os.getpid()}.{next(numbers)}"
    sub = receiver.sub(subject)
    end = time.monotonic() + PATIENCE_S
    for n in itertools.count(1):
        sender.publish(subject, str(n))
        sender.flush()
        sub.wait(sub.count() + 1, 0.05)
        if sub.messages:
            break
        check(time.monotonic() < end, f"nothing crosses from {sender.name} to {receiver.name}")
    sender.publish(subject, b"last")
    sender.flush()
    end = time.monotonic() + PATIENCE_S
    while b"last" not in sub.payloads():
        sub.wait(sub.count() + 1, 0.5)
        check(time.monotonic() < end, "a message is missing")
    receiver.unsub(sub)
    receiver.flush()


def subjects_and_payloads(receiver, sender, name):
    subs = {pattern: receiver.sub(f"{name}.{pattern}", flush=False) for pattern in ("a.b", "a.*", "*.b", "a.>", ">")}
    barrier(receiver, sender)
    large = bytes(range(256)) * 3000
    sent = [("a.b", b"one", "", None), ("a.c.d", b"two", "back.here", None), ("b", b"", "", None), ("x.b", b"\r\n\0", "", None),
            ("a.b", b"body", "r", {"Key": "value"}), ("a.b", b"", "", {"Only": "a header"}), ("a.b", large, "", None),
            ("a.b", large, "", {"Large": "x" * 3000})]
    for subject, payload, reply, headers in sent:
        sender.publish(f"{name}.{subject}", payload, reply, headers)
    barrier(receiver, sender)
    matches = {"a.b": ["a.b"], "a.*": ["a.b"], "*.b": ["a.b", "x.b"], "a.>": ["a.b", "a.c.d"], ">": ["a.b", "a.c.d", "b", "x.b"]}
    for pattern, sub in subs.items():
        got = [(m.subject, m.payload, m.reply, bool(m.headers)) for m in sub.messages]
        wanted = [(f"{name}.{s}", p, r, bool(h)) for s, p, r, h in sent if s in matches[pattern]]
        equal(got, wanted, f"{pattern} got")
    heads = [m.headers for m in subs["a.b"].messages if m.headers]
    equal(heads[0], b"NATS/1.0\r\nKey: value\r\n\r\n", "headers")
    for sub in subs.values():
        receiver.unsub(sub)
    receiver.flush()


def in_bulk(receiver, sender, again, name):
    """Thousands of messages in one write: long stretches that differ in nothing, and all that may come between them."""
    chance = random.Random(name)
    sent = []
    while len(sent) < 4000:
        subject = f"{name}.{chance.choice(['a', 'a', 'b'])}"
        size = chance.choice([0, 1, 16, 16, 16, 300, 5000])
        for n in range(chance.choice([1, 3, 40, 200])):
            sent.append((subject, (b"%d " % len(sent)).ljust(size, b"."), "", None))
            if chance.random() < 0.02:
                sent.append((subject, b"asks", f"back.{n}", None))
            if chance.random() < 0.02:
                sent.append((subject, b"heads", "", {"N": str(n)}))
    other = again(receiver)
    subs = [receiver.sub(f"{name}.a"), other.sub(f"{name}.*")]
    barrier(receiver, sender)
    barrier(other, sender)
    sender._send(b"".join(encode(*each) for each in sent))
    sender.flush()
    barrier(receiver, sender)
    barrier(other, sender)
    for sub, wanted in zip(subs, ([each for each in sent if each[0].endswith(".a")], sent)):
        got = [(m.subject, m.payload, m.reply) for m in sub.wait(len(wanted))]
        equal(len(got), len(wanted), f"messages for {sub.subject}")
        wrong = [n for n, (a, b) in enumerate(zip(got, wanted)) if a != b[:3]]
        check(not wrong, f"message {wrong[:1]} for {sub.subject}: {got[wrong[0]] if wrong else ''} instead of {wanted[wrong[0]] if wrong else ''}")
    receiver.unsub(subs[0])
    receiver.flush()
    other.close()


def queue_groups(receiver, sender, again, name):
    other = again(receiver)
    members = [receiver.sub(f"{name}.work", "crew"), other.sub(f"{name}.work", "crew")]
    audit, plain = other.sub(f"{name}.*", "audit"), receiver.sub(f"{name}.work")
    barrier(receiver, sender)
    barrier(other, sender)
    for n in range(60):
        sender.publish(f"{name}.work", str(n), reply="r" if n % 2 else "")
    barrier(receiver, sender)
    barrier(other, sender)
    end = time.monotonic() + PATIENCE_S
    while sum(m.count() for m in members) < 60 and time.monotonic() < end:
        time.sleep(0.01)
    wanted = [b"%d" % n for n in range(60)]
    got = collections.Counter(p for m in members for p in m.payloads())
    equal(got, collections.Counter(wanted), "one member each")
    equal(sorted(audit.wait(60) and audit.payloads()), sorted(wanted), "the other group")
    equal(plain.wait(60) and plain.payloads(), wanted, "the plain subscription")
    # A member where it is published is preferred.
    home = again(sender).sub(f"{name}.work", "crew")
    before = [m.count() for m in members]
    for n in range(20):
        sender.publish(f"{name}.work", f"home {n}")
    barrier(receiver, sender)
    barrier(other, sender)
    equal(len(home.wait(20)), 20, "messages of the member at home")
    equal([m.count() for m in members], before, "what others got meanwhile")
    home.client.close()
    other.close()
    for sub in (members[0], plain):
        receiver.unsub(sub)
    receiver.flush()


def requests(asker, answerer, again, name):
    service = answerer.sub(f"{name}.service", "crew", on=lambda m: answerer.publish(m.reply, b"to " + m.payload, headers={"H": "1"}))
    barrier(answerer, asker)
    for n in range(10):
        answer = asker.request(f"{name}.service", f"{n}")
        check(answer is not None, f"request {n} found no responder")
        equal((answer.payload, answer.headers), (b"to %d" % n, b"NATS/1.0\r\nH: 1\r\n\r\n"), "answer")
    # Inboxes that did not exist a moment ago, of clients that did not either.
    for n in range(3):
        with again(asker) as fresh:
            answer = fresh.request(f"{name}.service", b"fresh")
            check(answer is not None and answer.payload == b"to fresh", f"the answer to a fresh client: {answer}")
    # Several answers to one request, and an answer that is a request itself.
    answerer.unsub(service)
    answerer.sub(f"{name}.many", on=lambda m: [answerer.publish(m.reply, b"%d" % n) for n in range(5)])
    barrier(answerer, asker)
    inbox = asker.sub(f"_INBOX.{name}.many", flush=False)
    asker.publish(f"{name}.many", b"?", inbox.subject)
    equal(sorted(m.payload for m in inbox.wait(5)), [b"%d" % n for n in range(5)], "answers to one request")
    barrier(asker, answerer)
    equal(inbox.count(), 5, "answers after a while")


def no_responders(asker, answerer, name):
    """Told when nobody is there. Servers that guess (gateways in optimistic mode) may take a moment to know."""
    def told():
        inbox = asker.request_later(f"{name}.none", b"?")
        try:
            return asker.answer(inbox, 1) is None
        except AssertionError:
            return False

    def until_told(what):
        end = time.monotonic() + PATIENCE_S
        while not told():
            check(time.monotonic() < end, what)
    until_told("no 503 for a subject nobody ever wanted")
    sub = answerer.sub(f"{name}.none", on=lambda m: answerer.publish(m.reply, b"here"))
    barrier(answerer, asker)
    end = time.monotonic() + PATIENCE_S
    while asker.request(f"{name}.none", b"?") is None:
        check(time.monotonic() < end, "a 503 though there is somebody")
    answerer.unsub(sub)
    answerer.flush()
    until_told("no 503 after the last one has gone")


def conversation(near, far):
    """near, far: functions that make a client."""
    clients = []

    def make(where):
        client = where()
        client.where = where
        clients.append(client)
        return client
    try:
        for here, there in ((near, far), (far, near)):
            a, b = make(here), make(there)
            name = f"talk{next(numbers)}"
            subjects_and_payloads(a, b, name)
            in_bulk(a, b, lambda client: make(client.where), name)
            queue_groups(a, b, lambda client: make(client.where), name)
            requests(a, b, lambda client: make(client.where), name)
            no_responders(a, b, name)
            equal([client.errors for client in clients if client.errors], [], "errors")
    finally:
        for client in clients:
            client.close()
