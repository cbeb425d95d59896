#!/usr/bin/env python3
"""Super-clusters of real servers: Peregrine, the newest nats-server and Debian's 2.9, in any mix.

    run.py [--server BIN] [--server-args ARGS] [--against NATS_SERVER] [--debian NATS_SERVER] [--optimistic NATS_SERVER] [--short | --long]
           [--mix MIX]... [--only WORD]... [--list] [--seed N]

A MIX is clusters, one letter per node, with slashes between: PP/NN is two clusters of two. P is Peregrine, N the newest nats-server, D
Debian's, O nats-server 2.8, the last that guesses what others want (optimistic mode). Every case must hold with NN/NN/N too: that shows
that what it expects is what nats-server does. --short is what scripts/check runs; --long also cuts wires for longer. GATEWAY_LOGS=1
prints the servers' logs on failure.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cluster"), str(HERE.parent / "conversation")]
from nodes import programs  # noqa: E402
from cases import CASES, case  # noqa: E402
import cuts  # noqa: E402
import monitoring  # noqa: E402
import secured  # noqa: E402,F401  its cases register themselves
import tutorial  # noqa: E402

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


def run_inside(name, mix, args):
    """In a network namespace of its own, which goes away with the child."""
    command = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), sys.executable, "-B",
               os.path.abspath(__file__), "--inside", name, "--mix", mix]
    for option, value in (("--server", args.server), ("--server-args", args.server_args), ("--against", args.against),
                          ("--debian", args.debian), ("--optimistic", args.optimistic)):
        command += [f"{option}={value}"] if value else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=CASE_S, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        raise AssertionError((done.stdout + done.stderr)[-1500:])


def clusters(mix, available):
    return [[available[letter] for letter in cluster] for cluster in mix.split("/")]


def selected(args):
    """(name, mix, what to run)"""
    for case in CASES:
        usual = (SHORT_MIXES, MIXES) if case.mixes is None else case.mixes
        for mix in args.mix or usual[0 if args.short else 1]:
            if case.short or not args.short:
                yield case.__name__, mix, lambda available, case=case, mix=mix: case(clusters(mix, available))
    for name, (_, short, whole, long) in HOSTED.items():
        for mix in args.mix or (short if args.short else whole):
            if not long or args.long:
                yield name, mix, lambda _, name=name, mix=mix: run_inside(name, mix, args)


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
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    available = programs(args.server, args.server_args.split(), args.against, args.debian, args.optimistic)
    if args.inside:
        HOSTED[args.inside][0](clusters(args.mix[0], available))
        return 0
    passed = failed = 0
    for name, mix, body in selected(args):
        if args.only and not any(word in name for word in args.only):
            continue
        if args.list:
            print(f"{name}/{mix}")
            continue
        start = time.monotonic()
        random.seed(args.seed)
        try:
            missing = [letter for letter in set(mix) - {"/"} if letter not in available]
            assert not missing, f"no program for {missing}"
            body(available)
            passed += 1
            print(f"ok {name}/{mix} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception as error:  # a case that breaks is a case that failed, whatever broke
            failed += 1
            if not isinstance(error, AssertionError):
                traceback.print_exc()
            print(f"FAIL {name}/{mix}: {str(error) or repr(error)} (--seed {args.seed})", flush=True)
    if args.list:
        return 0
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
