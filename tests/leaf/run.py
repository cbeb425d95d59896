#!/usr/bin/env python3
"""Leafnode links between servers: the broker under test with itself and with real nats-servers, in both roles.

    run.py [--server BIN] [--against NATS_SERVER] [--older NATS_SERVER] [--only WORD]... [--list] [--jobs N]

Every case starts servers of its own on random ports. A pair "hub<-leaf" says who is which; "us" is the broker under test,
"new" the nats-server of --against ($NATS_SERVER or the PATH), "old" that of --older (/usr/sbin/nats-server, Debian's 2.9,
where there is one). Each case is also held between nats-servers only ("new<-new"), so that a wrong expectation shows;
`--against none` leaves nats-server out.
"""

import argparse
import functools
import os
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir)
sys.path[:0] = [os.path.join(TESTS, "conversation"), os.path.join(TESTS, "cluster")]
from pairs import ALONE, PAIRS  # noqa: E402
import across_a_link, topologies, secured, word_for_word  # noqa: E402,E401,F401  their cases register themselves, in this order
from broker import default_server, find_reference  # noqa: E402
from several import hold  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=default_server(), help="broker under test")
    parser.add_argument("--against", default=find_reference(), help="newest nats-server, or none")
    parser.add_argument("--older", default="/usr/sbin/nats-server", help="an older nats-server, if it is there")
    parser.add_argument("--only", action="append", help="only cases whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--jobs", type=int, default=4, help="cases at a time")
    options = parser.parse_args()
    kinds = {"us": os.path.abspath(options.server)}
    if options.against and options.against != "none":
        kinds["new"] = os.path.abspath(options.against)
        if os.access(options.older, os.X_OK):
            kinds["old"] = os.path.abspath(options.older)
    for binary in kinds.values():
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not an executable")

    cases = []
    for name, function in PAIRS:
        for hub in kinds:
            for leaf in kinds:
                # Between nats-servers the newest pair is enough.
                if "us" in (hub, leaf) or (hub, leaf) == ("new", "new"):
                    cases.append((f"{name}: {hub}<-{leaf}", function, (kinds[hub], kinds[leaf])))
    for name, function in ALONE:
        for kind in kinds:
            if kind != "old":
                cases.append((f"{name}: {kind}", function, (kinds[kind],)))
    if options.only:
        cases = [case for case in cases if any(word in case[0] for word in options.only)]
    if options.list:
        for name, _, _ in cases:
            print(name)
        return 0

    return hold([(name, functools.partial(function, *arguments)) for name, function, arguments in cases], options.jobs)


if __name__ == "__main__":
    sys.exit(main())
