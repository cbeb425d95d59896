"""What signals do, also those that --signal sends."""

import json
import os
import signal
import time

from start import PATIENCE, Wire, case, check, loopback


def ends(exe, number, words, code=0):
    with exe.start(*loopback()) as broker, Wire(broker) as wire:
        wire.sync()
        begin = time.monotonic()
        broker.signal(number)
        check(broker.exits(5) == code, f"exit code {broker.process.returncode}")
        check(time.monotonic() - begin < 2 * PATIENCE, "took long")
        check(wire.closed() == b"", "something was said before the close")
        broker.logged(rf'\[INF\] Trapped "{words}" signal$')
        broker.logged(r"\[INF\] Initiating Shutdown\.\.\.$")
        broker.logged(r"\[INF\] Server Exiting\.\.$")


@case
def sigint(exe):
    ends(exe, signal.SIGINT, "interrupt")


@case
def sigterm(exe):
    ends(exe, signal.SIGTERM, "terminated")


@case
def sighup(exe):
    with exe.start(*loopback(), config="max_payload: 1000\n") as broker, Wire(broker) as wire:
        wire.sync()
        broker.signal(signal.SIGHUP)
        broker.logged(r'\[INF\] Trapped "hangup" signal$')
        broker.logged(r"(?i)\] .*reload")
        wire.sync()
        check(broker.alive(), "it ended")
        with Wire(broker) as other:
            other.sync()


@case
def sigusr1_reopens_the_log(exe):
    with exe.start(*loopback("-l", "a.log", "-D")) as broker:
        os.rename(broker.path("a.log"), broker.path("b.log"))
        with Wire(broker) as wire:
            wire.sync()
            broker.logged(rf"cid:{wire.info['client_id']} - .*created", name="b.log")
        check(not os.path.exists(broker.path("a.log")), "a.log came back by itself")
        broker.signal(signal.SIGUSR1)
        broker.logged(r"\[INF\] File log re-opened$", name="a.log")
        with Wire(broker) as wire:
            wire.sync()
            broker.logged(rf"cid:{wire.info['client_id']} - .*created", name="a.log")
            check(f"cid:{wire.info['client_id']} - " not in broker.read("b.log"), "the old file is still written")


LAME_DUCK = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "30s"\n'


@case
def sigusr2_is_lame_duck(exe):
    with exe.start(*loopback("-m", "-1"), config=LAME_DUCK) as broker:
        with Wire(broker, '{"verbose":false,"protocol":1}') as wire:
            wire.send(b"PING\r\n")
            wire.expect(b"PONG\r\n")
            wire.line()
            broker.signal(signal.SIGUSR2)
            line = wire.line()
            check(line.startswith(b"INFO ") and json.loads(line[5:]).get("ldm") is True, f"got {line!r}")
            broker.logged(r'\[INF\] Trapped "user defined signal 2" signal$')
            broker.logged(r"\[INF\] Entering lame duck mode, stop accepting new clients$")
            broker.signal(signal.SIGTERM)  # ignored from now on
            time.sleep(0.3)
            check(broker.alive(), "SIGTERM ended it in lame duck mode")
            check(broker.get("/varz")[0] == 200, "monitoring is gone")
            wire.sync()
            wire.closed(10)
        check(broker.exits(5) == 0, f"exit code {broker.process.returncode}")


@case
def signal_flag(exe):
    for flag, word, line in (("--signal", "quit", "interrupt"), ("-signal", "term", "terminated"), ("-sl", "stop", None),
                             ("--signal", "ldm", "user defined signal 2"), ("-sl", "reload", "hangup"),
                             ("--signal", "reopen", "user defined signal 1")):
        with exe.start(*loopback("-P", "x.pid")) as broker:
            target = str(broker.pid) if word != "term" else broker.path("x.pid")
            done = exe.run(flag, f"{word}={target}")
            check(done.returncode == 0 and not done.stderr, f"{word}: {done.returncode} {done.stderr!r}")
            if line:
                broker.logged(rf'Trapped "{line}" signal$')
            if word in ("quit", "term", "ldm"):
                check(broker.exits() == 0, f"{word}: exit code {broker.process.returncode}")
            elif word == "stop":
                check(broker.exits() == -signal.SIGKILL, f"{word}: exit code {broker.process.returncode}")
            else:
                time.sleep(0.1)
                check(broker.alive(), f"{word} ended it")
    for argument, wanted in (("dance=1", 'unknown signal "dance"'), ("ldm=4194304", "no such process"),
                             ("ldm=/no_such_dir/x.pid", "no_such_dir")):
        done = exe.run("--signal", argument)
        check(done.returncode == 1 and wanted in done.stderr, f"{argument}: {done.returncode} {done.stderr!r}")
