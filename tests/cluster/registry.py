"""Where the cases register themselves."""

import inspect
import time

CASES = []


class Case:
    def __init__(self, body, nodes, short, long, needs):
        self.name = f"{body.__module__}.{body.__name__}"
        self.body, self.nodes, self.short, self.long, self.needs = body, nodes, short, long, needs
        self.takes_long = "long" in inspect.signature(body).parameters

    def suits(self, mix):
        return len(mix) >= (self.nodes or 2) and (self.needs is None or self.needs(mix))


def case(nodes=3, short=False, long=False, needs=None):
    """nodes: how many of the mix it takes. short: also run by scripts/check. needs: says for a mix whether it makes sense."""
    def register(body):
        CASES.append(Case(body, nodes, short, long, needs))
        return body
    return register


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, expected {wanted!r}")


def eventually(claim, timeout_s=60):
    """For what is compared over several questions: `claim` may fail as long as something is still on its way."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return claim()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
