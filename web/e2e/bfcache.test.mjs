import assert from "node:assert/strict";
import { test } from "node:test";

import { stage } from "./kit.mjs";

const it = stage({ bfcache: true });

test("a page that the browser put away comes back where it was", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "away");
  await alice.say("before");
  await alice.sees("before");
  await alice.page.evaluate(() => (window.mark = "the same document"));
  await alice.page.goto("about:blank");
  const sessions = await it.server.command("alice", "sessions", "--json");
  assert.ok(!/"attached":true/.test(sessions), "a page that was left holds no stream");
  await it.server.send("bob", "away", "meanwhile");
  await alice.page.goBack({ waitUntil: "commit" }); // Nothing is loaded.
  await alice.live();
  assert.equal(await alice.page.evaluate(() => window.mark), "the same document");
  await alice.sees("meanwhile");
  await it.check(alice, "away", "bob");
});
