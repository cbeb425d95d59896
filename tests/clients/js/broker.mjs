// Brokers of the control port, and a bare socket for what no client would do.

import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export const kWaitMs = 30_000;

async function call(path, body) {
  const response = await fetch(process.env.CLIENTS_CONTROL + path, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  if (response.status !== 200) throw new Error(answer.error);
  return answer;
}

export class Broker {
  static async start(args = [], config = undefined) {
    return Object.assign(new Broker(), await call("/start", { args, config }));
  }

  async restart(how = {}) {
    Object.assign(this, await call("/restart", { id: this.id, ...how }));
  }

  async stop(signal = "TERM") {
    return (await call("/stop", { id: this.id, signal })).exit_code;
  }

  async signal(name) {
    await call("/signal", { id: this.id, signal: name });
  }

  async monitor(path) {
    return (await fetch(this.http + path)).json();
  }
}

/** A connection that says exactly what a test wants and keeps what it hears while `listening`. */
export class Raw {
  static async open(broker, options = {}) {
    const raw = new Raw();
    raw.heard = "";
    raw.ended = false;
    raw.socket = net.connect(broker.port, broker.host);
    raw.socket.on("data", (data) => raw.heard += data.toString("latin1"));
    raw.socket.on("error", () => {});
    raw.socket.on("close", () => raw.ended = true);
    const connect = { verbose: false, pedantic: false, protocol: 1, headers: true, ...options };
    raw.send(`CONNECT ${JSON.stringify(connect)}\r\nPING\r\n`);
    await raw.until("PONG\r\n");
    return raw;
  }

  send(text) {
    this.socket.write(text);
  }

  async until(text) {
    await waitFor(JSON.stringify(text), () => this.heard.includes(text));
  }

  close() {
    this.socket.destroy();
  }
}

/** Until `condition`, plain or async, gives something true; that is returned. */
export async function waitFor(what, condition) {
  const deadline = Date.now() + kWaitMs;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (Date.now() > deadline) throw new Error(`no ${what} within ${kWaitMs} ms`);
    await sleep(10);
  }
}
