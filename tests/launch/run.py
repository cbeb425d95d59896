#!/usr/bin/env python3
"""Starts and watches the broker the way the ecosystem's programs start and watch a nats-server.

    run.py [--server BIN] [--against NATS_SERVER] [--only WORD]... [--list]

Every flag, signal, file and log line outside JetStream that official clients rely on. Each case runs with the broker under
its own name and again through a link named nats-server; with --against (default: $NATS_SERVER or nats-server in PATH;
`none` leaves it out) also with a real nats-server, so that a wrong expectation fails there. keys.json holds the field
names and JSON types of the monitoring pages, as `--record` writes them from a nats-server.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import sys
import tempfile
import threading

from start import CASES, Exe  # before broker: it knows where that lies
from broker import Tally, default_server, find_reference, is_reference
import command_line  # noqa: F401  registers cases, as the next ones do
import files  # noqa: F401
import monitoring
import secured  # noqa: F401
import signals  # noqa: F401


def run_case(body, exe):
    try:
        body(exe)
    except Exception as error:
        return f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=default_server(), help="broker under test")
    parser.add_argument("--against", default=find_reference(), help="nats-server to compare with, or none")
    parser.add_argument("--only", action="append", help="only cases whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--record", metavar="NATS_SERVER", help="write keys.json from this nats-server and stop")
    parser.add_argument("--jobs", type=int, default=4, help="cases at a time")
    options = parser.parse_args()
    if options.list:
        print("\n".join(name for name, _ in CASES))
        return 0
    if options.record:
        with open(monitoring.KEYS_PATH, "w", encoding="utf-8") as file:
            json.dump(monitoring.shapes(Exe(os.path.abspath(options.record), True)), file, indent=1, sort_keys=True)
            file.write("\n")
        return 0
    server = os.path.abspath(options.server)
    against = None if options.against in (None, "none") else os.path.abspath(options.against)
    for binary in filter(None, [server, against]):
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not an executable")

    links = tempfile.mkdtemp(prefix="launch-link-")
    exes = [Exe(server, is_reference(server))]
    if exes[0].name != "nats-server":
        os.symlink(server, os.path.join(links, "nats-server"))
        exes.append(Exe(os.path.join(links, "nats-server"), False))
    tally = Tally()
    lock = threading.Lock()

    def run(name, body):
        reason = None
        for exe in exes + ([Exe(against, True)] if against else []):
            if reason := run_case(body, exe):
                where = "nats-server to compare with" if exe.path == against else exe.name
                reason = f"[{where}] {reason}"
                break
        with lock:
            if reason:
                tally.fail(name, reason)
            else:
                tally.ok(name)

    try:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for job in [pool.submit(run, name, body) for name, body in CASES
                        if not options.only or any(word in name for word in options.only)]:
                job.result()
    finally:
        shutil.rmtree(links, ignore_errors=True)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
