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
import datetime
import glob
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "conversation"))
from broker import (CERTIFICATE, HOST, PATIENCE, Broker, Tally, Wire, default_server, find_reference, free_port,  # noqa: E402
                    is_reference, until)

CERT, KEY = CERTIFICATE["TEST_CERT"], CERTIFICATE["TEST_KEY"]
KEYS_PATH = os.path.join(HERE, "keys.json")
LOG_LINE = re.compile(r"\[(\d+)\] (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) \[(INF|DBG|WRN|ERR|FTL|TRC)\] .*")
READY_S = 10
# What only nats-server can say: its build, its language's runtime, what JetStream does.
NOT_OURS = {"git_commit", "disk_io_wait_stats", "feature_flags", "system_account"}  # the last one until accounts are built

CASES = []


def case(function):
    CASES.append((function.__name__, function))
    return function


def check(condition, message):
    if not condition:
        raise AssertionError(message)


class Started(Broker):
    """The broker started with exactly these arguments in a directory of its own."""

    def __init__(self, exe, *args, config=None, env=None, wait=True, ports_dir=True):
        self.binary = exe.path
        self.directory = tempfile.mkdtemp(prefix="launch-")
        self.log_path = os.path.join(self.directory, "stderr.log")
        self.out_path = os.path.join(self.directory, "stdout.log")
        args = list(args)
        if config is not None:
            self.write("test.conf", config)
            args = ["-c", "test.conf", *args]
        if ports_dir:
            args += ["--ports_file_dir", "."]
        with open(self.log_path, "wb") as log, open(self.out_path, "wb") as out:
            self.process = subprocess.Popen([exe.path, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                            cwd=self.directory, env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.port = self.monitor_port = None
        if wait:
            try:
                self._wait()
            except Exception:
                self.stop()
                raise

    def _wait(self):
        self._read_ports()
        with open(self.ports_path(), encoding="utf-8") as file:
            self.ports = json.load(file)

    def ports_path(self):
        found = glob.glob(os.path.join(self.directory, f"*_{self.pid}.ports"))
        return found[0] if found else None

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as file:
            return file.read()

    def exits(self, timeout_s=5):
        try:
            return self.process.wait(timeout_s * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s} s: {self.log_tail()}") from None

    def logged(self, pattern, timeout_s=5, name="stderr.log"):
        found = until(lambda: re.search(pattern, self.read(name), re.M) if os.path.exists(self.path(name)) else None,
                      timeout_s, 0.02)
        if not found:
            tail = self.read(name)[-500:] if os.path.exists(self.path(name)) else "no such file"
            raise AssertionError(f"no line like {pattern!r} in {name}: {tail}")
        return found


class Exe:
    """A broker binary under some name."""

    def __init__(self, path, reference):
        self.path = path
        self.reference = reference
        self.name = os.path.basename(path)

    def run(self, *args, cwd=None, timeout_s=10):
        """A start that is to end by itself."""
        try:
            return subprocess.run([self.path, *args], capture_output=True, text=True, cwd=cwd, timeout=timeout_s * PATIENCE,
                                  stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{' '.join(args)}: did not exit in {timeout_s} s") from None

    def start(self, *args, **options):
        return Started(self, *args, **options)


def loopback(*args):
    return ("-a", HOST, "-p", "-1", *args)


class Scratch:
    """A directory of files for a start that ends at once."""

    def __init__(self, **files):
        self.files = files

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="launch-")
        for name, text in self.files.items():
            with open(os.path.join(self.directory, name.replace("_", ".")), "wb") as file:
                file.write(text if isinstance(text, bytes) else text.encode())
        return self.directory

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)


# --- command line ----------------------------------------------------------------------------------------------------

@case
def version(exe):
    for args in (["-v"], ["--version"], ["-version"], ["--v"], ["version"]):
        done = exe.run(*args)
        check(done.returncode == 0, f"{args}: exit code {done.returncode}")
        wanted = r"nats-server: v\d+\.\d+\.\d+\n" if exe.name == "nats-server" else \
            r"peregrine: v\d+\.\d+\.\d+\S* \(nats-server v\d+\.\d+\.\d+\)\n"
        check(re.fullmatch(wanted, done.stdout), f"{args}: printed {done.stdout!r}")
        check(not done.stderr, f"{args}: stderr {done.stderr!r}")


@case
def version_is_the_one_in_info(exe):
    level = re.search(r"nats-server:? v(\d+\.\d+\.\d+)", exe.run("-v").stdout)
    check(level, "-v names no nats-server version")
    with exe.start(*loopback("-m", str(free_port()))) as broker, Wire(broker) as wire:
        check(wire.info["version"] == level[1], f"INFO says {wire.info['version']}, -v {level[1]}")
        check(broker.get_json("/varz")["version"] == level[1], "/varz version")


@case
def usage(exe):
    for flag in ("-h", "--help", "-help", "help"):
        done = exe.run(flag)
        check(done.returncode == 0, f"{flag}: exit code {done.returncode}")
        text = done.stdout
        for word in ("Usage:", "--addr", "--port", "--server_name", "--pid", "--http_port", "--https_port", "--config", "-t", "--signal",
                     "--client_advertise", "--ports_file_dir", "--log", "--logtime", "--logtime_utc", "--syslog",
                     "--remote_syslog", "--debug", "--trace", "-DV", "--log_size_limit", "--max_traced_msg_len", "--user",
                     "--pass", "--auth", "--tls", "--tlscert", "--tlskey", "--tlsverify", "--tlscacert", "--routes",
                     "--cluster", "--cluster_name", "--no_advertise", "--cluster_advertise", "--connect_retries",
                     "--version", "--help_tls"):
            check(word in text, f"{flag} does not mention {word}")


@case
def config_check(exe):
    with Scratch(good_conf='port: -1\nmax_payload: 2MB\n', bad_conf="port: -1\nmax_paylod: 1\n") as directory:
        done = exe.run("-t", "-c", "good.conf", cwd=directory)
        check(done.returncode == 0, f"good file: exit code {done.returncode}: {done.stderr}")
        check(re.fullmatch(rf"{exe.name}: configuration file good\.conf is valid \(sha256:[0-9a-f]{{64}}\)\n", done.stderr),
              f"good file: {done.stderr!r}")
        check(not done.stdout, f"good file: stdout {done.stdout!r}")
        done = exe.run("-t", "--config=bad.conf", cwd=directory)
        check(done.returncode == 1, f"bad file: exit code {done.returncode}")
        check(re.match(rf'{exe.name}: bad\.conf:2:\d+: unknown field "max_paylod"', done.stderr), f"bad file: {done.stderr!r}")
        done = exe.run("-t", cwd=directory)
        check(done.returncode == 1, f"no file: exit code {done.returncode}")
        check(done.stderr == f"{exe.name}: must specify [-c, --config] option to check configuration file syntax\n",
              f"no file: {done.stderr!r}")


@case
def config_errors_are_told_at_once(exe):
    files = {
        "unknown_conf": ("port: -1\nfoo: 3\nnet: 127.0.0.1\nbar {\n}\n", r'(?=[\s\S]*unknown\.conf:2:\d+: unknown field "foo")'
                         r'[\s\S]*unknown\.conf:4:\d+: unknown field "bar"'),
        "nested_conf": ("authorization {\n  user: a\n  pasword: b\n}\n", r'nested\.conf:3:\d+: unknown field "pasword"'),
        "type_conf": ("port: -1\nmax_payload: lots\n", r"type\.conf:2"),
        "open_conf": ("authorization {\n  user: a\n", r"."),
        "variable_conf": ("port: $NO_SUCH_VARIABLE_HERE\n", r"NO_SUCH_VARIABLE_HERE"),
        "include_conf": ("include no_such_file.conf\n", r"no_such_file\.conf"),
        "both_conf": ("authorization {\n  user: a\n  password: b\n  token: c\n}\n", r"both\.conf:\d+|[Cc]annot have a user"),
        "user_conf": ("port: -1\nno_auth_user: nobody\nauthorization { users: [ {user: a, password: b} ] }\n", r"nobody"),
        "garbage_conf": (b"\x00\x01\xff\xfe{{{{", r"."),
    }
    with Scratch(**{name: text for name, (text, _) in files.items()}) as directory:
        for name, (_, wanted) in files.items():
            begin = time.monotonic()
            done = exe.run("-c", name.replace("_", "."), cwd=directory)
            check(done.returncode != 0, f"{name}: exit code 0")
            check(time.monotonic() - begin < 2 * PATIENCE, f"{name}: took too long")
            check(done.stderr.startswith(f"{exe.name}: "), f"{name}: {done.stderr!r}")
            check(re.search(wanted, done.stderr), f"{name}: {done.stderr!r}")
        done = exe.run("-c", "no_such.conf", cwd=directory)
        check(done.returncode != 0 and "no_such.conf" in done.stderr, f"missing file: {done.returncode} {done.stderr!r}")


@case
def wrong_command_lines(exe):
    done = exe.run("frobnicate")
    check(done.returncode == 1 and done.stderr.startswith(f'{exe.name}: unrecognized command: "frobnicate"'),
          f"command: {done.returncode} {done.stderr!r}")
    for args, word in ((["--no_such_flag"], "no_such_flag"), (["-p", "12x"], "12x"), (["-p"], "-p"), (["-m", "many"], "many"),
                       (["-D=perhaps"], "perhaps")):
        done = exe.run(*args)
        check(word in done.stderr, f"{args}: {done.stderr!r}")
        # nats-server exits 0 after printing its usage.
        check(exe.reference or done.returncode != 0, f"{args}: exit code 0")
    done = exe.run("-a", HOST, "-p", "-1", "-routes", "nats://127.0.0.1:1")
    check(done.returncode == 1 and f"{exe.name}: solicited routes require cluster capabilities, e.g. --cluster" in done.stderr,
          f"routes without cluster: {done.returncode} {done.stderr!r}")
    done = exe.run(*loopback("-n", "a b"))
    check(done.returncode == 1 and "server name cannot contain spaces" in done.stderr, f"name: {done.stderr!r}")
    done = exe.run(*loopback("--tls"))
    check(done.returncode == 1 and f"{exe.name}: TLS Server certificate must be present and valid" in done.stderr,
          f"--tls without certificate: {done.returncode} {done.stderr!r}")


@case
def addresses_that_cannot_be(exe):
    for args in (["-a", "999.1.1.1", "-p", "-1"], ["-a", "host.invalid", "-p", "-1"], ["-a", "192.0.2.77", "-p", "-1"],
                 ["-a", HOST, "-p", "99999"]):
        done = exe.run(*args)
        check(done.returncode == 1, f"{args}: exit code {done.returncode}")
        # A number that is no port may be refused as the flag it is, before anything listens.
        wanted = r"\[FTL\] .*listening on port" if args[3] == "-1" else r"\[FTL\] .*listening on port|-p: .*99999"
        check(re.search(wanted, done.stderr, re.I), f"{args}: {done.stderr[-300:]!r}")
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = exe.run("-a", HOST, "-p", port)
        check(done.returncode == 1 and re.search(r"\[FTL\] .*already in use", done.stderr), f"taken: {done.stderr[-300:]!r}")
        done = exe.run(*loopback("-m", port))
        check(done.returncode == 1 and "[FTL]" in done.stderr, f"taken monitoring port: {done.stderr[-300:]!r}")


@case
def a_second_broker_on_the_same_port(exe):
    with exe.start(*loopback()) as first:
        done = exe.run("-a", HOST, "-p", str(first.port))
        check(done.returncode == 1 and "[FTL]" in done.stderr, f"{done.returncode} {done.stderr[-300:]!r}")
        with Wire(first) as wire:
            wire.sync()


@case
def files_that_cannot_be(exe):
    for args in (["-l", "/no_such_dir/x.log"], ["-P", "/no_such_dir/x.pid"]):
        done = exe.run(*loopback(*args))
        check(done.returncode == 1 and "no_such_dir" in done.stderr, f"{args}: {done.returncode} {done.stderr[-300:]!r}")


@case
def flag_forms(exe):
    forms = [["-a", HOST, "-p", "-1"], ["--addr", HOST, "--port", "-1"], ["-addr=" + HOST, "-port=-1"], ["-net", HOST, "-p=-1"],
             ["--net=" + HOST, "--port=-1"], ["--a=" + HOST, "--p", "-1"]]
    for form in forms:
        with exe.start(*form, "-D=false", "-V=false", "-T=true") as broker, Wire(broker) as wire:
            check(wire.info["host"] == HOST, f"{form}: host {wire.info['host']}")
            check(wire.info["port"] == broker.port, f"{form}: INFO port {wire.info['port']}, listening on {broker.port}")
    with exe.start(*loopback("-D=true", "--trace=true")) as broker, Wire(broker) as wire:
        wire.sync()
        broker.logged(r"\[TRC\] .*PING")
        broker.logged(r"\[DBG\] .*Client connection created")


@case
def every_name_of_the_debug_flags(exe):
    for flags, labels in ((["-D"], "DBG"), (["--debug"], "DBG"), (["-V"], "TRC"), (["--trace"], "TRC"), (["-DV"], "DBG TRC"),
                          (["--DV"], "DBG TRC"), (["-D", "-V"], "DBG TRC"), (["-VV"], "TRC"), (["-DVV"], "DBG TRC"), ([], "")):
        with exe.start(*loopback(*flags)) as broker, Wire(broker) as wire:
            wire.sync()
            for label in labels.split():
                broker.logged(rf"\[{label}\] .*cid:\d+ - ")
            for label in {"DBG", "TRC"} - set(labels.split()):
                check(f"[{label}]" not in broker.log(), f"{flags}: {label} lines")


@case
def names(exe):
    for flag in ("-n", "--name", "-name", "--server_name", "-server_name"):
        with exe.start(*loopback(flag, "falcon")) as broker, Wire(broker) as wire:
            check(wire.info["server_name"] == "falcon", f"{flag}: {wire.info['server_name']}")
            broker.logged(r"\[INF\]   Name:     falcon$")
    with exe.start(*loopback()) as broker, Wire(broker) as wire:
        check(wire.info["server_name"] == wire.info["server_id"], "the default is not the id")


@case
def users_and_tokens(exe):
    for flags, right in ((["--user", "ann", "--pass", "pw"], '"user":"ann","pass":"pw"'),
                         (["-user=ann", "-pass=pw"], '"user":"ann","pass":"pw"'),
                         (["--auth", "tok"], '"auth_token":"tok"'), (["-auth", "tok"], '"auth_token":"tok"')):
        with exe.start(*loopback(*flags)) as broker:
            with Wire(broker, '{"verbose":false,%s}' % right) as wire:
                check(wire.info.get("auth_required") is True, "auth_required")
                wire.sync()
            with Wire(broker, '{"verbose":false}') as wire:
                got = wire.closed()
                check(got == b"-ERR 'Authorization Violation'\r\n", f"{flags}: {got!r}")
            for secret in ("pw", "tok"):
                check(not re.search(rf"\b{secret}\b", broker.log()), f"{flags}: the log tells {secret}")


@case
def client_advertise(exe):
    for flag in ("--client_advertise", "-client_advertise"):
        with exe.start(*loopback(flag, "192.0.2.9:4333")) as broker, Wire(broker) as wire:
            check((wire.info["host"], wire.info["port"]) == ("192.0.2.9", 4333), f"{flag}: {wire.info}")


@case
def flags_go_over_the_file(exe):
    config = 'host: "127.0.0.9"\nport: 1\nserver_name: file\nauthorization { token: filetoken }\ndebug: true\n' \
             'pid_file: "file.pid"\nlog_file: "file.log"\nmax_payload: 99\n'
    with exe.start(*loopback("-n", "flag", "--auth", "flagtoken", "-P", "flag.pid", "-l", "flag.log", "-D=false"),
                   config=config) as broker:
        with Wire(broker, '{"verbose":false,"auth_token":"flagtoken"}') as wire:
            wire.sync()
            check(wire.info["server_name"] == "flag", "server_name")
            check(wire.info["max_payload"] == 99, "max_payload of the file")
        check(os.path.exists(broker.path("flag.pid")) and not os.path.exists(broker.path("file.pid")), "pid_file")
        check(os.path.exists(broker.path("flag.log")) and not os.path.exists(broker.path("file.log")), "log_file")
        check("[DBG]" not in broker.read("flag.log"), "-D=false did not win")


@case
def cluster_flags(exe):
    for flags in (["--cluster", f"nats://{HOST}:-1", "--cluster_name", "c"], ["-cluster", f"nats-route://{HOST}:-1"],
                  ["--cluster_listen", f"nats://{HOST}:-1", "--routes", "nats://127.0.0.1:1,nats-route://127.0.0.1:2"],
                  ["--cluster", f"nats://u:p@{HOST}:-1", "--cluster_name", '"quoted"', "--no_advertise", "--connect_retries",
                   "1", "--cluster_advertise", "127.0.0.1:1"]):
        with exe.start(*loopback(*flags)) as broker, Wire(broker) as wire:
            wire.sync()
            broker.logged(r"\[INF\] Listening for route connections on 127\.0\.0\.1:\d+$")
            check("cluster" in broker.ports and broker.ports["cluster"][0].startswith("nats://127.0.0.1:"),
                  f"ports file {broker.ports}")
            check("cluster" in wire.info, "INFO has no cluster")
    with exe.start(*loopback("-cluster", "")) as broker:
        check("cluster" not in broker.ports, "-cluster '' still listens")


@case
def store_dir_without_jetstream(exe):
    for form in (["-sd", "store"], ["-sd=store"], ["--store_dir", "store"]):
        with exe.start(*loopback(*form)) as broker, Wire(broker) as wire:
            wire.sync()
            check("jetstream" not in wire.info, "JetStream is on")


@case
def tls_flags(exe):
    for flags in (["--tls", "--tlscert", CERT, "--tlskey", KEY], ["-tlscert=" + CERT, "-tlskey=" + KEY, "-tls"],
                  ["-tls", "-tlscert", CERT, "-tlskey", KEY, "-user", "a", "-pass", "b"]):
        with exe.start(*loopback(*flags)) as broker:
            sock = broker.connect()
            info = json.loads(sock.recv(8192)[5:])
            check(info.get("tls_required") is True, f"{flags}: INFO {info}")
            context = ssl.create_default_context(cafile=CERT)
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                tls.sendall(b'CONNECT {"verbose":false,"user":"a","pass":"b"}\r\nPING\r\n')
                check(tls.recv(64) == b"PONG\r\n", "no PONG inside TLS")
    with exe.start(*loopback("--tlsverify", "--tlscert", CERT, "--tlskey", KEY, "--tlscacert", CERT)) as broker:
        sock = broker.connect()
        info = json.loads(sock.recv(8192)[5:])
        check(info.get("tls_verify") is True, "INFO has no tls_verify")
        context = ssl.create_default_context(cafile=CERT)
        context.load_cert_chain(CERT, KEY)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            tls.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
            check(tls.recv(64) == b"PONG\r\n", "no PONG with a client certificate")


@case
def monitoring_over_tls(exe):
    """https: who looks shows no certificate, even where clients have to."""
    import http.client
    secure = ("--tlsverify", "--tlscert", CERT, "--tlskey", KEY, "--tlscacert", CERT)
    for flags, config in ((("-ms", "-1"), None), (("--https_port", "-1"), None), ((), f'https: "{HOST}:-1"\n')):
        with exe.start(*loopback(*flags, *secure), config=config) as broker:
            check(broker.ports["nats"][0].startswith("tls://"), f"{broker.ports}")
            check(broker.ports["monitoring"][0].startswith("https://"), f"{broker.ports}")
            broker.logged(rf"\[INF\] Starting https monitor on 127\.0\.0\.1:{broker.monitor_port}$")
            connection = http.client.HTTPSConnection("localhost", broker.monitor_port, timeout=5 * PATIENCE,
                                                     context=ssl.create_default_context(cafile=CERT))
            for page in ("/varz", "/connz", "/varz", "/nothing"):  # on one connection
                connection.request("GET", page)
                answer = connection.getresponse()
                body = answer.read()
                check(answer.status == (404 if page == "/nothing" else 200), f"{page}: {answer.status} {body!r}")
                if page == "/varz":
                    check(json.loads(body)["http_port"] == 0 and "https_port" in json.loads(body), "ports of /varz")
            connection.close()
            with socket.create_connection((HOST, broker.monitor_port), timeout=5 * PATIENCE) as sock:
                sock.sendall(b"GET /varz HTTP/1.0\r\n\r\n")
                check(b"server_id" not in sock.recv(65536), "answered in clear")
    done = exe.run(*loopback("-ms", "-1"))
    check(done.returncode == 1 and "TLS cert and key required for HTTPS" in done.stderr, f"{done.returncode} {done.stderr}")
    done = exe.run(*loopback("-m", "-1", "-ms", "-1", *secure))
    check(done.returncode == 1 and "can't specify both HTTP (-1) and HTTPs (-1) ports" in done.stderr,
          f"{done.returncode} {done.stderr}")


class SecureWire(Wire):
    """A client by TLS. `first`: it begins with the handshake, INFO is inside. `show`: it has a certificate."""

    def __init__(self, broker, first=False, show=False):
        self.broker, self.timeout_s, self.buffer = broker, 5.0, b""
        context = ssl.create_default_context(cafile=CERT)
        if show:
            context.load_cert_chain(CERT, KEY)
        self.sock = broker.connect()
        if first:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.info = json.loads(self.line()[5:])
        if not first:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.send(b'CONNECT {"verbose":false,"headers":true}\r\n')


def talk(receiver, sender):
    """Messages of every size from one to the other."""
    payloads = [b"", b"x", b"y" * 5000, os.urandom(100_000), os.urandom(1 << 20)]
    receiver.send(b"SUB t 1\r\n")
    receiver.sync()
    for payload in payloads:
        sender.send(b"PUB t %d\r\n" % len(payload) + payload + b"\r\n")
    for payload in payloads:
        receiver.expect(b"MSG t 1 %d\r\n" % len(payload) + payload + b"\r\n", 20)
    sender.sync()
    receiver.send(b"UNSUB 1\r\n")
    receiver.sync()


@case
def tls_clients(exe):
    tls = f'cert_file: "{CERT}", key_file: "{KEY}", ca_file: "{CERT}"'
    with exe.start(*loopback("-m", "-1"), config=f"tls {{ {tls} }}") as broker:
        with SecureWire(broker) as one, SecureWire(broker) as other:
            check(one.info.get("tls_required") is True and "tls_available" not in one.info, f"{one.info}")
            talk(one, other)
            talk(one, one)
            row = broker.get_json(f"/connz?cid={one.info['client_id']}")["connections"][0]
            check(row["tls_version"] == "1.3" and row["tls_cipher_suite"].startswith("TLS_"), f"{row}")
            check("tls_first" not in row, f"{row}")
            varz = broker.get_json("/varz")
            check(varz.get("tls_required") is True and "tls_verify" not in varz and varz["tls_timeout"] == 2, "/varz")
            check(varz["auth_timeout"] == 3 and varz.get("tls_cert_not_after", "").endswith("Z"), f"/varz: {varz.get('tls_cert_not_after')}")
        check(until(lambda: broker.get_json("/connz")["num_connections"] == 0), "they do not go")
    with exe.start(*loopback(), config=f"tls {{ {tls} }}\nallow_non_tls: true") as broker:
        with SecureWire(broker) as secure, Wire(broker) as plain:
            check(secure.info.get("tls_available") is True and "tls_required" not in secure.info, f"{secure.info}")
            talk(secure, plain)
            talk(plain, secure)


@case
def tls_clients_are_checked(exe):
    tls = f'cert_file: "{CERT}", key_file: "{KEY}", ca_file: "{CERT}", verify: true'
    with exe.start(*loopback("-m", "-1"), config=f"tls {{ {tls} }}") as broker:
        with SecureWire(broker, show=True) as one:
            one.sync()
            row = broker.get_json(f"/connz?auth=1&cid={one.info['client_id']}")["connections"][0]
            check([cert["subject"] for cert in row["tls_peer_certs"]] == ["CN=localhost"], f"{row['tls_peer_certs']}")
            cid = one.info["client_id"]
        try:
            with SecureWire(broker) as one:
                one.sync()
            raise AssertionError("let in without a certificate")
        except (EOFError, OSError, ssl.SSLError):
            pass
        check(until(lambda: "TLS handshake error: tls: client didn't provide a certificate" in broker.log()), broker.log_tail())
        check(broker.close_reason(cid + 1) == "TLS Handshake Failure", f"{broker.close_reason(cid + 1)}")


@case
def tls_clients_shake_hands_first(exe):
    tls = f'cert_file: "{CERT}", key_file: "{KEY}"'
    with exe.start(*loopback("-m", "-1"), config=f"tls {{ {tls}, handshake_first: true }}") as broker:
        with SecureWire(broker, first=True) as one, SecureWire(broker, first=True) as other:
            talk(one, other)
            row = broker.get_json(f"/connz?cid={one.info['client_id']}")["connections"][0]
            check(row.get("tls_first") is True, f"{row}")
        check('Clients that are not using "TLS Handshake First" option will fail to connect' in broker.log(), broker.log_tail())
    with exe.start(*loopback(), config=f'tls {{ {tls}, handshake_first: "200ms" }}\nallow_non_tls: true') as broker:
        with SecureWire(broker, first=True) as first, SecureWire(broker) as later, Wire(broker) as plain:
            talk(first, later)
            talk(plain, first)
            talk(later, plain)


# --- files -----------------------------------------------------------------------------------------------------------

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


# --- log lines -------------------------------------------------------------------------------------------------------

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


# --- signals ---------------------------------------------------------------------------------------------------------

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


# --- config syntax ---------------------------------------------------------------------------------------------------

@case
def syntax_forms(exe):
    forms = {
        "json": '{ "host": "127.0.0.1", "port": -1, "max_payload": 4096, "authorization": { "token": "t" } }',
        "equals": "host = 127.0.0.1\nport = -1\nmax_payload = 4KB\nauthorization = { token = t }\n",
        "bare": "host 127.0.0.1\nport -1\nmax_payload 4Kib\nauthorization { token t }\n",
        "colon": "host: '127.0.0.1'; port: -1\n# comment\nmax_payload: 4096 // comment\nauthorization: { token: \"t\", }\n",
        "listen": "listen: 127.0.0.1:-1\nMAX_PAYLOAD: 4kb\nauthorization {\n  token: t,\n  timeout: 2,\n}\n",
        "variable": "N: 4096\nTOKEN: t\nlisten: 127.0.0.1:-1\nmax_payload: $N\nauthorization { token: $TOKEN }\n",
        "environment": "listen: 127.0.0.1:-1\nmax_payload: $LAUNCH_TEST_N\nauthorization { token: $LAUNCH_TEST_T }\n",
        "durations": "net: 127.0.0.1\nport: -1\nmax_payload: 4096\nping_interval: \"2m\"\nwrite_deadline: 5\nauthorization "
                     "{ token: t, timeout: \"1500ms\" }\nlame_duck_duration: 90s\n",
        "crlf": "listen: 127.0.0.1:-1\r\nmax_payload: 4096\r\nauthorization {\r\n  token: t\r\n}\r\n",
    }
    for name, text in forms.items():
        try:
            with exe.start(config=text, env={"LAUNCH_TEST_N": "4096", "LAUNCH_TEST_T": "t"}) as broker:
                with Wire(broker, '{"verbose":false,"auth_token":"t"}') as wire:
                    check(wire.info["max_payload"] == 4096, f"{name}: max_payload {wire.info['max_payload']}")
                    wire.sync()
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from None


@case
def include_and_relative_paths(exe):
    with Scratch() as directory:
        os.mkdir(os.path.join(directory, "inc"))
        for name, text in (("main.conf", f'include "inc/net.conf"\nauthorization {{ include inc/auth.conf }}\nports_file_dir: '
                            f'"."\npid_file: "here.pid"\n'),
                           ("inc/net.conf", "host: 127.0.0.1\nport: -1\n"), ("inc/auth.conf", "token: t\n")):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
        with exe.start("-c", os.path.join(directory, "main.conf")) as broker:
            with Wire(broker, '{"verbose":false,"auth_token":"t"}') as wire:
                wire.sync()
            check(os.path.exists(broker.path("here.pid")), "pid_file is not relative to the working directory")


# --- monitoring ------------------------------------------------------------------------------------------------------

@case
def monitoring_flag(exe):
    for flag in ("-m", "--http_port", "-http_port"):
        port = free_port()
        with exe.start(*loopback(flag, str(port)), wait=False) as broker:
            broker.monitor_port = port

            def polled():
                try:
                    return broker.get("/varz")[0] == 200
                except OSError:
                    return False

            check(until(polled, 5, 0.02), f"{flag}: no /varz within 5 s: {broker.log_tail()}")
            varz = broker.get_json("/varz")
            check((varz["http_host"], varz["http_port"]) == (HOST, port), f"{flag}: {varz['http_host']}:{varz['http_port']}")


def monitored(exe):
    """A broker with something to show, and the connections that make it."""
    broker = exe.start(*loopback("-m", "-1"), config="authorization { users: [ {user: a, password: b} ] }\n")
    wires = []
    for name in ("one", "two"):
        wire = Wire(broker, json.dumps({"verbose": False, "user": "a", "pass": "b", "name": name, "lang": "py", "version": "1.0",
                                        "protocol": 1}))
        wires.append(wire)
        wire.send(b"SUB foo 1\r\nSUB foo.> q 2\r\nUNSUB 2 9\r\nPUB foo.bar reply 3\r\nabc\r\nPUB foo 2\r\nhi\r\nPING\r\n")
        until(lambda: b"PONG\r\n" in wire.buffer or wire._fill(time.monotonic() + 5 * PATIENCE), 5)
    gone = Wire(broker, '{"verbose":false,"user":"a","pass":"b","name":"gone"}')
    gone.sync()
    gone.send(b"SUB x 1\r\n")
    gone.sync()
    gone.close()
    broker.close_reason(gone.info["client_id"])
    return broker, wires


PAGES = ["/varz", "/connz", "/connz?subs=1", "/connz?subs=detail", "/connz?auth=1", "/connz?state=closed", "/connz?state=all",
         "/connz?state=any", "/connz?state=closed&subs=1", "/connz?limit=1&offset=1", "/connz?sort=subs", "/subsz", "/subsz?subs=1",
         "/subscriptionsz", "/healthz"]


def shape(value, path=""):
    """path → JSON type; the elements of an array are laid over each other."""
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    out = {path or "/": kind[type(value)]}
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("http_req_stats", "feature_flags"):
                out.update(shape(inner, f"{path}/{key}"))
            else:
                out[f"{path}/{key}"] = "object"
    elif isinstance(value, list):
        for inner in value:
            out.update(shape(inner, f"{path}[]"))
    return out


def shapes(exe):
    broker, wires = monitored(exe)
    try:
        return {page: shape(broker.get_json(page)) for page in PAGES}
    finally:
        for wire in wires:
            wire.close()
        broker.stop()


@case
def monitoring_field_names(exe):
    with open(KEYS_PATH, encoding="utf-8") as file:
        wanted = json.load(file)
    got = shapes(exe)
    wrong = []
    for page, fields in wanted.items():
        for path, kind in fields.items():
            if any(part in NOT_OURS for part in path.split("/")) and not exe.reference:
                continue
            if path not in got[page]:
                wrong.append(f"{page} lacks {path}")
            elif got[page][path] != kind:
                wrong.append(f"{page} {path} is {got[page][path]}, not {kind}")
        if exe.reference:
            wrong += [f"{page}: keys.json lacks {path}" for path in got[page] if path not in fields]
    check(not wrong, f"{len(wrong)} differences: {'; '.join(wrong[:12])}")


@case
def monitoring_values(exe):
    broker, wires = monitored(exe)
    try:
        varz = broker.get_json("/varz")
        for key, value in {"connections": 2, "total_connections": 3, "host": HOST, "port": broker.port, "max_payload": 1048576,
                           "max_connections": 65536, "ping_interval": 120000000000, "ping_max": 2, "max_control_line": 4096,
                           "max_pending": 67108864, "write_deadline": 10000000000, "auth_timeout": 2, "auth_required": True,
                           "in_msgs": 4, "in_bytes": 10, "routes": 0, "remotes": 0, "leafnodes": 0, "slow_consumers": 0,
                           "stale_connections": 0}.items():
            check(varz[key] == value, f"/varz {key} is {varz[key]}, not {value}")
        check(varz["server_id"] == wires[0].info["server_id"], "server_id")
        check(varz["out_msgs"] >= 4 and varz["mem"] > 0 and varz["cores"] >= 1, "out_msgs, mem, cores")
        for key in ("start", "now", "config_load_time"):
            check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", varz[key]), f"{key}: {varz[key]}")
        check(re.fullmatch(r"\d+[smhdy]\w*", varz["uptime"]), f"uptime {varz['uptime']}")
        check(varz["http_req_stats"]["/varz"] >= 1, "http_req_stats")
        check(broker.get_json("/varz")["http_req_stats"]["/varz"] > varz["http_req_stats"]["/varz"], "http_req_stats stands still")

        connz = broker.get_json("/connz?subs=1&auth=1")
        check((connz["num_connections"], connz["total"], connz["offset"], connz["limit"]) == (2, 2, 0, 1024), f"connz {connz}")
        row = next(r for r in connz["connections"] if r["cid"] == wires[0].info["client_id"])
        local = wires[0].sock.getsockname()
        for key, value in {"kind": "Client", "type": "nats", "ip": local[0], "port": local[1], "name": "one", "lang": "py",
                           "version": "1.0", "in_msgs": 2, "in_bytes": 5, "subscriptions": 2, "pending_bytes": 0,
                           "authorized_user": "a", "name_tag": "$G"}.items():
            check(row[key] == value, f"/connz {key} is {row[key]}, not {value}")
        check(sorted(row["subscriptions_list"]) == ["foo", "foo.>"], f"subscriptions_list {row['subscriptions_list']}")
        check(re.fullmatch(r"[\d.]+(ns|µs|ms|s)", row["rtt"]), f"rtt {row['rtt']}")
        detail = broker.get_json("/connz?subs=detail&cid=%d" % row["cid"])["connections"]
        check(len(detail) == 1, f"cid= gives {len(detail)} rows")
        details = {d["subject"]: d for d in detail[0]["subscriptions_list_detail"]}
        check(details["foo.>"]["qgroup"] == "q" and details["foo.>"]["max"] == 9 and details["foo"]["sid"] == "1",
              f"subscriptions_list_detail {details}")

        closed = broker.get_json("/connz?state=closed")["connections"]
        check([r["name"] for r in closed] == ["gone"] and closed[0]["reason"] == "Client Closed" and "stop" in closed[0],
              f"closed: {closed}")
        both = broker.get_json("/connz?state=all")
        check(len(both["connections"]) == 3 and both["total"] == 3, f"state=all {both['total']}")
        one = broker.get_json("/connz?limit=1&offset=1")
        check(len(one["connections"]) == 1 and one["total"] == 2 and one["limit"] == 1 and one["offset"] == 1, "limit, offset")
        cids = [r["cid"] for r in broker.get_json("/connz?sort=cid")["connections"]]
        check(cids == sorted(cids), "sort=cid")
        check(len(broker.get_json("/connz?acc=$G&auth=1")["connections"]) == 2, "acc=$G")
        check(not broker.get_json("/connz?acc=none&auth=1")["connections"], "acc=none")

        subsz = broker.get_json("/subsz?subs=1&acc=$G&test=foo.x")
        subjects = {s["subject"] for s in subsz["subscriptions_list"]}
        check("foo.>" in subjects and "foo" not in subjects, f"/subsz test=foo.x: {subjects}")
        check(broker.get_json("/healthz") == {"status": "ok"}, "/healthz")

        for bad in ("/connz?sort=colour", "/connz?limit=x", "/connz?cid=x", "/connz?state=happy", "/connz?subs=maybe",
                    "/subsz?limit=x"):
            status, body = broker.get(bad)
            check(status == 400, f"{bad}: status {status}, {body[:80]!r}")
        check(broker.get("/no_such_page")[0] == 404, "/no_such_page")
    finally:
        for wire in wires:
            wire.close()
        broker.stop()


@case
def index_page(exe):
    for config, index, base in ((None, "/", "/"), ("http_base_path: /nats\n", "/nats", "/nats/")):
        with exe.start(*loopback("-m", "-1"), config=config) as broker:
            status, body = broker.get(index)
            check(status == 200 and "<html" in body, f"{index}: status {status}")
            links = {urllib.parse.urljoin(index, link) for link in re.findall(r"""href=["']?([^"'\s>]+)""", body)}
            for page in ("varz", "connz", "subsz", "healthz"):
                check(base + page in links, f"{index} has no link to {base}{page}: {sorted(links)}")
                check(broker.get(base + page)[0] == 200, f"{base}{page}")


@case
def monitoring_under_a_base_path(exe):
    with exe.start(*loopback("-m", "-1"), config="http_base_path: /nats\n") as broker:
        check(broker.get("/nats/varz")[0] == 200, "/nats/varz")
        check(broker.get("/varz")[0] == 404, "/varz without the base path")
        check(broker.get_json("/nats/varz")["http_base_path"] == "/nats", "http_base_path")


@case
def monitoring_answers_json(exe):
    with exe.start(*loopback("-m", "-1")) as broker:
        import http.client
        for page in ("/varz", "/connz", "/subsz", "/healthz"):
            connection = http.client.HTTPConnection(HOST, broker.monitor_port, timeout=5 * PATIENCE)
            connection.request("GET", page)
            answer = connection.getresponse()
            answer.read()
            check(answer.getheader("Content-Type") == "application/json", f"{page}: {answer.getheader('Content-Type')}")
            connection.request("GET", page)  # the connection stays usable
            check(connection.getresponse().status == 200, f"{page}: keep-alive")
            connection.close()


# --- all of it -------------------------------------------------------------------------------------------------------

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
        with open(KEYS_PATH, "w", encoding="utf-8") as file:
            json.dump(shapes(Exe(os.path.abspath(options.record), True)), file, indent=1, sort_keys=True)
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
