#!/usr/bin/env python3
"""Clusters of real servers: Peregrine, the newest nats-server and Debian's 2.9, in any mix.

    run.py [--server BIN] [--server-args ARGS] [--against NATS_SERVER] [--debian NATS_SERVER] [--short | --long] [--mix MIX]...
           [--only WORD]... [--list] [--repeat N] [--seed N] [--jobs N]

A MIX is one letter per node: P Peregrine, N the newest nats-server, D Debian's (PNP). A case that needs fewer nodes takes the first
ones. Without --mix: PPP and NPD for the short selection, more for the rest. Every case must hold with NNN and NND too: that shows
that what it expects is what nats-server does. --short is what scripts/check runs; --long also cuts cables for a minute. Every case is
held in a child of its own under unshare, as root or in a user namespace, --jobs at a time. CLUSTER_LOGS=1 prints the servers' logs on
failure.
"""

import argparse
import functools
import os
import pathlib
import random
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from registry import CASES  # noqa: E402
from nodes import StartError, programs  # noqa: E402
from several import hold, in_namespace  # noqa: E402
import formation, interest, messages, hostile, monitoring, by_hand, change, split  # noqa: E402,E401,F401  their cases register themselves, in this order

SHORT_MIXES = ["PPP", "NPD"]
MIXES = ["PPP", "PNP", "NPN", "NPD", "DPP"]
CASE_S = 280


def selected(args):
    for case in CASES:
        if args.only and not any(word in case.name for word in args.only):
            continue
        if not args.only and (args.short and not case.short or case.long and not args.long):
            continue
        mixes = args.mix or (SHORT_MIXES if args.short else MIXES)
        seen = set()
        for mix in mixes:
            mix = mix[:case.nodes] if case.nodes else mix
            if mix not in seen and case.suits(mix):
                seen.add(mix)
                yield case, mix


def hold_inside(case, mix, available, args):
    """The child's part."""
    random.seed(args.seed)
    missing = [letter for letter in set(mix) if letter not in available]
    try:
        assert not missing, f"no program for {missing}"
        case.body([available[letter] for letter in mix], **({"long": args.long} if case.takes_long else {}))
    except Exception as error:  # a case that breaks is a case that failed, whatever broke
        if not isinstance(error, (AssertionError, StartError)):
            traceback.print_exc()
        print(f"FAIL {str(error) or repr(error)} (--seed {args.seed})", flush=True)
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="Peregrine; build/peregrine without it")
    parser.add_argument("--server-args", default="", help="more arguments for Peregrine, in one string")
    parser.add_argument("--against", help="the newest nats-server; $NATS_SERVER or the PATH without it")
    parser.add_argument("--debian", help="Debian's nats-server; /usr/sbin/nats-server without it")
    parser.add_argument("--mix", action="append")
    parser.add_argument("--only", action="append")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=3, help="cases at a time")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    available = programs(args.server, args.server_args.split(), args.against, args.debian)
    args.seed = args.seed if args.seed is not None else random.randrange(1 << 30)
    if args.list:
        for case, mix in selected(args):
            print(f"{case.name}/{mix}")
        return 0
    if args.inside:
        return hold_inside(next(case for case in CASES if case.name == args.inside), args.mix[0], available, args)
    again = [sys.executable, "-B", os.path.abspath(__file__), "--seed", str(args.seed), *(["--long"] if args.long else [])]
    for option, value in (("--server", args.server), ("--server-args", args.server_args), ("--against", args.against), ("--debian", args.debian)):
        again += [f"{option}={value}"] if value else []
    limit_s = CASE_S * (3 if args.long else 1)
    cases = [(f"{case.name}/{mix}", functools.partial(in_namespace, [*again, "--inside", case.name, "--mix", mix], limit_s))
             for _ in range(args.repeat) for case, mix in selected(args)]
    return hold(cases, args.jobs)


if __name__ == "__main__":
    sys.exit(main())
