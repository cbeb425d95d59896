"""Flags in all their spellings, wrong command lines, and what a configuration file may look like."""

import os
import re
import socket
import time

from start import HOST, PATIENCE, Scratch, Wire, case, check, free_port, loopback


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
def addresses_nobody_could_use(exe):
    for wrong in ("a:b", "::1", "a:b:1"):
        done = exe.run(*loopback("--client_advertise", wrong))
        check(done.returncode == 1 and wrong in done.stderr, f"{wrong}: {done.returncode} {done.stderr[-300:]!r}")


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
