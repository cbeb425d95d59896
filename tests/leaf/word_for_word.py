"""One server and a peer made by hand; and its options and arguments."""

import json
import socket
import threading

from servers import HOST, Client, Node, Raw, check, solicit
from pairs import alone
from streams import stream
from broker import Broker, StartError, is_reference, port_that_answers_no_syn, until


@alone
def an_accepted_connection_word_for_word(server):
    with Node(server, "server_name: hubname") as node:
        raw, info = solicit(node)
        for field, value in {"server_name": "hubname", "auth_required": True, "headers": True, "max_payload": 1048576,
                             "info_on_connect": True, "compression": "s2_auto", "proto": 3,
                             "leafnode_urls": [f"{HOST}:{node.leaf_port}"], "ip": f"{HOST}:{node.leaf_port}"}.items():
            check(info.get(field) == value, f"INFO {field}: {info.get(field)}")
        check(info["nonce"] and info["client_id"] and "cluster" not in info, "INFO nonce, client_id, cluster")
        second = raw.until("INFO")[-1]
        info = json.loads(second[5:])
        check(info["connect_info"] is True and info["remote_account"] == "$G", second)
        loop = raw.until("LS+ $LDS.")[-1].split(" ")[1]
        check(len(loop) == 5 + 22, loop)
        with Client(node) as client:
            client.sub("x.y")
            client.sub("x.>", "q")
            client.sub("x.>", "q")
            client.sync()
            lines = raw.until("LS+ x.> q 2")
            check("LS+ x.y" in lines and "LS+ x.> q 1" in lines, f"{lines}")
            raw.send("LS+ a\nLS+ b g 3\nPING\n")
            raw.until("PONG")
            check(until(lambda: node.interest() == ["a", "b"]), f"{node.interest()}")
            client.pub("a", "1", reply="r")
            client.pub("b", "2")
            client.pub("b", "3", reply="r")
            client.pub("a", "4", header=b"NATS/1.0\r\n\r\n")
            client.sync()
            lines = raw.until("HMSG") + [raw.line(), raw.line()]
            expected = ["LMSG a r 1", "1", "LMSG b | g 1", "2", "LMSG b + r g 1", "3", "HMSG a 12 13", "NATS/1.0", ""]
            check([line for line in lines if line != "PING"] == expected, f"{lines}")
            check(raw.line() == "4", "body")
            raw.send("LMSG x.y 1\n5\nLMSG x.z 1\nno\n".replace("no", "n"))
            client.expect_message("x.y", "5")
            raw.send("LMSG x.y + re q 1\n6\nHMSG x.z | q 12 13\nNATS/1.0\n\n7\n")
            got = [client.message() for _ in range(3)]
            check(sorted(m.payload for m in got) == [b"6", b"6", b"7"], f"{[m.payload for m in got]}")
            check(all(m.reply == ("re" if m.payload == b"6" else "") for m in got), "reply")
            raw.send("LS- a\nLS- b g\nPING\n")
            raw.until("PONG")
            check(until(lambda: node.interest() == []), f"{node.interest()}")
            client.send(b"UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\n")
            lines = raw.until("LS- x.> q")
            check("LS- x.y" in lines and "LS+ x.> q 1" in lines, f"{lines}")
        # our own loop subject comes back
        raw.send(f"LS+ {loop}\n")
        text = raw.closed()
        check('-ERR \'Loop detected for leafnode account="$G". Delaying attempt to reconnect for 30s\'' in text, text)


@alone
def a_stream_in_any_pieces(server):
    """What a leafnode brings, alone and many alike: every subscriber gets what is meant for it, and the counts are true."""
    text, sent = stream("LMSG", "", ["t.a", "t.a", "t.b", "t.c", "t.d", "t.nobody"], 7, 150)
    with Node(server) as node, Client(node) as one, Client(node) as two, Client(node) as member:
        for client, subject, queue in ((one, "t.a", ""), (one, "t.c", ""), (two, "t.a", ""), (two, "t.*", ""), (member, "t.d", "q")):
            client.sub(subject, queue)
            client.sync()
        for number, pieces in enumerate((1 << 20, 70_000, 1400)):
            connect = {"version": "2.15.1", "server_id": f"NX{number}", "name": f"raw{number}", "headers": True, "protocol": 3}
            raw, _ = solicit(node, json.dumps(connect))
            raw.send("PING\n")
            raw.until("PONG")
            received = [[], [], []]
            drinkers = [threading.Thread(target=drink, args=each) for each in zip((one, two, member), received, (2, 4, 1))]
            for drinker in drinkers:
                drinker.start()
            for at in range(0, len(text), pieces):
                raw.sock.sendall(text[at:at + pieces])
            raw.send("PING\n")
            raw.until("PONG")
            row = node.leafs()[0]
            raw.send("LMSG t.a 3\nend\nLMSG t.c 3\nend\nLMSG t.d | q 3\nend\n")
            for drinker in drinkers:
                drinker.join(60)
            wanted = [[each for each in sent if each.subject in ("t.a", "t.c")],
                      [each for each in sent for _ in range(2 if each.subject == "t.a" else 1)],
                      [each for each in sent if each.queue and each.subject == "t.d"]]
            for who, (got, should) in enumerate(zip(received, wanted)):
                should = [(each.subject, each.reply, each.headers, each.payload) for each in should]
                check(sorted(got) == sorted(should), f"client {who}, pieces of {pieces}: {len(got)} messages instead of {len(should)}")
                for subject in {each[0] for each in should}:
                    same = [[each for each in some if each[0] == subject] for some in (got, should)]
                    check(who == 1 or same[0] == same[1], f"client {who}, pieces of {pieces}: the order on {subject}")
            check(row["in_msgs"] == len(sent), f"in_msgs {row['in_msgs']}, not {len(sent)}")
            raw.sock.close()
            check(until(lambda: node.leafs() == []), "the leafnode stays")


def drink(client, got, ends):
    """Messages up to the last of so many that say "end"."""
    while ends > 0:
        message = client.message(30)
        if message.payload == b"end":
            ends -= 1
        else:
            got.append((message.subject, message.reply, message.header, message.payload))


@alone
def a_second_connection_of_one_server_replaces_the_first(server):
    connect = '{"version":"2.15.1","server_id":"NX","name":"raw","cluster":"RAW","headers":true,"remote_account":"$G"}'
    with Node(server) as node:
        first, _ = solicit(node, connect)
        first.until("LS+ $LDS.")
        second, _ = solicit(node, connect)
        second.until("LS+ $LDS.")
        text = first.closed()
        check("-ERR 'Duplicate Remote LeafNode Connection'" in text, text)
        check(until(lambda: len(node.leafs()) == 1), f"{len(node.leafs())} leafnodes")
        check("Replacing connection from same server" in node.log(), node.log_tail())


@alone
def wrong_visitors_are_turned_away(server):
    with Node(server, 'cluster { name: "HERE" }') as node:
        for connect, error in {
            '{"lang":"go","version":"1.0"}': "attempted to connect to leaf node port",
            '{"version":"2.15.1","name":"x","cluster":"two words"}': "cluster name cannot contain spaces",
            '{"version":"2.15.1","name":"x","cluster":"HERE"}': "remote leafnode has same cluster name",
            '{"version":"2.15.1","name":"x","gateway":"GW"}': 'Rejecting connection from gateway "GW" on the leafnode port',
        }.items():
            raw, _ = solicit(node, connect)
            text = raw.closed()
            check(f"-ERR '{error}'" in text, f"{connect}: {text}")
        for line in ("PING", "+OK", "LS+ foo", "LMSG foo 1", "BOGUS"):
            raw, _ = solicit(node, None)
            raw.send(line + "\n")
            text = raw.closed()
            check(text.replace("PING\r\n", "") == "-ERR 'Authorization Violation'\r\n", f"{line}: {text}")
        check(node.leafs() == [], "somebody stayed")


@alone
def errors_it_is_told_of(server):
    """-ERR is said in the log; who says so closes the connection, or goes on. Only a loop is left at once."""
    with Node(server) as node:
        raw, _ = solicit(node)
        raw.until("LS+ $LDS.")
        raw.send("-ERR 'Permissions Violation for Publish to \"x\"'\nPING\n")
        raw.until("PONG")
        check(until(lambda: "Leafnode Error 'Permissions Violation for Publish to \"x\"'" in node.log()), node.log_tail())
        raw.send("-ERR 'Loop detected for leafnode account=\"$G\". Delaying attempt to reconnect for 30s'\nPING\n")
        check("PONG" not in raw.closed(), "it stayed")
        check(until(lambda: "Leafnode connection closed: Protocol Violation" in node.log()), node.log_tail())


@alone
def hubs_that_name_no_urls(server):
    """no_advertise: INFO without leafnode_urls. A client's port has none either, and no INFO after CONNECT."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(30)
        port = listener.getsockname()[1]
        with Node(server, listen=False, remotes=[f'url: "nats://{HOST}:{port}"'], leaf='reconnect: "100ms"') as node:
            info = {"server_id": "NHUB", "server_name": "hub", "version": "2.15.1", "proto": 1, "host": HOST, "port": port, "headers": True,
                    "max_payload": 1048576, "client_id": 7}
            raw = Raw(listener.accept()[0])
            raw.send("INFO " + json.dumps(info) + " \n")
            check("CONNECT" not in raw.closed(), "took a client's port for a hub's")
            check(until(lambda: "Leafnode connection closed: Incorrect Port" in node.log()), node.log_tail())
            raw = Raw(listener.accept()[0])
            raw.send("INFO " + json.dumps({**info, "nonce": "abc", "info_on_connect": True}) + " \n")
            raw.until("CONNECT")


@alone
def a_hub_that_says_nothing(server):
    """first_info_timeout: the next attempt follows."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        remote = f'url: "nats://{HOST}:{listener.getsockname()[1]}", first_info_timeout: "300ms"'
        with Node(server, listen=False, remotes=[remote], leaf='reconnect: "200ms"'):
            first, _ = listener.accept()
            first.settimeout(5)
            check(first.recv(100) == b"", "it gave up without closing")
            listener.accept()[0].close()


@alone
def a_hub_that_cannot_be_reached(server):
    """dial_timeout: a port whose queue is full answers no SYN."""
    with port_that_answers_no_syn() as port:
        remote = f'url: "nats://{HOST}:{port}", dial_timeout: "2500ms"'
        with Node(server, listen=False, remotes=[remote], args=["-D"]) as node:
            failed = f"dial tcp {HOST}:{port}: i/o timeout"
            check(until(lambda: failed in node.log(), 10), node.log_tail())
            took = (node.logged_at(failed) - node.logged_at("Trying to connect as leafnode to remote server")) % 86400
            check(took > 2.4, f"given up after {took} s")  # the usual time is a second


@alone
def a_leaf_that_does_not_read(server):
    """write_deadline, and write_timeout: close."""
    with Node(server, leaf='write_deadline: "300ms"\nwrite_timeout: close') as node, Client(node) as client:
        raw, _ = solicit(node)
        raw.until("LS+ $LDS.")
        raw.send("LS+ flood\nPING\n")
        raw.until("PONG")
        for _ in range(24):  # more than two sockets hold, less than what may wait
            client.pub("flood", bytes(1 << 20))
        client.sync(60)
        closed = "Leafnode connection closed: Slow Consumer (Write Deadline)"
        check(until(lambda: closed in node.log(), 10), node.log_tail())
        check("Slow Consumer Detected: WriteDeadline of 300" in node.log(), node.log_tail())
        check(until(lambda: node.leafs() == []), "still there")
        raw.sock.close()


@alone
def a_solicited_connection_word_for_word(server):
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        remote = f'url: "nats://me:pw@{HOST}:{port}", deny_imports: ["no.in"], compression: off'
        with Node(server, "server_name: spoke", listen=False, remotes=[remote], leaf='reconnect: "200ms"') as node:
            raw = Raw(listener.accept()[0])
            info = {"server_id": "NHUB", "server_name": "hub", "version": "2.15.1", "proto": 3, "go": "go1.24", "host": HOST,
                    "port": port, "headers": True, "auth_required": True, "max_payload": 1048576, "client_id": 7,
                    "nonce": "abc", "cluster": "HUB", "info_on_connect": True, "leafnode_urls": [f"{HOST}:{port}"]}
            raw.send("INFO " + json.dumps(info) + " \n")
            connect = json.loads(raw.until("CONNECT")[-1][8:])
            for field, value in {"user": "me", "pass": "pw", "name": "spoke", "cluster": "spoke", "headers": True,
                                 "deny_pub": ["no.in"], "remote_account": "$G", "protocol": 3}.items():
                check(connect.get(field) == value, f"CONNECT {field}: {connect.get(field)}")
            check("is_hub" not in connect, "is_hub")
            info.update(connect_info=True, remote_account="$G", export={"allow": ["up.>"]}, **{"import": {"deny": ["no.too"]}})
            raw.send("INFO " + json.dumps(info) + " \n")
            raw.until("LS+ $LDS.")
            with Client(node) as client:
                for subject in ("no.in", "no.too", "yes"):
                    client.sub(subject)
                client.sync()
                lines = raw.until("LS+ yes")
                check(not any("no." in line for line in lines), f"{lines}")
                raw.send("LS+ up.a\nLS+ other\nPING\n")
                raw.until("PONG")
                client.pub("other", "x")
                client.pub("up.a", "y")
                client.sync()
                lines = raw.until("LMSG")
                check(lines[-1] == "LMSG up.a 1", f"{lines}")
            # a loop the hub has found: no attempt for 30 s
            raw.send('-ERR \'Loop detected for leafnode account="$G". Delaying attempt to reconnect for 30s\'\n')
            raw.closed()
            check(until(lambda: "Loop detected" in node.log()), node.log_tail())
            listener.settimeout(2.5)
            try:
                listener.accept()
                raise AssertionError("it came back at once")
            except TimeoutError:
                pass


@alone
def urls_are_tried_in_turn(server):
    """The second URL is dead; one that the hub names in INFO is used when the first goes."""
    with Node(server) as hub, socket.create_server((HOST, 0)) as dead:
        port = dead.getsockname()[1]
        dead.close()
        remote = f'urls: ["nats://{HOST}:{port}", "nats://{HOST}:{hub.leaf_port}"], no_randomize: true'
        with Node(server, listen=False, remotes=[remote], leaf='reconnect: "100ms"') as leaf:
            leaf.linked()
            check("Error trying to connect as leafnode to remote server" in leaf.log(), leaf.log_tail())
            check("connection refused" in leaf.log(), leaf.log_tail())


@alone
def the_flag_of_the_tutorial(server):
    """-leafnode URL[,URL]: nats-server has no such flag, whatever its documentation says."""
    if is_reference(server):
        return
    with Node(server) as hub, socket.create_server((HOST, 0)) as dead:
        port = dead.getsockname()[1]
        dead.close()
        urls = f"nats://{HOST}:{hub.leaf_port},nats://{HOST}:{port}"
        with Broker(server, args=["-leafnode", urls]) as leaf:
            hub.linked()
            check(leaf.get_json("/varz")["leafnodes"] == 1, "leafnodes of /varz")
            shown = leaf.get_json("/varz")["leaf"]
            check(shown["remotes"][0]["local_account"] == "$G", f"{shown}")
            row = [r for r in hub.get_json("/connz")["connections"] if r["kind"] == "Leafnode"]
            check(len(row) == 1 and row[0]["name"] == hub.leafs()[0]["name"], "leafnodes of /connz")


@alone
def wrong_configurations_are_refused(server):
    for config, text in {
        'leafnodes { remotes: [ { url: "nats://127.0.0.1:1", account: "A" } ] }': 'cannot find local account "A" specified in',
        'leafnodes { port: -1, min_version: "2.7.0" }': "the minimum version should be at least 2.8.0",
        'leafnodes { remotes: [ { url: "nats://127.0.0.1:1" }, { url: "nats://127.0.0.1:1" } ] }': "duplicate remote",
        'leafnodes { port: -1, authorization { users: [ { user: a, password: a }, { user: a, password: b } ] } }':
            'duplicate user "a" detected in leafnode authorization',
    }.items():
        try:
            Broker(server, config).stop()
            raise AssertionError(f"started: {config}")
        except StartError as error:
            check(text in str(error), f"{config}: {error}")
