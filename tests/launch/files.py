"""Ports, pid and log files, and the lines in the log that programs look for."""

import datetime
import glob
import json
import os
import re
import signal
import socket
import urllib.parse

from start import HOST, LOG_LINE, PATIENCE, Scratch, Wire, case, check, loopback, until


@case
def ports_file(exe):
    with Scratch() as directory:
        with exe.start(*loopback("-m", "-1", f"--ports_file_dir={directory}"), ports_dir=False, wait=False) as broker:
            path = os.path.join(directory, f"{exe.name}_{broker.pid}.ports")
            check(until(lambda: os.path.exists(path) and os.path.getsize(path), 5), f"no {path} within 5 s: {os.listdir(directory)}")
            with open(path, encoding="utf-8") as file:
                ports = json.load(file)
            check(set(ports) == {"nats", "monitoring"}, f"keys {sorted(ports)}")
            for key, scheme in (("nats", "nats"), ("monitoring", "http")):
                check(len(ports[key]) == 1 and re.fullmatch(rf"{scheme}://127\.0\.0\.1:\d+", ports[key][0]), f"{key}: {ports[key]}")
            broker.port = urllib.parse.urlsplit(ports["nats"][0]).port
            broker.monitor_port = urllib.parse.urlsplit(ports["monitoring"][0]).port
            with Wire(broker) as wire:
                wire.sync()
            check(broker.get("/varz")[0] == 200, "/varz")
            broker.signal(signal.SIGTERM)
            broker.exits()
            check(not os.path.exists(path), "the file is still there after the end")
    with exe.start(*loopback()) as broker:
        check(set(broker.ports) == {"nats"}, f"without monitoring: {broker.ports}")
        path = broker.ports_path()
        broker.signal(signal.SIGINT)
        broker.exits()
        check(not os.path.exists(path), "the file is still there after SIGINT")


@case
def ports_file_of_all_interfaces(exe):
    with exe.start("-p", "-1") as broker:
        check(broker.ports["nats"], "no URL")
        for url in broker.ports["nats"]:
            check(urllib.parse.urlsplit(url).port == broker.port, f"{url}")
            check("0.0.0.0" not in url, f"{url} is no address to connect to")
        with Wire(broker) as wire:
            check(wire.info["host"] == "0.0.0.0", f"INFO host {wire.info['host']}")


@case
def pid_file(exe):
    for form in (["-P", "x.pid"], ["--pid", "x.pid"], ["-pid=x.pid"]):
        with exe.start(*loopback(*form)) as broker:
            check(broker.read("x.pid") == str(broker.pid), f"{form}: {broker.read('x.pid')!r}, pid is {broker.pid}")
            broker.signal(signal.SIGTERM)
            broker.exits()
    with exe.start(*loopback(), config='pid_file: "y.pid"\n') as broker:
        check(broker.read("y.pid") == str(broker.pid), "pid_file in the config")


@case
def pid_file_that_cannot_be(exe):
    done = exe.run(*loopback("-P", "/no_such_dir/x.pid"))
    check(done.returncode == 1, f"exit code {done.returncode}")
    check(re.search(r"\[FTL\] Could not write pidfile: open /no_such_dir/x\.pid: no such file or directory$", done.stderr, re.M),
          f"{done.stderr[-300:]!r}")
    check("Server is ready" not in done.stderr, "ready, and nobody knows its pid")


@case
def ports_file_that_cannot_be(exe):
    with exe.start(*loopback("--ports_file_dir", "/no_such_dir"), ports_dir=False, wait=False) as broker:
        path = f"/no_such_dir/{exe.name}_{broker.pid}.ports"
        broker.logged(rf"\[ERR\] Error writing ports file \({path}\): open {path}: no such file or directory$")
        check(broker.alive(), "it ended")


@case
def log_file(exe):
    for form in (["-l", "rel.log"], ["--log", "rel.log"], ["-log=rel.log"]):
        with exe.start(*loopback(*form)) as broker:
            broker.logged(r"\[INF\] Listening for client connections on 127\.0\.0\.1:\d+$", name="rel.log")
            broker.logged(r"\[INF\] Server is ready$", name="rel.log")
            check(not broker.log(), f"stderr: {broker.log()!r}")
            check(not broker.read("stdout.log"), "stdout is not empty")
            for line in broker.read("rel.log").splitlines():
                check(LOG_LINE.fullmatch(line), f"line {line!r}")


@case
def log_is_appended(exe):
    with Scratch(old_log="kept\n") as directory:
        path = os.path.join(directory, "old.log")
        with exe.start(*loopback("-l", path)) as broker:
            broker.logged(r"Server is ready$", name=path)
            with open(path, encoding="utf-8") as file:
                check(file.read().startswith("kept\n["), "the old log is gone")


@case
def log_rotation_by_size(exe):
    config = 'log_file: "r.log"\nlogfile_size_limit: 6000\nlogfile_max_num: 3\ntrace: true\n'
    with exe.start(*loopback(), config=config) as broker, Wire(broker) as wire:
        pattern = broker.path("r.log.*")

        def backups():
            return sorted(glob.glob(pattern))

        for _ in range(40):
            wire.send(b"PUB rotate.this.log 10\r\n0123456789\r\n" * 20)
            wire.sync()
            if len(backups()) >= 2:
                break
        check(until(lambda: len(backups()) >= 2, 3), f"{len(backups())} backups")
        for _ in range(40):
            wire.send(b"PUB rotate.this.log 10\r\n0123456789\r\n" * 20)
            wire.sync()
        # The log is written by a thread of its own, and between a rename and the next open there is no file of that name:
        # looked at when it is done.
        broker.process.send_signal(signal.SIGTERM)
        broker.exits()
        # With a limit of 3 in all, the current file counts.
        check(len(backups()) == 2, f"{len(backups())} backups beside the log, logfile_max_num is 3")
        for backup in backups():
            name = os.path.basename(backup)
            check(re.fullmatch(r"r\.log\.\d{4}(\.\d\d){5}\.\d{9}", name), f"name {name}")
            size = os.path.getsize(backup)
            check(size < 8000, f"{name} has {size} bytes")
        check(os.path.getsize(broker.path("r.log")) < 8000, "the log outgrew its limit")
        for line in broker.read("r.log").splitlines():
            check(LOG_LINE.fullmatch(line), f"line {line!r}")


@case
def log_size_limit_flag(exe):
    with exe.start(*loopback("-l", "f.log", "-V", "--log_size_limit", "5000")) as broker, Wire(broker) as wire:
        for _ in range(30):
            wire.send(b"PUB a 1\r\nx\r\n" * 20)
            wire.sync()
        check(until(lambda: glob.glob(broker.path("f.log.2*")), 3), "never rotated")


@case
def remote_syslog(exe):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(5 * PATIENCE)
        with exe.start(*loopback("-r", f"udp://{HOST}:{sock.getsockname()[1]}")) as broker:
            seen = ""
            while "Server is ready" not in seen:
                try:
                    seen = sock.recv(4096).decode()
                except socket.timeout:
                    raise AssertionError(f"no datagram with the ready line, last {seen!r}, stderr {broker.log_tail()!r}") from None
            # Facility daemon (3), severity notice: <29>; a tag with the pid.
            check(re.match(rf"<\d+>.*(nats-server|{exe.name})\[{broker.pid}\]: ", seen), f"datagram {seen!r}")
            check(not broker.log(), f"stderr: {broker.log()!r}")


@case
def banner_and_ready_lines(exe):
    with exe.start(*loopback("-m", "-1"), config="max_payload: 1MB\n") as broker:
        broker.logged(r"\[INF\] Server is ready$")  # a log may be written a moment after the ports file
        log = broker.log()
        check(not broker.read("stdout.log"), f"stdout: {broker.read('stdout.log')!r}")
        for line in log.splitlines():
            match = LOG_LINE.fullmatch(line)
            check(match, f"line {line!r}")
            check(int(match[1]) == broker.pid, f"pid in {line!r}, {broker.pid} runs")
        with Wire(broker) as wire:
            pass
        at = 0
        for pattern in (rf"\[INF\] Starting {exe.name}$", rf"\[INF\]   Version:  {re.escape(wire.info['version'])}",
                        rf"\[INF\]   Name:     {wire.info['server_name']}$", rf"\[INF\]   ID:       {wire.info['server_id']}$",
                        r"\[INF\] Using configuration file: test\.conf \(sha256:[0-9a-f]{64}\)$",
                        rf"\[INF\] Starting http monitor on 127\.0\.0\.1:{broker.monitor_port}$",
                        rf"\[INF\] Listening for client connections on 127\.0\.0\.1:{broker.port}$",
                        r"\[INF\] Server is ready$"):
            found = re.compile(pattern, re.M).search(log, at)
            if pattern.startswith(r"\[INF\] Starting ") and not found and not exe.reference:
                found = re.search(r"\[INF\] Starting (nats-server|peregrine)$", log, re.M)
            check(found, f"no {pattern!r} after offset {at} in {log}")
            at = found.end()


@case
def log_times(exe):
    local = datetime.datetime.now().astimezone()
    with exe.start(*loopback(), env={"TZ": "Asia/Tokyo"}) as broker:
        broker.logged(r"Server is ready$")
        text = LOG_LINE.match(broker.log())[2]
        said = datetime.datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f")
        tokyo = local.astimezone(datetime.timezone(datetime.timedelta(hours=9))).replace(tzinfo=None)
        check(abs((said - tokyo).total_seconds()) < 30, f"{text} is not the local time {tokyo}")
    with exe.start(*loopback("--logtime_utc"), env={"TZ": "Asia/Tokyo"}) as broker:
        broker.logged(r"Server is ready$")
        text = LOG_LINE.match(broker.log())[2]
        said = datetime.datetime.strptime(text, "%Y/%m/%d %H:%M:%S.%f")
        utc = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        check(abs((said - utc).total_seconds()) < 30, f"{text} is not UTC {utc}")
    for args, config in ((["-T=false"], None), (["--logtime=false"], None), ([], "logtime: false\n")):
        with exe.start(*loopback(*args), config=config) as broker:
            broker.logged(r"Server is ready$")
            for line in broker.log().splitlines():
                check(re.fullmatch(rf"\[{broker.pid}\] \[INF\] .*", line), f"{args}: {line!r}")


@case
def connection_lines(exe):
    with exe.start(*loopback("-DV"), config="authorization { users: [ {user: a, password: secretpass, permissions: "
                                            "{publish: foo}} ] }\n") as broker:
        with Wire(broker, '{"verbose":false,"pedantic":false,"user":"a","pass":"secretpass","name":"n","lang":"py",'
                          '"version":"1.0"}') as wire:
            wire.send(b"SUB foo q 1\r\nPUB foo bar 3\r\nhi!\r\nPUB no 1\r\nx\r\nUNSUB 1\r\nPING\r\n")
            wire.expect(b"MSG foo 1 bar 3\r\nhi!\r\n-ERR 'Permissions Violation for Publish to \"no\"'\r\nPONG\r\n")
            prefix = rf"127\.0\.0\.1:{wire.sock.getsockname()[1]} - cid:{wire.info['client_id']} - "
            plain = rf"\[\w+\] {prefix}"
            known = rf'\[\w+\] {prefix}"v1\.0:py:n" - "\$G/user:a" - '
            for pattern in (plain + "Client connection created$", plain + r'<<- \[CONNECT \{.*"user":"a","pass":"\[REDACTED\]"',
                            known + r"<<- \[SUB foo q 1\]$", known + r"<<- \[PUB foo bar 3\]$",
                            known + r'<<- MSG_PAYLOAD: \["hi!"\]$', known + r"->> \[MSG foo 1 bar 3\]$",
                            known + r"<<- \[UNSUB 1\]$", known + r"<<- \[PING\]$", known + r"->> \[PONG\]$",
                            known + r'->> \[-ERR Permissions Violation for Publish to "no"\]$',
                            known.replace(r"\w+", "ERR") + 'Publish Violation - Subject "no"$'):
                broker.logged(pattern)
        broker.logged(known + "Client connection closed: Client Closed$")
        with Wire(broker, '{"user":"zz","pass":"hunter2","auth_token":"toktok"}') as wire:
            wire.closed()
            prefix = rf"127\.0\.0\.1:\d+ - cid:{wire.info['client_id']} - "
            broker.logged(rf'\[ERR\] {prefix}authentication error - User "zz"$')
            broker.logged(rf"\[DBG\] {prefix}Client connection closed: Authentication Failure$")
        broker.logged(r"\[WRN\] Plaintext passwords detected, use nkeys or bcrypt$")
        for secret in ("secretpass", "hunter2", "toktok"):
            check(secret not in broker.log(), f"the log tells {secret}")


@case
def traced_messages_are_cut(exe):
    with exe.start(*loopback("-V", "--max_traced_msg_len", "5")) as broker, Wire(broker) as wire:
        wire.send(b"PUB foo 10\r\nabcdefghij\r\n")
        wire.sync()
        broker.logged(r'<<- MSG_PAYLOAD: \["abcde\.\.\."\]$')


@case
def error_lines(exe):
    """What a client did wrong, in the words that people search for."""
    config = "authorization { users: [ {user: a, password: b, permissions: {subscribe: {deny: d}}} ] }\n"
    with exe.start(*loopback(), config=config) as broker:
        def said(sent, *patterns, closed=True, connect='"user":"a","pass":"b","headers":true'):
            with Wire(broker, '{"verbose":false,%s}' % connect) as wire:
                wire.send(sent)
                if closed:
                    wire.closed()
                else:
                    wire.line()
                for pattern in patterns:
                    broker.logged(rf"\[ERR\] 127\.0\.0\.1:\d+ - cid:{wire.info['client_id']} - (\"\$G/user:a\" - )?{pattern}")

        said(b"SUB d 3\r\n", r'Subscription Violation - Subject "d", SID 3$', closed=False)
        said(b"SUB d q 4\r\n", r'Subscription Violation - Subject "d", Queue: "q", SID 4$', closed=False)
        said(b"FOO bar\r\n", r"""Client parser ERROR.*: proto='"FOO bar\\r.*"\.\.\.'$""")
        said(b"PUB foo 2\r\nabcd\r\n", r"Client parser ERROR.*: proto='\"c")
        said(b"PUB foo\r\n", r'processPub Parse Error: "foo"$')
        said(b"SUB foo\r\n", r'processSub Parse Error: "foo"$')
        said(b"UNSUB 1 2 3\r\n", r'processUnsub Parse Error: "1 2 3"$')
        said(b"PUB foo 99999999\r\n", r"maximum payload exceeded: 99999999 vs 1048576$")
        said(b"-ERR 'enough'\r\n", r"Client Error '?enough'?$")
        said(b"", r"invalid client protocol$", connect='"user":"a","pass":"b","protocol":7')
        said(b"", r"no responders requires headers support$", connect='"user":"a","pass":"b","no_responders":true')
        said(b"", r'authentication error - Token "\[REDACTED\]"$', connect='"auth_token":"hunter2"')
        check("hunter2" not in broker.log(), "the log tells a token")


@case
def trace_lines(exe):
    with exe.start(*loopback("-V")) as broker, Wire(broker, '{"verbose":true,"headers":true,"user":"u"}') as wire:
        prefix = rf'\[TRC\] 127\.0\.0\.1:\d+ - cid:{wire.info["client_id"]} - "\$G/user:u" - '
        wire.send(b"SUB foo 7\r\nPUB foo 2\r\nhi\r\nPUB foo 0\r\n\r\nUNSUB 7\r\nPING\r\n")
        wire.expect(b"+OK\r\n+OK\r\n+OK\r\nMSG foo 7 2\r\nhi\r\n+OK\r\nMSG foo 7 0\r\n\r\n+OK\r\nPONG\r\n")
        for pattern in (r"->> \[OK\]$", r"->> \[MSG foo 7 2\]$", r'->> MSG_PAYLOAD: \["hi"\]$', r"->> \[MSG foo 7 0\]$",
                        r"<-> \[DELSUB 7\]$", r"->> \[PONG\]$"):
            broker.logged(prefix + pattern)
        check('MSG_PAYLOAD: [""]' not in broker.log(), "a payload of nothing")


@case
def traced_headers(exe):
    with exe.start(*loopback(), config="trace_headers: true\n") as broker, Wire(broker, '{"verbose":false,"headers":true}') as wire:
        wire.send(b"SUB foo 1\r\nHPUB foo 18 24\r\nNATS/1.0\r\nA: b\r\n\r\nsecret\r\nPUB foo 5\r\nother\r\nPING\r\n")
        wire.expect(b"HMSG foo 1 18 24\r\nNATS/1.0\r\nA: b\r\n\r\nsecret\r\nMSG foo 1 5\r\nother\r\nPONG\r\n")
        for arrow in ("<<-", "->>"):
            broker.logged(arrow + r' MSG_PAYLOAD: \["NATS/1\.0\\r\\nA: b"\]$')
        broker.logged(r"->> \[PONG\]$")
        check("secret" not in broker.log() and "other" not in broker.log(), "payloads are traced, too")
