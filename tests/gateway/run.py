#!/usr/bin/env python3
"""Super-clusters of real servers: Peregrine, the newest nats-server and Debian's 2.9, in any mix.

    run.py [--server BIN] [--server-args ARGS] [--against NATS_SERVER] [--debian NATS_SERVER] [--optimistic NATS_SERVER] [--short | --long]
           [--mix MIX]... [--only WORD]... [--list] [--seed N] [--jobs N]

A MIX is clusters, one letter per node, with slashes between: PP/NN is two clusters of two. P is Peregrine, N the newest nats-server, D
Debian's, O nats-server 2.8, the last that guesses what others want (optimistic mode). Every case must hold with NN/NN/N too: that shows
that what it expects is what nats-server does. --short is what scripts/check runs; --long also cuts wires for longer. Every case is held
in a child of its own under unshare, as root or in a user namespace, --jobs at a time. GATEWAY_LOGS=1 prints the servers' logs on failure.
"""

import argparse
import functools
import os
import pathlib
import random
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cluster"), str(HERE.parent / "conversation")]
from nodes import programs  # noqa: E402
from several import hold, in_namespace  # noqa: E402
from cases import CASES, case  # noqa: E402
import cuts  # noqa: E402
import monitoring  # noqa: E402
import secured  # noqa: E402,F401  its cases register themselves
import tutorial  # noqa: E402
import word_for_word  # noqa: E402,F401

for page_case in (monitoring.monitoring_field_by_field, monitoring.monitoring_of_tls):
    case(short=True, mixes=(["P/N"], ["P/N"]))(page_case)

SHORT_MIXES = ["PP/NN/P", "NN/PP/D"]
MIXES = ["PP/PP/P", "PP/NN/P", "NN/PP/D", "PN/NP/P", "DD/PP/N"]
# These need hosts of their own: (what to run, mixes for scripts/check, mixes for a whole run, only with --long)
TUTORIAL_MIXES = ["PP/PP"], ["PP/PP", "PP/NN"]
HOSTED = {"tutorial_as_it_stands": (tutorial.as_it_stands, *TUTORIAL_MIXES, False),
          "tutorial_with_the_port_put_right": (tutorial.with_the_port_put_right, *TUTORIAL_MIXES, False),
          "tutorial_in_yaml": (tutorial.in_yaml, *TUTORIAL_MIXES, False), **cuts.HOSTED}
CASE_S = 280


def clusters(mix, available):
    return [[available[letter] for letter in cluster] for cluster in mix.split("/")]


BODIES = {case.__name__: case for case in CASES} | {name: hosted[0] for name, hosted in HOSTED.items()}
# Those that measure.
ALONE = {name for name in HOSTED if name.endswith("costs_nothing")}


def selected(args):
    """(name, mix); those that wait longest first."""
    for name, (_, short, whole, long) in HOSTED.items():
        for mix in args.mix or (short if args.short else whole):
            if not long or args.long:
                yield name, mix
    for case in CASES:
        usual = (SHORT_MIXES, MIXES) if case.mixes is None else case.mixes
        for mix in args.mix or usual[0 if args.short else 1]:
            if case.short or not args.short:
                yield case.__name__, mix


def hold_inside(name, mix, available, seed):
    """The child's part."""
    random.seed(seed)
    missing = [letter for letter in set(mix) - {"/"} if letter not in available]
    try:
        assert not missing, f"no program for {missing}"
        BODIES[name](clusters(mix, available))
    except Exception as error:  # a case that breaks is a case that failed, whatever broke
        if not isinstance(error, AssertionError):
            traceback.print_exc()
        print(f"FAIL {str(error) or repr(error)} (--seed {seed})", flush=True)
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="Peregrine; build/peregrine without it")
    parser.add_argument("--server-args", default="", help="more arguments for Peregrine")
    parser.add_argument("--against", help="the newest nats-server; $NATS_SERVER or the PATH without it")
    parser.add_argument("--debian", help="Debian's nats-server; /usr/sbin/nats-server without it")
    parser.add_argument("--optimistic", help="nats-server 2.8; $NATS_SERVER_28 without it")
    parser.add_argument("--mix", action="append")
    parser.add_argument("--only", action="append")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=3, help="cases at a time")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    available = programs(args.server, args.server_args.split(), args.against, args.debian, args.optimistic)
    if args.inside:
        return hold_inside(args.inside, args.mix[0], available, args.seed)
    again = [sys.executable, "-B", os.path.abspath(__file__), "--seed", str(args.seed)]
    for option, value in (("--server", args.server), ("--server-args", args.server_args), ("--against", args.against),
                          ("--debian", args.debian), ("--optimistic", args.optimistic)):
        again += [f"{option}={value}"] if value else []
    chosen = [(name, mix) for name, mix in selected(args) if not args.only or any(word in name for word in args.only)]
    if args.list:
        print("\n".join(f"{name}/{mix}" for name, mix in chosen))
        return 0
    cases = [(f"{name}/{mix}", functools.partial(in_namespace, [*again, "--inside", name, "--mix", mix], CASE_S)) for name, mix in chosen]
    measuring = [case for case in cases if case[0].split("/")[0] in ALONE]
    return hold([case for case in cases if case not in measuring], args.jobs, measuring)


if __name__ == "__main__":
    sys.exit(main())
