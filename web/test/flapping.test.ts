import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";
import { seeded } from "./fake-env";
import { checkContinuous, world } from "./harness";
import type { Page } from "./harness";

/** Events a second, how long the link is watched, and how long an attach takes. */
const rate = 200;
const watchedMs = 40_000;
const attachMs = 100;
const tick = 25;

/** How long a page that is waiting has yet to wait. */
function waitOf(page: Page, now: number): number {
  return (page.session.state as { retryAt: number }).retryAt - now;
}

/** A link that is cut every so often, while a room is busy. */
async function flap(everyMs: number, seed: number): Promise<{ away: number; behind: number }> {
  const { world: w, server, page } = world(seeded(seed));
  server.automatic = false;
  const alice = await page().connect();
  let dialled = w.time;
  let links = server.links.length;
  let [away, behind, next] = [0, 0, w.time + everyMs];
  const end = w.time + watchedMs;
  while (w.time < end) {
    for (let i = 0; i < (rate * tick) / 1000; i++) server.publish("lobby", "bob", "hello");
    await w.advance(tick);
    if (server.links.length > links) [links, dialled] = [server.links.length, w.time];
    // The network takes its time to carry the first events.
    if (w.time - dialled >= attachMs) server.last.deliver();
    const { name } = alice.session.state;
    const carried = (name === "live" || name === "replaying") && !server.last.closed && w.time - dialled >= attachMs;
    if (!carried) away += tick;
    behind = Math.max(behind, Number(server.room("lobby").head - alice.room().place.offset));
    if (w.time >= next) {
      server.last.lose();
      next += everyMs;
    }
  }
  checkContinuous(alice.room());
  return { away: away / watchedMs, behind };
}

test("a link that is cut again and again is not punished: away and behind are bounded", async () => {
  // By cut interval: at most so much of the time away, on average over seeds.
  // A wait is a twentieth of a stream's life on average and a tenth at most, and
  // 500 ms at the very most; then the attach itself.
  const bounds = new Map([[1_000, 0.18], [2_000, 0.12], [4_000, 0.1], [8_000, 0.05]]);
  for (const [every, bound] of bounds) {
    const runs = [];
    for (let seed = 1; seed <= 2; seed++) runs.push(await flap(every, seed));
    const away = runs.reduce((sum, run) => sum + run.away, 0) / runs.length;
    const behind = Math.max(...runs.map((run) => run.behind));
    assert.ok(away <= bound, `cut every ${every} ms: away ${away} of the time`);
    assert.ok(behind <= ((500 + attachMs) / 1000) * rate + 20, `cut every ${every} ms: ${behind} events behind`);
  }
});

test("a quiet link that is cut every four seconds is not punished either", async () => {
  const { world: w, server, page } = world(() => 0.999);
  const alice = await page().connect();
  for (let i = 0; i < 10; i++) {
    await w.advance(4_000);
    assert.equal(alice.state, "live");
    server.crash();
    await w.advance(510);
    assert.equal(alice.state, "live", `cut ${i}`);
  }
});

test("R33: whatever spread the server asks for, a client is away for a tenth at most of how long its stream lived", async () => {
  for (const lives of [500, 1_000, 2_000, 4_000, 8_000]) {
    const { world: w, server, page } = world(() => 0.999);
    server.resumeHintMs = 5_000;
    const alice = await page().connect();
    for (let i = 0; i < 5; i++) {
      await w.advance(lives);
      server.crash();
      await w.advance(0);
      const wait = waitOf(alice, w.time);
      assert.ok(wait > 0 && wait <= lives / 10, `${wait} ms after a stream of ${lives} ms`);
      await w.advance(wait);
      assert.equal(alice.state, "live");
    }
  }
});

test("R33: a stream that lived and brought nothing at all is a failed attempt", async () => {
  const { world: w, server, page } = world(() => 0.999);
  server.silent = true;
  const alice = await page().connect();
  for (const bound of [500, 1000, 2000, 4000]) {
    await w.advance(2_500);
    server.crash();
    await w.advance(0);
    assert.ok(waitOf(alice, w.time) > bound * 0.9, `${waitOf(alice, w.time)} of ${bound}`);
    await w.advance(waitOf(alice, w.time));
  }
});

test("a server that welcomes and drops is left alone more and more; one event that came changes that", async () => {
  const { world: w, server, page } = world(() => 0.999);
  const alice = await page().connect();
  const wait = () => waitOf(alice, w.time);
  for (const bound of [500, 1000, 2000, 4000]) {
    server.last.drop(new ConnectError("overloaded", Code.Unavailable));
    await w.advance(0);
    assert.ok(wait() > bound * 0.9, `${wait()} of ${bound}`);
    await w.advance(wait());
  }
  server.publish("lobby", "bob", "one");
  await w.advance(0);
  server.crash();
  await w.advance(0);
  assert.ok(wait() < 500);
});

test("a server that brings one event and drops, again and again, is not asked in a busy loop", async () => {
  const { world: w, server, page } = world();
  server.resumeHintMs = 1_000; // As the Welcome's; a real one's may be a millisecond.
  const alice = await page().connect();
  for (let i = 0; i < 10; i++) {
    server.publish("lobby", "bob", "one");
    await w.advance(0);
    server.crash();
    await w.advance(0);
    assert.equal(waitOf(alice, w.time), 250, "jitter, not the hint");
    await w.advance(250);
  }
});
