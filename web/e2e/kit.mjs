// What the browser tests share: a real server, a proxy that loses the
// network, a real browser, and the checks.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";

import { build } from "esbuild";
import { chromium } from "playwright-core";

import { common } from "../esbuild.mjs";

const run = promisify(execFile);
const repository = join(dirname(fileURLToPath(import.meta.url)), "../..");
const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--host-resolver-rules=MAP localhost 127.0.0.2",
];
const proxyAddress = "127.0.0.2";
/** How long anything may take before the test fails. */
const patience = 30_000;

/** The reprise command, on a data directory of its own. */
export class Server {
  #process;
  #grpc = "127.0.0.1:0";
  /** Where browsers find it; stays the same over restarts. */
  http = "127.0.0.1:0";

  constructor(binary, folder) {
    this.binary = binary;
    this.folder = folder;
    this.data = join(folder, "data");
  }

  async start(...args) {
    const all = ["serve", "--json", "--addr", this.#grpc, "--http", this.http, "--dir", this.data, ...args];
    this.#process = spawn(this.binary, all, { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = await once(createInterface(this.#process.stdout), "line");
    const { grpc, http } = JSON.parse(line);
    this.#grpc = grpc;
    this.http = http.replace("http://", "");
  }

  /** Ends the process without a chance to say anything. */
  async kill(signal = "SIGKILL") {
    if (!this.#process || this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = once(this.#process, "exit");
    this.#process.kill(signal);
    await gone;
  }

  /** Runs another subcommand as user. */
  async command(user, ...args) {
    const { stdout } = await run(this.binary, [...args, "--server", this.#grpc, "--user", user]);
    return stdout;
  }

  /** Another client posts messages. */
  async send(user, room, ...texts) {
    for (const text of texts) await this.command(user, "send", room, text);
  }

  /** Posts many messages from one program. */
  async sendMany(user, room, texts) {
    const args = ["chat", room, "--server", this.#grpc, "--user", user];
    const env = { ...process.env, XDG_STATE_HOME: this.folder }; // No test writes where a person's programs keep their places.
    const child = spawn(this.binary, args, { stdio: ["pipe", "ignore", "inherit"], env });
    child.stdin.end(texts.join("\n") + "\n");
    const [code] = await once(child, "exit");
    assert.equal(code, 0, "reprise chat");
  }

  /** The stored messages of a room: [offset, sender, text]. */
  async messages(user, room) {
    const lines = await this.command(user, "tail", room, "--after", "0", "--json");
    const events = lines.trim().split("\n").map((line) => JSON.parse(line));
    return events.filter((e) => e.type === "message").map((e) => [Number(e.offset), e.sender, e.text]);
  }

  backup() {
    return cp(this.data, join(this.folder, "backup"), { recursive: true });
  }

  async restore() {
    await rm(this.data, { recursive: true });
    await cp(join(this.folder, "backup"), this.data, { recursive: true });
  }
}

/** A TCP proxy in front of the server, to lose the network in. */
export class Proxy {
  /** pass, refuse (connections are reset), blackhole (bytes go nowhere), or
   * nosocket (websockets are answered with 403). */
  mode = "pass";
  #server;
  #pairs = new Set();

  constructor(target) {
    this.target = target;
  }

  async start() {
    // The server answers to exact hosts only, so the proxy has its name and
    // port, on another address: see --host-resolver-rules.
    const { port } = new URL(`http://${this.target()}`);
    this.#server = net.createServer((client) => this.#connect(client));
    this.#server.listen(Number(port), proxyAddress);
    await once(this.#server, "listening");
    this.origin = `http://localhost:${port}`;
  }

  /** Cuts all connections and goes on in a mode. */
  cut(mode = this.mode) {
    this.mode = mode;
    for (const socket of this.#pairs) socket.destroy();
  }

  stop() {
    this.cut("refuse");
    this.#server.close();
  }

  #connect(client) {
    if (this.mode === "refuse") return client.destroy();
    const [host, port] = this.target().split(":");
    const server = net.connect(Number(port), host);
    for (const socket of [client, server]) {
      this.#pairs.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#pairs.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    client.on("data", (bytes) => {
      if (this.mode === "nosocket" && /upgrade: websocket/i.test(bytes)) {
        client.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      } else if (this.mode !== "blackhole") server.write(bytes);
    });
    server.on("data", (bytes) => this.mode !== "blackhole" && client.write(bytes));
  }
}

/** One tab of the page, as one user. */
export class Tab {
  problems = [];

  constructor(page) {
    this.page = page;
    page.setDefaultTimeout(patience);
    page.on("pageerror", (error) => this.problems.push(error.message));
    page.on("console", (message) => {
      if (/Content Security Policy|Refused to/.test(message.text())) this.problems.push(message.text());
    });
  }

  async enter(origin, name, room) {
    await this.page.goto(origin);
    await this.page.fill("#name", name);
    await this.page.press("#name", "Enter");
    await this.live();
    if (room) await this.join(room);
    return this;
  }

  async join(room) {
    await this.page.fill("#room", room);
    await this.page.press("#room", "Enter");
    await this.page.waitForSelector(`[data-room="${room}"][aria-current="true"]`);
    await this.page.waitForSelector("#text:enabled");
  }

  state(name) {
    return this.page.waitForSelector(`#state[data-state="${name}"]`);
  }

  live() {
    return this.state("live");
  }

  async say(...texts) {
    for (const text of texts) {
      await this.page.fill("#text", text);
      await this.page.press("#text", "Enter");
    }
  }

  /** Waits until a message is shown (as an event, not as pending). */
  sees(text) {
    return this.page.locator("#log .message .text", { hasText: text }).first().waitFor();
  }

  toggle() {
    return this.page.click("#toggle");
  }

  /** Fetches a room's history to its beginning. */
  async showAll() {
    const done = () => {
      const earlier = document.querySelector("#earlier");
      const first = document.querySelector("#log [data-offset]");
      return first && (earlier.hidden || Number(first.dataset.offset));
    };
    for (;;) {
      const at = await this.page.waitForFunction(done).then((handle) => handle.jsonValue());
      if (at === true) return;
      await this.page.click("#earlier");
      await this.page.waitForFunction((at) => {
        const first = document.querySelector("#log [data-offset]");
        return Number(first.dataset.offset) < at || document.querySelector("#earlier").hidden;
      }, at);
    }
  }

  /** The messages shown: [offset, sender, text]. */
  messages() {
    return this.page.$$eval("#log .message", (items) =>
      items.map((item) => [
        Number(item.dataset.offset),
        item.querySelector(".sender").textContent,
        item.querySelector(".text").textContent,
      ]),
    );
  }

  /** Texts of the messages that are marked as replayed. */
  replayed() {
    return this.page.$$eval("#log .message.replayed .text", (items) => items.map((item) => item.textContent));
  }

  count(selector) {
    return this.page.locator(selector).count();
  }

  sessionId() {
    return this.page.evaluate(() => JSON.parse(sessionStorage.getItem("reprise/1/session")).id);
  }
}

/** The SDK for Node: see client.ts. */
export async function sdk() {
  const folder = await mkdtemp(join(tmpdir(), "reprise-e2e-sdk-"));
  const outfile = join(folder, "client.mjs");
  try {
    await build({ ...common, entryPoints: ["e2e/client.ts"], outfile, platform: "node", target: "node20", sourcemap: "inline", write: true });
    return await import(pathToFileURL(outfile).href);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * Sets up a server behind a proxy and a browser for the tests of one file. The
 * result's fields are there once the tests run.
 */
export function stage({ bfcache = false } = {}) {
  const it = { tabs: [] };
  before(async () => {
    it.folder = await mkdtemp(join(tmpdir(), "reprise-e2e-"));
    const binary = process.env.REPRISE_BIN ?? join(it.folder, "reprise");
    if (!process.env.REPRISE_BIN) await run("go", ["build", "-o", binary, "./cmd/reprise"], { cwd: repository });
    it.server = new Server(binary, it.folder);
    await it.server.start();
    it.proxy = new Proxy(() => it.server.http);
    await it.proxy.start();
    it.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: flags,
      ...(bfcache && { ignoreDefaultArgs: ["--disable-back-forward-cache"] }),
    });
    it.context = await it.browser.newContext();
  });
  after(async () => {
    await it.browser?.close();
    it.proxy?.stop();
    await it.server?.kill();
    await rm(it.folder, { recursive: true, force: true });
  });
  // Tabs share a browser's six connections to a host where they have to stream
  // by fetch: none outlives its test.
  afterEach(async () => {
    for (const tab of it.tabs.splice(0)) await tab.page.close();
  });
  /** A tab of its own, or one for a page that has opened by itself. */
  it.tab = async (page) => {
    const tab = new Tab(page ?? (await it.context.newPage()));
    it.tabs.push(tab);
    return tab;
  };
  /** The page shows exactly the stored messages, once each, in order. */
  it.check = async (tab, room, user = "auditor") => {
    const stored = await it.server.messages(user, room);
    assert.deepEqual(await tab.messages(), stored);
    assert.deepEqual(tab.problems, []);
    assert.equal(await tab.count("#notices .notice"), 0);
  };
  return it;
}
