"""The monitoring pages: that they come, their fields and types, their values."""

import json
import os
import re
import time
import urllib.parse

from start import HOST, PATIENCE, Wire, case, check, free_port, loopback, until

KEYS_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keys.json")
# What only nats-server can say: its build, its language's runtime, what JetStream does.
NOT_OURS = {"git_commit", "disk_io_wait_stats", "feature_flags", "system_account"}  # the last one until accounts are built


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
def closed_connections_are_forgotten(exe):
    """The limit is the server's, however many shards it has."""
    shards = () if exe.reference else ("--shards", "4")
    with exe.start(*loopback("-m", "-1", *shards), config="max_closed_clients: 3\n") as broker:
        for n in range(7):
            with Wire(broker, '{"verbose":false,"name":"%d"}' % n) as wire:
                wire.sync()
            check(broker.close_reason(wire.info["client_id"]) == "Client Closed", "reason")
        closed = broker.get_json("/connz?state=closed")
        check([row["name"] for row in closed["connections"]] == ["4", "5", "6"] and closed["total"] == 3,
              f"{closed['total']}: {[row['name'] for row in closed['connections']]}")


@case
def what_a_server_says_of_itself(exe):
    config = "server_metadata: {region: west}\nclient_advertise: \"example.com:4333\"\nno_auth_user: a\n" \
             "authorization { users: [ {user: a, password: b} ] }\n"
    with exe.start(*loopback("-m", "-1"), config=config) as broker:
        varz = broker.get_json("/varz")
        for key, value in {"metadata": {"region": "west"}, "host": "example.com", "port": 4333, "auth_required": True}.items():
            check(varz.get(key) == value, f"{key} is {varz.get(key)}, not {value}")


@case
def names_of_who_needed_none(exe):
    with exe.start(*loopback("-m", "-1")) as broker:
        for connect, name in (('"user":"u","pass":"p"', "u"), ('"auth_token":"t"', "[REDACTED]"), ('"name":"n"', None)):
            with Wire(broker, '{"verbose":false,%s}' % connect) as wire:
                wire.sync()
                row = broker.get_json(f"/connz?auth=1&cid={wire.info['client_id']}")["connections"][0]
                check(row.get("authorized_user") == name, f"{connect}: {row.get('authorized_user')}")


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
