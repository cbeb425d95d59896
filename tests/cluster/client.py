"""A NATS client for the cases: a thread that reads, plain calls that write, and a memory of what happened to it.

It knows what the official clients know of clusters (connect_urls, lame duck, reconnect with its subscriptions) and shows it:
`infos` are all INFO lines received, `lives` the connections it had, with the server of each. Nothing is ever sent twice by it:
what a broken connection swallowed is lost, so that a duplicate can only come from the servers.
"""

import collections
import json
import random
import socket
import string
import threading
import time

PATIENCE_S = 60  # what comes at all comes at once; on a machine with twenty other things to do, a little later


class Disconnected(Exception):
    pass


class Message:
    __slots__ = ("subject", "reply", "headers", "payload", "life")

    def __init__(self, subject, reply, headers, payload, life):
        self.subject, self.reply, self.headers, self.payload, self.life = subject, reply, headers, payload, life


class Subscription:
    def __init__(self, client, sid, subject, queue, on):
        self.client, self.sid, self.subject, self.queue, self.on = client, sid, subject, queue, on
        self.messages = []

    def count(self):
        return len(self.messages)

    def payloads(self):
        return [message.payload for message in self.messages]

    def wait(self, count, timeout_s=PATIENCE_S):
        """Waits for `count` messages; those that came."""
        with self.client.changed:
            self.client.changed.wait_for(lambda: len(self.messages) >= count, timeout_s)
        return self.messages


class Client:
    """dials: functions that give a connected socket, tried in turn; with reconnect, addresses learnt from INFO too."""

    def __init__(self, *dials, user=None, password=None, echo=True, reconnect=False, name=""):
        self.dials = list(dials)
        self.reconnect = reconnect
        self.options = {"verbose": False, "pedantic": False, "echo": echo, "headers": True, "no_responders": True,
                        "protocol": 1, "lang": "test", "version": "1", "name": name}
        if user:
            self.options.update(user=user, **{"pass": password})
        self.name = name
        self.changed = threading.Condition()
        self.write_lock = threading.Lock()
        self.subscriptions = {}
        self.next_sid = 1
        self.infos = []
        self.errors = []
        self.lives = []  # server names, one per connection
        self.pongs_wanted = 0
        self.pongs = 0
        self.sock = None
        self.connected = False
        self.closing = False
        self.mux = None
        self.waiting = {}
        try:
            self._connect(self.dials)
        except OSError as error:
            raise Disconnected(f"cannot connect: {error}") from None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.flush()

    # ---- writing

    def _send(self, data):
        if not self.connected:
            raise Disconnected(self.name)
        try:
            with self.write_lock:
                self.sock.sendall(data)
        except OSError as error:
            raise Disconnected(f"{self.name}: {error}") from None

    def publish(self, subject, payload=b"", reply="", headers=None):
        if isinstance(payload, str):
            payload = payload.encode()
        self._send(encode(subject, payload, reply, headers))

    def publish_many(self, subject_payloads):
        self._send(b"".join(encode(subject, payload, "", None) for subject, payload in subject_payloads))

    def sub(self, subject, queue="", on=None, flush=True):
        subscription = Subscription(self, self.next_sid, subject, queue, on)
        self.next_sid += 1
        self.subscriptions[subscription.sid] = subscription
        self._send(self._sub_line(subscription))
        if flush:
            self.flush()
        return subscription

    @staticmethod
    def _sub_line(subscription):
        queue = f" {subscription.queue}" if subscription.queue else ""
        return f"SUB {subscription.subject}{queue} {subscription.sid}\r\n".encode()

    def unsub(self, subscription, max_messages=None):
        self._send(f"UNSUB {subscription.sid}{f' {max_messages}' if max_messages else ''}\r\n".encode())

    def flush(self, timeout_s=PATIENCE_S):
        """What was published before this has been taken by the server. Disconnected: that is not known."""
        with self.changed:
            life = len(self.lives)
            self.pongs_wanted += 1
            wanted = self.pongs_wanted
        self._send(b"PING\r\n")
        with self.changed:
            self.changed.wait_for(lambda: self.pongs >= wanted or len(self.lives) != life or not self.connected, timeout_s)
            if self.pongs < wanted or len(self.lives) != life:
                raise Disconnected(f"{self.name}: no PONG; {self.errors}")

    def request(self, subject, payload=b"", timeout_s=PATIENCE_S):
        """The answer; None when the server said that there are no responders."""
        inbox = self.request_later(subject, payload)
        return self.answer(inbox, timeout_s)

    def request_later(self, subject, payload=b""):
        if self.mux is None:
            prefix = "_INBOX." + "".join(random.choices(string.ascii_letters, k=12))
            self.mux = (prefix, self.sub(prefix + ".*", on=self._answered))
        inbox = f"{self.mux[0]}.{len(self.waiting)}"
        self.waiting[inbox] = None
        self.publish(subject, payload, inbox)
        return inbox

    def answer(self, inbox, timeout_s=PATIENCE_S):
        with self.changed:
            if not self.changed.wait_for(lambda: self.waiting[inbox] is not None, timeout_s):
                raise AssertionError(f"no answer to a request within {timeout_s} s")
        answer = self.waiting[inbox]
        return None if answer.headers and answer.headers.startswith(b"NATS/1.0 503") else answer

    def _answered(self, message):
        with self.changed:
            self.waiting[message.subject] = message
            self.changed.notify_all()

    def drain(self):
        """As official clients do: no more messages, those on the way still come, then close."""
        self._send(b"".join(f"UNSUB {sid}\r\n".encode() for sid in self.subscriptions))
        self.flush()
        self.close()

    def close(self):
        self.closing = True
        self.connected = False
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.reader.join(5)
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- reading

    def _connect(self, dials):
        problem = None
        for dial in dials:
            try:
                self.sock = dial()
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock.settimeout(PATIENCE_S)
                self.file = self.sock.makefile("rb", 1 << 17)
                line = self.file.readline()
                if not line.startswith(b"INFO "):
                    raise ConnectionError(f"no INFO but {line!r}")
                info = json.loads(line[5:])
                self.sock.sendall(b"CONNECT " + json.dumps(self.options).encode() + b"\r\n" +
                                  b"".join(self._sub_line(s) for s in list(self.subscriptions.values())) + b"PING\r\n")
                while True:  # verdict on CONNECT, and on the subscriptions
                    line = self.file.readline()
                    if line.startswith(b"PONG"):
                        break
                    if line.startswith(b"INFO "):
                        self.infos.append(json.loads(line[5:]))
                    elif line.startswith(b"-ERR") or not line:
                        raise ConnectionError(f"refused: {line!r}")
                    else:
                        self._take(line)
                self.sock.settimeout(None)
                with self.changed:
                    self.infos.append(info)
                    self.lives.append(info["server_name"])
                    self.pongs_wanted = self.pongs = 0
                    self.connected = True
                    self.changed.notify_all()
                return
            except OSError as error:
                problem = error
                if self.sock:
                    self.sock.close()
        raise problem or ConnectionError("nowhere to connect to")

    def _read(self):
        while True:
            try:
                line = self.file.readline()
                if line:
                    self._take(line)
                    continue
            except (OSError, ValueError):
                pass
            with self.changed:
                self.connected = False
                self.changed.notify_all()
            self.sock.close()
            if self.closing or not self.reconnect:
                return
            if not self._reconnect():
                return

    def _reconnect(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not self.closing:
            learnt = [url for info in self.infos[-1:] for url in info.get("connect_urls") or []]
            dials = self.dials + [lambda url=url: dial_address(url) for url in learnt]
            random.shuffle(dials)
            try:
                self._connect(dials)
                return True
            except OSError:
                time.sleep(0.05)
        return False

    def _take(self, line):
        if line.startswith(b"MSG "):
            *words, size = line[4:].split()
            self._message(words, b"", self._body(int(size)))
        elif line.startswith(b"HMSG "):
            *words, head, size = line[5:].split()
            body = self._body(int(size))
            self._message(words, body[:int(head)], body[int(head):])
        elif line.startswith(b"PING"):
            with self.write_lock:
                self.sock.sendall(b"PONG\r\n")
        elif line.startswith(b"PONG"):
            with self.changed:
                self.pongs += 1
                self.changed.notify_all()
        elif line.startswith(b"INFO "):
            with self.changed:
                self.infos.append(json.loads(line[5:]))
                self.changed.notify_all()
        elif line.startswith(b"-ERR"):
            with self.changed:
                self.errors.append(line.decode().strip())
                self.changed.notify_all()

    def _body(self, size):
        body = self.file.read(size + 2)
        if len(body) != size + 2:
            raise ConnectionError("ended inside a message")
        if not body.endswith(b"\r\n"):
            self.errors.append(f"a payload does not end in CRLF: {body[-20:]!r}")
        return body[:-2]

    def _message(self, words, headers, payload):
        subject, sid, *reply = words
        subscription = self.subscriptions.get(int(sid))
        message = Message(subject.decode(), reply[0].decode() if reply else "", headers, payload, len(self.lives))
        if subscription is None:
            self.errors.append(f"message for unknown sid {sid!r}")
        elif subscription.on:
            subscription.on(message)
        else:
            with self.changed:
                subscription.messages.append(message)
                self.changed.notify_all()

    def wait_info(self, condition, timeout_s=PATIENCE_S):
        """Waits until the latest INFO meets `condition`; it, or None."""
        with self.changed:
            return self.infos[-1] if self.changed.wait_for(lambda: condition(self.infos[-1]), timeout_s) else None


def encode(subject, payload, reply, headers):
    reply = f" {reply}" if reply else ""
    if headers is None:
        return f"PUB {subject}{reply} {len(payload)}\r\n".encode() + payload + b"\r\n"
    head = ("NATS/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n").encode()
    return f"HPUB {subject}{reply} {len(head)} {len(head) + len(payload)}\r\n".encode() + head + payload + b"\r\n"


def dial_address(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def counted(items):
    return collections.Counter(items)
