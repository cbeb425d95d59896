// nats.js (node transport) against a broker. The contract with run.py is in ../README.md.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

import { createInbox, errors, headers } from "@nats-io/nats-core";
import { connect as dial } from "@nats-io/transport-node";

import { Broker, kWaitMs, Raw, waitFor } from "./broker.mjs";

const kTestLimitMs = 90_000;
const tests = {};
let shared; // the broker of the tests that need no special one
let opened = []; // what the running test has to close
let subjects = 0;

const subject = () => `js.t${++subjects}`;
const text = (data) => new TextDecoder().decode(data);

/** A client that keeps its status events, and is closed when the test ends. */
async function connect(options = {}, broker = shared) {
  const nc = await dial({ servers: broker.url, timeout: 10_000, reconnectTimeWait: 50, reconnectJitter: 0,
    maxReconnectAttempts: -1, ...options });
  const events = [];
  (async () => {
    for await (const event of nc.status()) events.push(event);
  })();
  nc.heard = (type) => events.filter((event) => event.type === type);
  opened.push(nc);
  return nc;
}

async function start(args, config) {
  const broker = await Broker.start(args, config);
  opened.push({ close: () => broker.stop("KILL") });
  return broker;
}

/** Subscribes, and lists the messages as they come. */
function listen(nc, name, options = {}) {
  const got = [];
  const sub = nc.subscribe(name, {
    ...options,
    callback: (error, msg) => {
      if (error) got.failed = error;
      else got.push(msg);
    },
  });
  got.sub = sub;
  return got;
}

async function expectError(kind, promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof kind, `got ${error?.constructor?.name}: ${error?.message}, wanted ${kind.name}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

tests.publish_subscribe = async () => {
  const [publisher, subscriber] = [await connect(), await connect()];
  const name = subject();
  const got = listen(subscriber, name);
  await subscriber.flush();
  const payloads = ["hello", "", "\0\r\nPING\r\n\u00ff"];
  for (const payload of payloads) publisher.publish(name, payload);
  publisher.publish(`${name}.other`, "not ours");
  await publisher.flush();
  await subscriber.flush();
  assert.deepEqual(got.map((msg) => [msg.subject, msg.string()]), payloads.map((payload) => [name, payload]));
};

tests.async_iterator = async () => {
  const nc = await connect();
  const name = subject();
  const sub = nc.subscribe(name, { max: 100 });
  for (let n = 0; n < 120; n++) nc.publish(name, String(n));
  let expected = 0;
  for await (const msg of sub) assert.equal(msg.string(), String(expected++));
  assert.equal(expected, 100);
};

tests.no_echo = async () => {
  const [quiet, other] = [await connect({ noEcho: true }), await connect()];
  const name = subject();
  const [own, foreign] = [listen(quiet, name), listen(other, name)];
  await other.flush();
  quiet.publish(name, "x");
  await quiet.flush();
  await other.flush();
  assert.deepEqual([own.length, foreign.length], [0, 1]);
};

tests.wildcard_star = async () => {
  const nc = await connect();
  const name = subject();
  const [middle, last] = [listen(nc, `${name}.*.end`), listen(nc, `${name}.*`)];
  for (const tail of ["a.end", "b.end", "a.b.end", "end", "a.endless", "one", "a.end.more"]) nc.publish(`${name}.${tail}`, tail);
  await nc.flush();
  assert.deepEqual(middle.map((msg) => msg.string()), ["a.end", "b.end"]);
  assert.deepEqual(last.map((msg) => msg.string()), ["end", "one"]);
};

tests.wildcard_full = async () => {
  const nc = await connect();
  const name = subject();
  const got = listen(nc, `${name}.>`);
  nc.publish(name, "too short");
  const tails = ["a", "a.b", "a.b.c.d.e.f.g"];
  for (const tail of tails) nc.publish(`${name}.${tail}`);
  await nc.flush();
  assert.deepEqual(got.map((msg) => msg.subject), tails.map((tail) => `${name}.${tail}`));
};

tests.queue_group = async () => {
  const count = 3000;
  const name = subject();
  const publisher = await connect();
  const members = [await connect(), await connect(), await connect()];
  const plain = await connect();
  const shares = members.map((nc) => listen(nc, name, { queue: "workers" }));
  const all = listen(plain, name);
  for (const nc of [...members, plain]) await nc.flush();
  for (let n = 0; n < count; n++) publisher.publish(name, String(n));
  await publisher.flush();
  for (const nc of [...members, plain]) await nc.flush();
  const numbers = (got) => got.map((msg) => Number(msg.string()));
  const wanted = Array.from({ length: count }, (_, n) => n);
  assert.deepEqual(numbers(all), wanted);
  assert.deepEqual(numbers(shares.flat()).sort((a, b) => a - b), wanted);
  for (const share of shares) {
    assert.ok(share.length > count / 9, `unfair shares ${shares.map((s) => s.length)}`);
    assert.deepEqual(numbers(share), numbers(share).sort((a, b) => a - b));
  }
};

async function answering(nc, name) {
  nc.subscribe(name, { callback: (_, msg) => msg.respond(`re:${msg.string()}`, { headers: msg.headers }) });
  await nc.flush();
}

tests.request_inbox = async () => {
  const [service, nc] = [await connect(), await connect()];
  const name = subject();
  await answering(service, name);
  for (let n = 0; n < 50; n++) {
    const msg = await nc.request(name, String(n), { timeout: kWaitMs, noMux: true });
    assert.equal(msg.string(), `re:${n}`);
  }
  const inbox = createInbox();
  const got = listen(nc, inbox, { max: 1 });
  nc.publish(name, "by hand", { reply: inbox });
  await waitFor("answer", () => got.length === 1);
  assert.equal(got[0].string(), "re:by hand");
};

tests.request_mux = async () => {
  const [service, nc] = [await connect(), await connect()];
  const name = subject();
  await answering(service, name);
  const numbers = Array.from({ length: 500 }, (_, n) => n);
  const answers = await Promise.all(numbers.map((n) => nc.request(name, String(n), { timeout: kWaitMs })));
  assert.deepEqual(answers.map((msg) => msg.string()), numbers.map((n) => `re:${n}`));
};

tests.request_many = async () => {
  const [a, b, nc] = [await connect(), await connect(), await connect()];
  const name = subject();
  await answering(a, name);
  await answering(b, name);
  const answers = [];
  for await (const msg of await nc.requestMany(name, "x", { strategy: "count", maxMessages: 2, maxWait: kWaitMs })) {
    answers.push(msg.string());
  }
  assert.deepEqual(answers, ["re:x", "re:x"]);
};

tests.no_responders = async () => {
  const nc = await connect();
  const name = subject();
  for (const noMux of [false, true]) {
    const started = Date.now();
    const error = await expectError(errors.RequestError, nc.request(name, "", { timeout: kWaitMs, noMux }));
    assert.ok(error.isNoResponders(), String(error));
    assert.ok(Date.now() - started < kWaitMs / 2, "no responders was not said, only waited for");
  }
  const inbox = createInbox();
  const got = [];
  nc.subscribe(inbox, { callback: (error, msg) => got.push(error ?? msg) });
  nc.publish(name, "", { reply: inbox });
  await nc.flush();
  await waitFor("503", () => got.length === 1);
  const code = got[0] instanceof Error ? got[0] instanceof errors.NoRespondersError : got[0].headers?.code === 503;
  assert.ok(code, `inbox got ${got[0]}`);
};

tests.headers = async () => {
  const [nc, other] = [await connect(), await connect()];
  const name = subject();
  const got = listen(other, name);
  await other.flush();
  const hdrs = headers();
  hdrs.append("Kind", "one");
  hdrs.append("Kind", "two");
  hdrs.set("X-Text", "a: b, c");
  nc.publish(name, "payload", { headers: hdrs });
  nc.publish(name, "", { headers: hdrs });
  nc.publish(name, "plain");
  await nc.flush();
  await other.flush();
  assert.deepEqual(got.map((msg) => msg.string()), ["payload", "", "plain"]);
  for (const msg of got.slice(0, 2)) {
    assert.deepEqual(msg.headers.values("Kind"), ["one", "two"]);
    assert.equal(msg.headers.get("X-Text"), "a: b, c");
  }
  assert.equal(got[2].headers, undefined);
  await answering(other, `${name}.service`);
  const answer = await nc.request(`${name}.service`, "x", { timeout: kWaitMs, headers: hdrs });
  assert.deepEqual([answer.string(), answer.headers.values("Kind")], ["re:x", ["one", "two"]]);
};

tests.drain = async () => {
  const [publisher, nc] = [await connect(), await connect()];
  const name = subject();
  const wanted = Array.from({ length: 200 }, (_, n) => String(n));
  const slowly = async (sub, got) => {
    for await (const msg of sub) {
      await sleep(1);
      got.push(msg.string());
    }
  };
  const burst = async () => {
    for (const payload of wanted) publisher.publish(name, payload);
    await publisher.flush();
  };
  const first = [];
  const sub = nc.subscribe(name);
  const firstDone = slowly(sub, first);
  await nc.flush();
  await burst();
  await sub.drain();
  await firstDone;
  assert.deepEqual(first, wanted);
  publisher.publish(name, "late");
  await publisher.flush();
  await nc.flush();
  assert.equal(first.length, 200);

  const second = [];
  const secondDone = slowly(nc.subscribe(name), second);
  await nc.flush();
  await burst();
  await nc.drain();
  await secondDone;
  assert.deepEqual(second, wanted);
  assert.ok(nc.isClosed());
  assert.throws(() => nc.publish(name, "late"), errors.ClosedConnectionError);
};

tests.auto_unsubscribe = async () => {
  const [publisher, nc] = [await connect(), await connect()];
  const name = subject();
  const early = listen(nc, name, { max: 5 });
  const late = listen(nc, name);
  await nc.flush();
  for (let n = 0; n < 3; n++) publisher.publish(name, String(n));
  await publisher.flush();
  await waitFor("three messages", () => late.length === 3);
  late.sub.unsubscribe(7); // three of the seven have come already
  await nc.flush();
  for (let n = 3; n < 20; n++) publisher.publish(name, String(n));
  await publisher.flush();
  await nc.flush();
  assert.deepEqual(early.map((msg) => msg.string()), ["0", "1", "2", "3", "4"]);
  assert.deepEqual(late.map((msg) => msg.string()), ["0", "1", "2", "3", "4", "5", "6"]);
  await waitFor("end of both subscriptions in /connz", async () =>
    (await shared.monitor(`/connz?cid=${nc.info.client_id}`)).connections[0].subscriptions === 0);
};

tests.max_payload_exact = async () => {
  const small = await start([], "max_payload: 65536");
  for (const [broker, size] of [[small, 65536], [shared, 1048576]]) {
    const nc = await connect({}, broker);
    assert.equal(nc.info.max_payload, size);
    const got = listen(nc, "js.big");
    const payload = randomBytes(size);
    nc.publish("js.big", payload);
    await nc.flush();
    await waitFor("message", () => got.length === 1);
    assert.ok(payload.equals(got[0].data));
  }
};

tests.max_payload_exceeded = async () => {
  const nc = await connect();
  assert.throws(() => nc.publish(subject(), new Uint8Array(nc.info.max_payload + 1)), errors.InvalidArgumentError);
  await nc.flush();
  // What the client would not send is refused by the broker too.
  const raw = await Raw.open(shared);
  raw.send(`PUB x ${nc.info.max_payload + 1}\r\n`);
  await raw.until("-ERR 'Maximum Payload Violation'\r\n");
  await waitFor("end of the connection", () => raw.ended);
};

tests.reconnect = async () => {
  const broker = await start();
  const [nc, publisher] = [await connect({}, broker), await connect({}, broker)];
  const got = listen(nc, "again.*");
  const limited = listen(nc, "limited", { max: 4 });
  nc.subscribe("service", { queue: "q", callback: (_, msg) => msg.respond("here") });
  await nc.flush();
  for (const name of ["again.a", "limited", "limited"]) publisher.publish(name, "before");
  await publisher.flush();
  await waitFor("first messages", () => got.length === 1 && limited.length === 2);
  let restarts = 0;
  for (const signal of ["KILL", "TERM"]) {
    await broker.restart({ signal });
    restarts++;
    await waitFor("reconnects", () => [nc, publisher].every((client) => client.heard("reconnect").length === restarts));
    await nc.flush();
    publisher.publish("again.b", signal);
    assert.equal((await publisher.request("service", "?", { timeout: kWaitMs })).string(), "here");
    await waitFor("message after the restart", () => got.at(-1).string() === signal);
  }
  // What is left of the allowance has moved to the new broker.
  for (let n = 0; n < 4; n++) publisher.publish("limited", "after");
  await publisher.flush();
  await nc.flush();
  assert.deepEqual(limited.map((msg) => msg.string()), ["before", "before", "after", "after"]);
  assert.deepEqual(got.map((msg) => msg.string()), ["before", "KILL", "TERM"]);
  assert.ok(nc.heard("disconnect").length >= 2);
};

tests.slow_consumer = async () => {
  const broker = await start([], 'max_pending: 4MB\nwrite_deadline: "2s"');
  const raw = await Raw.open(broker, { name: "never-reads" });
  raw.send("SUB flood 1\r\nPING\r\n");
  await waitFor("subscription", () => raw.heard.match(/PONG/g)?.length === 2);
  raw.socket.pause();
  const [nc, publisher] = [await connect({}, broker), await connect({}, broker)];
  let [sent, received] = [0, 0];
  nc.subscribe("flood", { callback: () => received++ });
  await nc.flush();
  const payload = new Uint8Array(65536);
  while ((await broker.monitor("/varz")).slow_consumers === 0) {
    assert.ok(sent < 8000, "half a gigabyte and nobody is too slow");
    // Bounded by what the healthy subscriber took, or it might be the slow one.
    for (let n = 0; n < 16; n++, sent++) publisher.publish("flood", payload);
    await publisher.flush();
    await waitFor("flood", () => received === sent);
  }
  assert.equal((await broker.monitor("/varz")).slow_consumers, 1);
  assert.equal(received, sent);
  assert.equal(nc.heard("disconnect").length + publisher.heard("disconnect").length, 0);
  raw.socket.resume();
  await waitFor("end of the slow connection", () => raw.ended);
};

async function roundTrip(nc) {
  const got = listen(nc, "x");
  nc.publish("x", "in");
  await nc.flush();
  await waitFor("message", () => got.length === 1);
}

tests.auth_user_pass = async () => {
  const broker = await start(["--user", "ada", "--pass", "s3cret"]);
  await roundTrip(await connect({ user: "ada", pass: "s3cret" }, broker));
  const hashed = await start([], `
    authorization {
      users = [
        # the bcrypt hash of "s3cret"
        { user: ada, password: "$2a$04$rAoi9GMFb7ZXkrnqnyhFi.0N.mWk8ZJt7nYN0sGlf./e7lE/SsG.S" }
        { user: bob, password: "plain" }
      ]
    }`);
  await roundTrip(await connect({ user: "ada", pass: "s3cret" }, hashed));
  await roundTrip(await connect({ user: "bob", pass: "plain" }, hashed));
  await expectError(errors.AuthorizationError, connect({ user: "ada", pass: "plain", reconnect: false }, hashed));
};

tests.auth_token = async () => {
  const broker = await start(["--auth", "t0ken"]);
  await roundTrip(await connect({ token: "t0ken" }, broker));
};

tests.auth_failure = async () => {
  for (const [args, attempts] of [
    [["--user", "ada", "--pass", "s3cret"], [{ user: "ada", pass: "wrong" }, { user: "eve", pass: "s3cret" }, {}]],
    [["--auth", "t0ken"], [{ token: "wrong" }, { user: "ada", pass: "t0ken" }, {}]],
  ]) {
    const broker = await start(args);
    for (const attempt of attempts) {
      const error = await expectError(errors.AuthorizationError, connect({ ...attempt, reconnect: false }, broker));
      assert.match(error.message, /authorization violation/i);
    }
    await waitFor("end of the refused connections in /varz", async () => (await broker.monitor("/varz")).connections === 0);
  }
};

tests.permissions_violation = async () => {
  const broker = await start([], `
    authorization {
      users = [
        { user: limited, password: p, permissions: { publish: ["open.>", "_INBOX.>"], subscribe: { deny: "secret.*" } } }
        { user: all, password: p }
      ]
    }`);
  const nc = await connect({ user: "limited", pass: "p" }, broker);
  const other = await connect({ user: "all", pass: "p" }, broker);
  const witness = listen(other, ">");
  await other.flush();
  nc.publish("closed.a", "no");
  await nc.flush();
  const denied = listen(nc, "secret.plan");
  const deniedQueue = listen(nc, "secret.queue", { queue: "q" });
  await nc.flush();
  await waitFor("violations", () => nc.heard("error").length === 3);
  const violations = nc.heard("error").map(({ error }) => error);
  for (const error of violations) assert.ok(error instanceof errors.PermissionViolationError, String(error));
  assert.deepEqual(violations.map((error) => [error.operation, error.subject, error.queue]), [
    ["publish", "closed.a", undefined], ["subscription", "secret.plan", undefined], ["subscription", "secret.queue", "q"]]);
  assert.ok(denied.failed instanceof errors.PermissionViolationError);
  assert.ok(deniedQueue.failed instanceof errors.PermissionViolationError);
  nc.publish("open.b", "yes");
  await nc.flush();
  await other.flush();
  assert.deepEqual(witness.map((msg) => msg.subject), ["open.b"]);
  assert.equal(nc.heard("disconnect").length, 0);
};

tests.large_payload = async () => {
  const [service, nc] = [await connect(), await connect()];
  const name = subject();
  service.subscribe(name, { callback: (_, msg) => msg.respond(msg.data) });
  await service.flush();
  for (const size of [1048576, 1048575, 65537, 1]) {
    const payload = randomBytes(size);
    const msg = await nc.request(name, payload, { timeout: kWaitMs });
    assert.ok(payload.equals(msg.data), `${size} bytes came back as ${msg.data.length}, changed`);
  }
};

tests.ordering_100k = async () => {
  const count = 100_000;
  const [publisher, subscriber] = [await connect(), await connect()];
  const name = subject();
  let expected = 0;
  let wrong = null;
  subscriber.subscribe(name, {
    callback: (_, msg) => {
      const number = Number(text(msg.data));
      if (number !== expected) wrong ??= `${number} came where ${expected} was due`;
      expected = number + 1;
    },
  });
  await subscriber.flush();
  for (let n = 0; n < count; n++) {
    publisher.publish(name, String(n));
    if (n % 10_000 === 0) await publisher.flush();
  }
  await publisher.flush();
  await waitFor("all messages", () => expected === count || wrong);
  assert.equal(wrong, null);
};

tests.flush_rtt = async () => {
  const [nc, other] = [await connect(), await connect()];
  const name = subject();
  const got = listen(other, name);
  await other.flush();
  for (let n = 1; n <= 50; n++) {
    nc.publish(name, "x");
    await nc.flush();
    // Whoever flushes after that has the message ahead of his own PONG.
    await other.flush();
    assert.equal(got.length, n);
  }
  for (let n = 0; n < 5; n++) {
    const rtt = await nc.rtt(); // whole milliseconds
    assert.ok(rtt >= 0 && rtt < 5000, `rtt ${rtt}`);
  }
};

tests.server_info = async () => {
  const [nc, other] = [await connect({ name: "named client" }), await connect()];
  assert.match(nc.info.version, /^\d+\.\d+\.\d+/);
  assert.ok(nc.protocol.features.require("2.9.0"), nc.info.version);
  assert.ok(nc.info.client_id > 0 && nc.info.client_id !== other.info.client_id);
  assert.match(nc.info.server_id, /^N[A-Z2-7]{55}$/);
  assert.equal(nc.getServer(), `${shared.host}:${shared.port}`);
  const { host, port, headers, max_payload, proto, client_ip } = nc.info;
  assert.deepEqual({ host, port, headers, max_payload, proto, client_ip },
    { host: shared.host, port: shared.port, headers: true, max_payload: 1048576, proto: 1, client_ip: shared.client_ip });
  const [connection] = (await shared.monitor(`/connz?cid=${nc.info.client_id}`)).connections;
  assert.deepEqual([connection.name, connection.lang], ["named client", "nats.js"]);
  const advertising = await start(["--client_advertise", "example.test:4333", "--name", "advertised"]);
  const { info } = await connect({}, advertising);
  assert.deepEqual([info.host, info.port, info.server_name], ["example.test", 4333, "advertised"]);
};

tests.lame_duck = async () => {
  const broker = await start([], 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"');
  const nc = await connect({ reconnect: false }, broker);
  await nc.flush();
  await broker.signal("USR2");
  await waitFor("lame duck notice", () => nc.heard("ldm").length === 1);
  const refused = await new Promise((resolve) => {
    const socket = net.connect(broker.port, broker.host);
    socket.on("connect", () => resolve(false)).on("error", () => resolve(true));
  });
  assert.ok(refused, "a lame duck took a new connection");
  await waitFor("end of the connection", () => nc.isClosed());
};

tests.pedantic_verbose = async () => {
  const nc = await connect({ verbose: true, pedantic: true });
  const name = subject();
  const got = listen(nc, name);
  for (let n = 0; n < 100; n++) nc.publish(name, String(n));
  await nc.flush();
  assert.deepEqual(got.map((msg) => Number(msg.string())), Array.from({ length: 100 }, (_, n) => n));
  assert.equal(nc.heard("error").length, 0);
};

tests.server_pings = async () => {
  const broker = await start([], 'ping_interval: "200ms"\nping_max: 2');
  const nc = await connect({}, broker);
  await sleep(2500); // several intervals in which only the broker's pings are on the wire
  await nc.flush();
  assert.equal(nc.heard("disconnect").length, 0);
  const raw = await Raw.open(broker);
  await raw.until("-ERR 'Stale Connection'\r\n"); // this one never answers
  await waitFor("end of the stale connection", () => raw.ended);
};

async function secure(more = "") {
  const broker = await start([], `tls { @tls${more} }`);
  broker.url = broker.url.replace("nats://", "tls://");
  return broker;
}

const certificate = () => ({ certFile: process.env.CLIENTS_CERT, keyFile: process.env.CLIENTS_KEY });

async function talk(nc, other) {
  const name = subject();
  const got = listen(other, name);
  const service = other.subscribe(`${name}.service`, { callback: (_, msg) => msg.respond(`re:${msg.string()}`) });
  await other.flush();
  const payloads = [0, 5, 16384, nc.info.max_payload].map((size) => randomBytes(size));
  for (const payload of payloads) nc.publish(name, payload);
  await waitFor("messages", () => got.length === payloads.length);
  got.forEach((msg, n) => assert.ok(payloads[n].equals(msg.data), `payload ${n}`));
  assert.equal((await nc.request(`${name}.service`, "?", { timeout: kWaitMs })).string(), "re:?");
  service.unsubscribe();
}

async function talkOverTls(broker, tls) {
  tls = { caFile: process.env.CLIENTS_CA, ...tls };
  const [nc, other] = [await connect({ tls }, broker), await connect({ tls }, broker)];
  await talk(nc, other);
  const rows = (await broker.monitor("/connz")).connections;
  assert.deepEqual(rows.map((row) => row.tls_version), ["1.3", "1.3"]);
  await broker.restart();
  await waitFor("reconnects", () => [nc, other].every((client) => client.heard("reconnect").length === 1));
  await talk(nc, other);
  await nc.close();
  await other.close();
  broker.url = broker.url.replace("nats://", "tls://");
}

async function refused(broker, tls) {
  await assert.rejects(dial({ servers: broker.url, tls, timeout: kWaitMs, reconnect: false, maxReconnectAttempts: 0 }));
}

tests.tls = async () => {
  const broker = await secure();
  await talkOverTls(broker, {});
  await refused(broker, {});
};

tests.tls_verify = async () => {
  const broker = await secure(", verify: true");
  await talkOverTls(broker, certificate());
  await refused(broker, { caFile: process.env.CLIENTS_CA });
};

tests.tls_first = async () => {
  const broker = await secure(", handshake_first: true");
  await talkOverTls(broker, { handshakeFirst: true });
};

async function main() {
  const only = (process.env.CLIENTS_ONLY ?? "").split(",").filter((name) => name);
  const chosen = Object.entries(tests).filter(([name]) => only.length === 0 || only.includes(name));
  console.log(`plan ${chosen.length}`);
  shared = await Broker.start();
  let failed = 0;
  for (const [name, run] of chosen) {
    const started = Date.now();
    let timer;
    const limit = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done after ${kTestLimitMs} ms`)), kTestLimitMs);
    });
    try {
      await Promise.race([run(), limit]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed++;
      console.error(error);
      console.log(`FAIL ${name}: ${`${error.name}: ${error.message}`.replace(/\s+/g, " ").slice(0, 400)}`);
    }
    clearTimeout(timer);
    for (const thing of opened.reverse()) {
      await Promise.race([Promise.resolve(thing.close()).catch(() => {}), sleep(5000)]);
    }
    opened = [];
    console.log(`# ${name} took ${Date.now() - started} ms`);
  }
  await shared.stop();
  process.exit(failed ? 1 : 0);
}

await main();
