"""A peer's messages, alone and many alike, of all sizes and kinds: as bytes for its connection, and what a subscriber is to get."""

import collections
import random

HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"

# `queue`: it names the queue group "q", and only members of that get it.
Sent = collections.namedtuple("Sent", "subject reply payload headers queue")


def stream(verb, before, subjects, seed, rounds=300):
    """(bytes, what was sent, in order). `verb`: of a message without headers; `before`: between the verb and the subject."""
    chance = random.Random(seed)
    text, sent = [], []
    for _ in range(rounds):
        subject = chance.choice(subjects)
        reply = chance.choice(["", "", "", "", "t.reply"])
        word = chance.choice([verb, verb, verb, verb.lower(), "HMSG"])
        queue = chance.random() < 0.1
        size = chance.choice([0, 1, 16, 16, 100, 5000, 20_000])
        headers = HEADERS if word == "HMSG" else b""
        for n in range(chance.choice([1, 2, 30, 200 if size < 1000 else 10])):
            payload = chance.choice(b"xyz").to_bytes(1, "big") * (size + (n == 5))
            middle = (f" + {reply} q" if reply else " | q") if queue else f" {reply}" if reply else ""
            sizes = f"{len(headers)} {len(headers) + len(payload)}" if headers else str(len(payload))
            text.append(f"{word} {before}{subject}{middle} {sizes}\r\n".encode() + headers + payload + b"\r\n")
            sent.append(Sent(subject, reply, payload, headers, queue))
    return b"".join(text), sent
