"""TLS: flags, monitoring, clients."""

import json
import os
import socket
import ssl

from start import CERT, HOST, KEY, PATIENCE, Wire, case, check, loopback, until


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
