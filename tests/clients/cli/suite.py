"""The `nats` command against a broker, as a person or a script would use it. The contract with run.py is in ../README.md."""

import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

WAIT_S = 30
NATS = os.path.join(os.environ["CLIENTS_CACHE"], "bin", "nats")

tests = []
shared = None
running = []  # what the running test has to end
names = 0

Ended = collections.namedtuple("Ended", "code out err")


def test(function):
    tests.append(function)
    return function


def unique(prefix):
    global names
    names += 1
    return f"{prefix}{names}"


def subject():
    return unique("cli.t")


def wait_for(what, condition):
    deadline = time.monotonic() + WAIT_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"no {what} within {WAIT_S} s"
        time.sleep(0.02)
    return result


def equal(got, wanted):
    assert got == wanted, f"got {got!r:.300}, wanted {wanted!r:.300}"


class Broker:
    def __init__(self, *args, config=None):
        self.__dict__.update(self.call("/start", args=list(args), config=config))
        self.login = []

    @staticmethod
    def call(path, **body):
        request = urllib.request.Request(os.environ["CLIENTS_CONTROL"] + path, json.dumps(body).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error).get("error")) from None

    def restart(self, **how):
        self.__dict__.update(self.call("/restart", id=self.id, **how))

    def stop(self):
        self.call("/stop", id=self.id, signal="KILL")

    def monitor(self, path):
        with urllib.request.urlopen(self.http + path, timeout=30) as answer:
            return json.load(answer)

    def connection(self, name):
        for connection in self.monitor("/connz?limit=1000")["connections"]:
            if connection.get("name") == name:
                return connection
        return None


def own_broker(*args, config=None):
    broker = Broker(*args, config=config)
    running.append(broker)
    return broker


def environment():
    env = {key: value for key, value in os.environ.items() if not key.startswith("NATS_")}
    # The command keeps contexts and history in the home folder; the user's own must not decide a test.
    home = os.getcwd()
    env.update(HOME=home, XDG_CONFIG_HOME=home + "/config", XDG_DATA_HOME=home + "/data", XDG_CACHE_HOME=home + "/cache")
    return env


def command(*args, broker=None):
    broker = broker or shared
    return [NATS, "--server", broker.url, "--timeout", f"{WAIT_S}s", *broker.login, *map(str, args)]


def nats(*args, broker=None, stdin=b"", fails=False):
    """Runs the command to its end. Its exit code must be what the test says."""
    done = subprocess.run(command(*args, broker=broker), input=stdin, capture_output=True, env=environment(),
                          timeout=2 * WAIT_S, check=False)
    assert (done.returncode != 0) == fails, f"nats {' '.join(map(str, args))}: exit code {done.returncode}: {done.stderr[-300:]!r}"
    return Ended(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


class Running:
    """A command that goes on, with its output in files; constructed when the broker has its subscriptions."""

    def __init__(self, *args, broker=None, subscriptions=1):
        self.broker = broker or shared
        self.name = unique("running")
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="."))
        with open(self.folder / "out", "wb") as out, open(self.folder / "err", "wb") as err:
            self.process = subprocess.Popen(command("--connection-name", self.name, *args, broker=self.broker), stdout=out,
                                            stderr=err, stdin=subprocess.DEVNULL, env=environment())
        running.append(self)
        self.subscriptions = subscriptions
        self.subscribed()

    def subscribed(self):
        def there():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.err()[-300:]}"
            connection = self.broker.connection(self.name)
            return connection and connection["subscriptions"] >= self.subscriptions
        wait_for(f"subscription of {self.name}", there)

    def out(self):
        return (self.folder / "out").read_bytes()

    def err(self):
        return (self.folder / "err").read_text(errors="replace")

    def lines(self):
        return self.out().decode(errors="replace").splitlines()

    def subjects(self):
        """What --subjects-only printed."""
        return [line.split()[-1].strip('"') for line in self.lines() if line]

    def end(self):
        self.process.wait(WAIT_S)
        return self.lines()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def settle(subscriber, wanted):
    """All that was wanted has come, and what must not come has had a round trip's time to come."""
    wait_for(f"{wanted} lines", lambda: len(subscriber.lines()) >= wanted)
    nats("rtt", "3", broker=subscriber.broker)


@test
def publish_subscribe():
    name = subject()
    sub = Running("sub", name, "--count", 3)
    raw = Running("sub", name, "--raw", "--count", 3)
    nats("pub", name, "hello")
    nats("pub", name, "")
    nats("pub", name + ".other", "not ours")
    nats("pub", name, "third")
    equal(raw.end(), ["hello", "nil body", "third"])  # the command's own words for nothing
    text = "\n".join(sub.end())
    assert f'Received on "{name}"' in text and "hello" in text and "third" in text, text
    equal(text.count("Received on"), 3)


@test
def wildcard_star():
    name = subject()
    middle = Running("sub", f"{name}.*.end", "--subjects-only")
    last = Running("sub", f"{name}.*", "--subjects-only")
    for tail in ("a.end", "b.end", "a.b.end", "end", "a.endless", "one", "a.end.more"):
        nats("pub", f"{name}.{tail}", tail)
    settle(middle, 2)
    settle(last, 2)
    equal(middle.subjects(), [f"{name}.a.end", f"{name}.b.end"])
    equal(last.subjects(), [f"{name}.end", f"{name}.one"])


@test
def wildcard_full():
    name = subject()
    sub = Running("sub", f"{name}.>", "--subjects-only")
    tails = ["a", "a.b", "a.b.c.d.e.f.g"]
    nats("pub", name, "too short")
    for tail in tails:
        nats("pub", f"{name}.{tail}", tail)
    settle(sub, 3)
    equal(sub.subjects(), [f"{name}.{tail}" for tail in tails])


@test
def queue_group():
    name, count = subject(), 600
    members = [Running("sub", name, "--queue", "workers", "--raw") for _ in range(3)]
    plain = Running("sub", name, "--raw")
    nats("pub", name, "{{Count}}", "--count", count, "--quiet")
    wanted = [str(n) for n in range(1, count + 1)]
    wait_for("queue messages", lambda: sum(len(member.lines()) for member in members) >= count and len(plain.lines()) >= count)
    nats("rtt", "3")
    shares = [member.lines() for member in members]
    equal(sorted(map(int, sum(shares, []))), list(range(1, count + 1)))
    equal(plain.lines(), wanted)
    for share in shares:
        assert len(share) > count / 9, f"unfair shares {[len(s) for s in shares]}"
        equal(share, sorted(share, key=int))


@test
def request_inbox():
    name = subject()
    Running("reply", name, "re:{{.Request}}")
    for payload in ("one", "two", ""):
        equal(nats("request", name, payload, "--raw").out.strip(), f"re:{payload}".encode())
    # Several answers to one inbox: two services in queue groups of their own.
    Running("reply", name, "--queue", "another", "too")
    got = nats("request", name, "x", "--raw", "--replies", 2, "--reply-timeout", "5s").out.split()
    equal(sorted(got), [b"re:x", b"too"])


@test
def request_mux():
    """The benchmark's requests go over the multiplexed inbox of nats.go."""
    name = subject()
    service = Running("reply", name, "pong")
    nats("server", "check", "request", "--subject", name, "--payload", "ping", "--match-payload", "pong")
    service.stop()
    name = subject()
    Running("bench", "service", "serve", name, "--no-progress")
    output = nats("bench", "service", "request", name, "--msgs", 1000, "--clients", 4, "--size", 32, "--no-progress")
    assert "msgs/sec" in (output.out + output.err.encode()).decode(), output


@test
def no_responders():
    started = time.monotonic()
    ended = nats("request", subject(), "anybody?")
    assert "No responders are available" in ended.err, ended
    assert time.monotonic() - started < WAIT_S / 2, "no responders was not said, only waited for"


@test
def headers():
    name = subject()
    sub = Running("sub", name, "--count", 2)
    nats("pub", name, "payload", "-H", "Kind:one", "-H", "Kind:two", "-H", "X-Text:a b")
    nats("pub", name, "", "-H", "Only:header")
    text = "\n".join(sub.end())
    for wanted in ("Kind: one", "Kind: two", "X-Text: a b", "payload", "Only: header"):
        assert wanted in text, f"{wanted!r} is not in {text!r}"
    service = subject()
    Running("reply", service, "--echo")
    answer = nats("request", service, "hello", "-H", "Ask:why")
    assert "Ask: why" in answer.err and "hello" in answer.out.decode(), answer


@test
def auto_unsubscribe():
    name = subject()
    sub = Running("sub", name, "--raw", "--count", 5)
    witness = Running("sub", name, "--raw", "--count", 20)
    nats("pub", name, "{{Count}}", "--count", 20, "--quiet")
    equal(sub.end(), ["1", "2", "3", "4", "5"])
    equal(len(witness.end()), 20)
    # nats reply --count gives the broker the limit: a third request finds nobody, whether or not the process still runs.
    service = subject()
    replier = Running("reply", service, "done", "--count", 2)
    for _ in range(2):
        equal(nats("request", service, "x", "--raw").out.strip(), b"done")
    assert "No responders are available" in nats("request", service, "x").err
    replier.process.wait(WAIT_S)


def hexadecimal(size):
    return os.urandom((size + 1) // 2).hex()[:size].encode()


@test
def max_payload_exact():
    name, payload = subject(), hexadecimal(1048576)
    sub = Running("sub", name, "--raw", "--count", 1)
    nats("pub", name, "--force-stdin", "--no-templates", stdin=payload)
    sub.process.wait(WAIT_S)
    equal(sub.out().rstrip(b"\n") == payload, True)


@test
def max_payload_exceeded():
    ended = nats("pub", subject(), "--force-stdin", "--no-templates", stdin=hexadecimal(1048577), fails=True)
    assert "maximum payload exceeded" in ended.err.lower(), ended
    broker = own_broker(config="max_payload: 1000")
    nats("pub", "x", "--force-stdin", "--no-templates", stdin=hexadecimal(1000), broker=broker)
    ended = nats("pub", "x", "--force-stdin", "--no-templates", stdin=hexadecimal(1001), broker=broker, fails=True)
    assert "maximum payload exceeded" in ended.err.lower(), ended


@test
def reconnect():
    broker = own_broker()
    sub = Running("sub", "again.*", "--raw", broker=broker)
    service = Running("reply", "service", "here", broker=broker)
    nats("pub", "again.a", "before", broker=broker)
    wait_for("first message", lambda: sub.lines() == ["before"])
    for how in ("KILL", "TERM"):
        broker.restart(signal=how)
        sub.subscribed()
        service.subscribed()
        nats("pub", "again.b", how, broker=broker)
        wait_for("message after the restart", lambda: sub.lines()[-1] == how)
        equal(nats("request", "service", "?", "--raw", broker=broker).out.strip(), b"here")
    equal(sub.lines(), ["before", "KILL", "TERM"])
    assert "Disconnected due to" in sub.err(), sub.err()


@test
def slow_consumer():
    broker = own_broker(config='max_pending: 4MB\nwrite_deadline: "2s"')
    healthy = Running("sub", "flood", "--subjects-only", broker=broker)
    stuck = Running("sub", "flood", "--subjects-only", broker=broker)
    stuck.process.send_signal(signal.SIGSTOP)
    payload, sent = hexadecimal(1000000), 0
    while broker.monitor("/varz")["slow_consumers"] == 0:
        assert sent < 500, "half a gigabyte and nobody is too slow"
        # Bounded by what the healthy subscriber took, or it might be the slow one.
        nats("pub", "flood", "--force-stdin", "--no-templates", "--count", 2, stdin=payload, broker=broker)
        sent += 2
        wait_for("flood", lambda: len(healthy.subjects()) >= sent)
    equal(len(healthy.subjects()), sent)
    wait_for("end of the slow connection", lambda: broker.connection(stuck.name) is None)
    assert "Disconnected" not in healthy.err(), healthy.err()
    stuck.process.send_signal(signal.SIGCONT)
    wait_for("notice of the slow one", lambda: "Disconnected due to" in stuck.err())


@test
def auth_user_pass():
    broker = own_broker("--user", "ada", "--pass", "s3cret")
    broker.login = ["--user", "ada", "--password", "s3cret"]
    sub = Running("sub", "x", "--raw", "--count", 1, broker=broker)
    nats("pub", "x", "in", broker=broker)
    equal(sub.end(), ["in"])
    hashed = own_broker(config="""
        authorization {
          users = [
            # the bcrypt hash of "s3cret"
            { user: ada, password: "$2a$04$rAoi9GMFb7ZXkrnqnyhFi.0N.mWk8ZJt7nYN0sGlf./e7lE/SsG.S" }
          ]
        }""")
    hashed.login = broker.login
    nats("pub", "x", "in", broker=hashed)


@test
def auth_token():
    broker = own_broker("--auth", "t0ken")
    broker.login = ["--token", "t0ken"]
    sub = Running("sub", "x", "--raw", "--count", 1, broker=broker)
    nats("pub", "x", "in", broker=broker)
    equal(sub.end(), ["in"])


@test
def auth_failure():
    for args, logins in ((["--user", "ada", "--pass", "s3cret"], [["--user", "ada", "--password", "wrong"], []]),
                         (["--auth", "t0ken"], [["--token", "wrong"], []])):
        broker = own_broker(*args)
        for broker.login in logins:
            ended = nats("pub", "x", "y", broker=broker, fails=True)
            assert "authorization violation" in ended.err.lower(), ended


@test
def permissions_violation():
    broker = own_broker(config="""
        authorization {
          users = [
            { user: limited, password: p, permissions: { publish: ["open.>", "_INBOX.>"], subscribe: { deny: "secret.*" } } }
            { user: all, password: p }
          ]
        }""")
    broker.login = ["--user", "all", "--password", "p"]
    witness = Running("sub", "closed.>", "open.>", "--subjects-only", broker=broker, subscriptions=2)
    broker.login = ["--user", "limited", "--password", "p"]
    ended = nats("pub", "closed.a", "no", broker=broker, fails=True)
    assert 'Permissions Violation for Publish to "closed.a"' in ended.err, ended
    ended = nats("sub", "secret.plan", broker=broker, fails=True)
    assert 'Permissions Violation for Subscription to "secret.plan"' in ended.err, ended
    ended = nats("sub", "secret.plan", "--queue", "q", broker=broker, fails=True)
    assert 'Permissions Violation for Subscription to "secret.plan" using queue "q"' in ended.err, ended
    nats("pub", "open.b", "yes", broker=broker)
    settle(witness, 1)
    equal(witness.subjects(), ["open.b"])


@test
def large_payload():
    broker = own_broker(config="max_payload: 2MB")  # the echo adds a header of its own to the megabyte
    Running("reply", "echo", "--echo", broker=broker)
    for size in (1048576, 65537):
        payload = hexadecimal(size)
        ended = nats("request", "echo", "--force-stdin", "--no-templates", "--raw", stdin=payload, broker=broker)
        equal(ended.out.strip() == payload, True)


@test
def ordering_100k():
    # The benchmark numbers its messages in their last token; nats pub would wait for a round trip after each.
    count, name = 100_000, subject()
    sub = Running("sub", f"{name}.*", "--subjects-only", "--count", count)
    nats("bench", "pub", name, "--multisubject", "--multisubjectmax", 0, "--msgs", count, "--size", "16", "--no-progress")
    sub.process.wait(2 * WAIT_S)
    got = [int(line.rsplit(".", 1)[1]) for line in sub.subjects()]
    equal(len(got), count)
    equal(got == list(range(got[0], got[0] + count)), True)


@test
def bench_pub_sub():
    name, count = subject(), 20_000
    sub = Running("bench", "sub", name, "--msgs", count, "--no-progress", "--size", "16")
    nats("bench", "pub", name, "--msgs", count, "--clients", 2, "--no-progress", "--size", "16")
    sub.process.wait(WAIT_S)
    assert re.search(r"subscriber stats: [\d,.]+ msgs/sec", "\n".join(sub.lines())), (sub.lines(), sub.err())
    equal(sub.process.returncode, 0)


@test
def flush_rtt():
    answer = json.loads(nats("rtt", "5", "--json").out)
    results = answer[0]["results"]
    assert results and all(0 < result["rtt"] < 5e9 for result in results), answer
    check = json.loads(nats("server", "check", "connection", "--format", "json").out)
    measured = {value["name"]: value["value"] for value in check["perf_data"]}
    assert all(0 < measured[name] < 5 for name in ("connect_time", "rtt", "request_time")), check


@test
def server_info():
    text = nats("account", "info").out.decode()
    shown = dict(re.findall(r"^ *([A-Z][\w ]+): (.*)$", text, re.MULTILINE))
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", shown["Connected Server Version"]), shown
    assert int(shown["Client ID"]) > 0, shown
    equal((shown["Client IP"], shown["Headers Supported"], shown["Maximum Payload"], shown["Connected URL"]),
          (shared.client_ip, "true", "1.0 MiB", shared.url))
    equal(shown["Connected Server ID"], shared.monitor("/varz")["server_id"])


@test
def lame_duck_moves():
    broker = own_broker(config='lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"')
    sub = Running("sub", "x", "--raw", broker=broker)
    broker.call("/signal", id=broker.id, signal="USR2")
    wait_for("end of the connection", lambda: "Disconnected due to" in sub.err())
    broker.restart()
    sub.subscribed()
    nats("pub", "x", "back", broker=broker)
    wait_for("message", lambda: sub.lines() == ["back"])


def secure(more="", login=()):
    broker = own_broker(config=f"tls {{ @tls{more} }}")
    broker.login = ["--tlsca", os.environ["CLIENTS_CA"], *login]
    return broker


CERTIFICATE = ["--tlscert", os.environ["CLIENTS_CERT"], "--tlskey", os.environ["CLIENTS_KEY"]]


def talk_over_tls(broker):
    sub = Running("sub", "secure.*", "--raw", broker=broker)
    service = Running("reply", "service", "here", broker=broker)
    large = Running("sub", "large", "--subjects-only", broker=broker)
    for round in ("before", "after"):
        nats("pub", "secure.a", round, broker=broker)
        wait_for(f"message {round} the restart", lambda: sub.lines()[-1:] == [round])
        equal(nats("request", "service", "?", "--raw", broker=broker).out.strip(), b"here")
        nats("pub", "large", "--force-stdin", "--no-templates", stdin=hexadecimal(500000), broker=broker)
        wait_for("large payload", lambda: len(large.subjects()) == (1 if round == "before" else 2))
        rows = broker.monitor("/connz")["connections"]
        equal({row.get("tls_version") for row in rows}, {"1.3"})
        if round == "before":
            broker.restart()
            for each in (sub, service, large):
                each.subscribed()


@test
def tls():
    broker = secure()
    talk_over_tls(broker)
    broker.login = []
    assert "certificate" in nats("pub", "x", "y", broker=broker, fails=True).err


@test
def tls_verify():
    broker = secure(", verify: true", CERTIFICATE)
    talk_over_tls(broker)
    broker.login = broker.login[:2]
    nats("pub", "x", "y", broker=broker, fails=True)


@test
def tls_first():
    talk_over_tls(secure(", handshake_first: true", ["--tlsfirst"]))


def main():
    global shared
    only = [name for name in os.environ.get("CLIENTS_ONLY", "").split(",") if name]
    chosen = [function for function in tests if not only or function.__name__ in only]
    print(f"plan {len(chosen)}", flush=True)
    shared = Broker()
    failed = 0
    for function in chosen:
        started = time.monotonic()
        try:
            function()
            print(f"ok {function.__name__}", flush=True)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {function.__name__}: {reason[:400]}", flush=True)
        while running:
            running.pop().stop()
        print(f"# {function.__name__} took {time.monotonic() - started:.1f} s", flush=True)
    shared.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
