#!/usr/bin/env python3
"""Holds every talk of talks/ with the broker under test and with nats-server, and compares what both answer.

    run.py [--server BIN] [--against NATS_SERVER] [--with CONFIG] [--over WIRE] [--only WORD]... [--list] [--seed N] [--jobs N]

A talk passes when both servers meet its expectations, in one piece, cut and byte by byte, and their answers are the
same once ids, ports, nonces and versions are taken out. A wrong expectation therefore fails on nats-server. Without
--against, nats-server is taken from $NATS_SERVER or the PATH; `--against none` checks the expectations only.
The format of a talk is described in talk.py. A file whose feature the broker refuses by name, and that says so itself, is
listed as `later` and not counted.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import re
import sys
import threading

from broker import Broker, StartError, Tally, default_server, find_reference, until, wires
from talk import Bytewise, Cut, Mismatch, Player, TalkFile, Whole, as_loopback, shown

HERE = os.path.dirname(os.path.abspath(__file__))

# INFO fields that say who is speaking, not how: a build's own identity, and what JetStream or auth callout add.
IDENTITY = {"git_commit", "go", "version", "api_lvl", "xkey"}
VARYING = {"server_id", "server_name", "port", "client_id", "nonce", "connect_urls"}


def normalised(chunks):
    data = b"".join(chunks)

    def info(match):
        fields = {k: v for k, v in json.loads(match[1]).items() if k not in IDENTITY}
        fields = {k: (f"<{k}>" if k in VARYING else v) for k, v in fields.items()}
        return b"INFO " + json.dumps(fields, sort_keys=True).encode() + b" \r\n"

    return re.sub(rb"INFO (\{.*?\}) \r\n", info, data)


class Speaker:
    """A server of one talk file, started when needed and again after a talk of its own or a crash."""

    def __init__(self, binary, config, wire):
        self.binary = binary
        self.config = config
        self.wire = wire
        self.broker = None

    def hear(self, talk, splitter):
        own = "@own" in talk.options
        if self.broker and (own or not self.broker.alive()):
            self.stop()
        if not self.broker:
            self.broker = Broker(self.binary, self.config, wire=self.wire)
        player = Player(self.broker, talk, splitter)
        try:
            player.play()
        except Mismatch as error:
            if not self.broker.alive() and not own:
                raise Mismatch(f"{error} — server died ({self.broker.process.returncode}): "
                               f"{self.broker.log_tail()}") from None
            raise
        finally:
            if own:
                self.stop()
            else:
                self.settle()
        return {name: as_loopback(normalised(chunks), self.wire) for name, chunks in player.heard.items()}

    def settle(self):
        """The next talk on this server must not meet subscriptions of this one."""
        try:
            until(lambda: self.broker.get_json("/varz")["connections"] == 0, 3)
        except (OSError, ValueError, KeyError):
            if not self.broker.alive():
                return
            self.stop()

    def stop(self):
        if self.broker:
            self.broker.stop()
            self.broker = None

    def close(self):
        self.stop()
        self.wire.close()


def refused_by_name(binary, file):
    """What the broker says when it knows the key of this file but does not have it yet; None once it has."""
    try:
        Broker(binary, file.config).stop()
    except StartError as error:
        said = re.search(r'"([^"]+)" is not supported by this version yet', str(error))
        return said[0] if said and said[1] == file.later else None
    return None


def run_file(path, options, report):
    file = TalkFile(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    if file.later and (refusal := refused_by_name(options.server, file)):
        print(f"later {stem}: {refusal}", flush=True)
        return
    speakers = [Speaker(options.server, file.config + options.extra, options.network.wire())]
    if options.against:
        speakers.append(Speaker(options.against, file.config, wires.Loopback()))
    try:
        for talk in file.talks:
            name = f"{stem}: {talk.name}"
            if options.only and not any(word in name for word in options.only):
                continue
            report(name, run_talk(talk, speakers, options.seed))
    finally:
        for speaker in speakers:
            speaker.close()


def run_talk(talk, speakers, seed):
    """None, or the first thing that went wrong."""
    ways = [Whole()]
    if "@whole" not in talk.options:
        ways += [Cut(seed), Cut(seed + 1), Bytewise()]
    for way in ways:
        heard = []
        for speaker in speakers:
            if isinstance(way, Cut):
                way = Cut(int(way.name.split()[-1]))  # the same cuts for every server
            who = os.path.basename(speaker.binary) + ("" if speaker is speakers[0] else " (compared with)")
            try:
                heard.append(speaker.hear(talk, way))
            except (Mismatch, StartError) as error:
                return f"[{who}, {way.name}] {error}"
        if len(heard) == 2 and "@loose" not in talk.options:
            for connection, ours in heard[0].items():
                theirs = heard[1].get(connection, b"")
                if ours != theirs:
                    return f"[{way.name}] {connection} heard {difference(ours, theirs)}"
    return None


def difference(ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    start = max(0, at - 40)
    return f"{shown(ours[start:])}, from nats-server {shown(theirs[start:])}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=default_server(), help="broker under test")
    parser.add_argument("--against", default=find_reference(), help="nats-server to compare with, or none")
    parser.add_argument("--with", dest="extra", metavar="CONFIG", default="",
                        help="more config for the broker under test, e.g. 'shards: 4'")
    parser.add_argument("--over", type=wires.check, default="loopback", metavar="WIRE",
                        help="how the broker under test is reached: loopback, or dpdk:DRIVER[:QUEUES] (../clients/wires.py; as root)")
    parser.add_argument("--only", action="append", help="only talks whose `file: name` contains this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--seed", type=int, default=1, help="seed of the cuts")
    parser.add_argument("--jobs", type=int, default=6, help="talk files at a time")
    options = parser.parse_args()
    options.server = os.path.abspath(options.server)
    options.extra = options.extra and f"\n{options.extra}\n"
    if options.against == "none" or not options.against:
        options.against = None
    else:
        options.against = os.path.abspath(options.against)
    paths = sorted(glob.glob(os.path.join(HERE, "talks", "*.talk")))
    if options.list:
        for path in paths:
            for talk in TalkFile(path).talks:
                print(f"{os.path.splitext(os.path.basename(path))[0]}: {talk.name}")
        return 0
    for binary in filter(None, [options.server, options.against]):
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not an executable")
    options.network = wires.Network(options.over)
    options.network.enter([sys.executable, "-B", os.path.abspath(__file__), *sys.argv[1:]])
    if not options.against:
        print("no nats-server to compare with: checking expectations only", flush=True)

    tally = Tally()
    lock = threading.Lock()

    def report(name, reason):
        with lock:
            if reason:
                tally.fail(name, reason)
            else:
                tally.ok(name)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = {pool.submit(run_file, path, options, report): path for path in paths}
        for job in concurrent.futures.as_completed(jobs):
            if error := job.exception():
                report(os.path.basename(jobs[job]), f"{type(error).__name__}: {error}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
