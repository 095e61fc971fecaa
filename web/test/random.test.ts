import { ConnectError, Code } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test } from "node:test";

import type { FakeRoom } from "./fake-server";
import { checkContinuous, events, Page, world } from "./harness";
import { seeded } from "./fake-env";
import type { FakeServer } from "./fake-server";
import type { FakeWorld } from "./fake-env";

/** Everything that can happen to a tab, in some order. */
class Story {
  page: Page;
  backup: FakeRoom["log"] | undefined;
  /** Texts the tab has written, in order. */
  readonly written: string[] = [];
  #texts = 0;

  constructor(
    readonly w: FakeWorld,
    readonly server: FakeServer,
    page: Page,
    readonly random: () => number,
  ) {
    this.page = page;
  }

  readonly steps: [number, () => unknown][] = [
    [30, () => this.server.publish("lobby", "bob", `b${++this.#texts}`)],
    [15, () => this.write()],
    [10, () => this.server.last.deliver(Math.floor(this.random() * 3))],
    [8, () => (this.server.automatic = !this.server.automatic)],
    [6, () => this.server.last.lose()],
    [4, () => this.writeAndLose(0)],
    [4, () => this.writeAndLose(2)],
    [4, () => (this.server.refuse = this.server.refuse ? undefined : () => new ConnectError("down", Code.Unavailable))],
    [4, () => this.server.restart()],
    [4, () => this.reload(false)],
    [4, () => this.reload(true)],
    [3, () => this.server.last.push({ case: "drain", value: { moveAfter: { seconds: 1n }, closesIn: { seconds: 9n } } })],
    [3, () => this.page.session.disconnect()],
    [5, () => this.page.connect()],
    [3, () => this.page.session.suspend()],
    [3, () => this.page.session.wake()],
    [2, () => this.server.sessions.clear()],
    [2, () => this.w.jump(this.random() * 7_200_000)],
    [3, () => this.page.session.check()],
    [20, () => this.w.advance(this.random() * 3_000)],
  ];

  async step(): Promise<void> {
    const total = this.steps.reduce((sum, [weight]) => sum + weight, 0);
    let at = this.random() * total;
    for (const [weight, fn] of this.steps) {
      at -= weight;
      if (at > 0) continue;
      await fn();
      break;
    }
    const log = this.page.session.room("lobby");
    if (log) checkContinuous(log);
  }

  write(): void {
    if (!this.page.session.room("lobby")) return;
    const text = `a${++this.#texts}`;
    this.written.push(text);
    this.page.session.send("lobby", text);
  }

  /** The network is cut a moment after a message was sent. */
  async writeAndLose(turns: number): Promise<void> {
    this.write();
    for (let i = 0; i < turns; i++) await Promise.resolve();
    this.server.last.lose();
  }

  async reload(crash: boolean): Promise<void> {
    this.page = await this.page.reload({ crash });
  }

  /** Lets the trouble end. */
  async calm(): Promise<void> {
    this.server.refuse = undefined;
    this.server.automatic = true;
    this.server.last.deliver();
    await this.w.advance(60_000);
    await this.page.connect();
    await this.w.advance(60_000);
  }
}

for (let seed = 1; seed <= 60; seed++) {
  test(`P2, P4: whatever happens, the lines are the log (seed ${seed})`, async () => {
    const random = seeded(seed);
    const { world: w, server, page } = world(random);
    const story = new Story(w, server, await page().connect(), random);
    for (let i = 0; i < 120; i++) await story.step();
    await story.calm();
    const shown = events(story.page.room());
    checkContinuous(story.page.room());
    const logged = server.room("lobby").log.map(({ event }) => [event.offset, event.body.value]);
    const expected = logged.slice(-shown.length).map(([offset, value]) => [offset, (value as { text: string }).text]);
    assert.deepEqual(shown.map((e) => [e.offset, e.text]), expected);
    // A new session after a lost one begins with the newest 50.
    assert.ok(shown.length >= Math.min(50, logged.length), `${shown.length} of ${logged.length} lines`);
    const mine = server.room("lobby").log.filter(({ event }) => event.sender === "alice");
    const texts = mine.map(({ event }) => (event.body.value as { text: string }).text);
    assert.deepEqual(texts, story.written, "each message once, in order");
    assert.deepEqual(story.page.session.pending("lobby"), []);
  });
}

for (let seed = 1; seed <= 30; seed++) {
  test(`P2: the same, with the server set back to an old copy now and then (seed ${seed})`, async () => {
    const random = seeded(1000 + seed);
    const { world: w, server, page } = world(random);
    const story = new Story(w, server, await page().connect(), random);
    for (let i = 0; i < 120; i++) {
      if (random() < 0.03) story.backup = [...server.room("lobby").log];
      if (random() < 0.03 && story.backup) {
        server.restart();
        server.room("lobby").log = [...story.backup];
      }
      await story.step();
    }
    await story.calm();
    const shown = events(story.page.room());
    checkContinuous(story.page.room());
    const { log } = server.room("lobby");
    const expected = log.slice(-shown.length).map(({ event }) => [event.offset, (event.body.value as { text: string }).text]);
    assert.deepEqual(shown.map((e) => [e.offset, e.text]), expected);
  });
}
