import assert from "node:assert/strict";
import { test } from "node:test";

import { stage } from "./kit.mjs";

const it = stage();

test("two tabs chat, and see the same", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "duo");
  const bob = await (await it.tab()).enter(it.proxy.origin, "bob", "duo");
  await alice.say("hello");
  await bob.sees("hello");
  await bob.say("hello yourself", "how are you?");
  await alice.say("fine\nthank you");
  for (const tab of [alice, bob]) {
    await tab.sees("how are you?");
    await tab.sees("thank you");
    await it.check(tab, "duo", "alice");
    assert.equal(await tab.count("#pending .message"), 0);
  }
});

test("text is text: markup is shown, not run", async () => {
  const nasty = [
    `<img src=x onerror="document.title='owned'">`,
    `<script>document.title='owned'</script>`,
    `"><svg onload=alert(1)>`,
    `javascript:alert(1)`,
    "{{constructor.constructor('alert(1)')()}}",
    "\u202eright to left\u202c, combining e\u0301, \u{1f600}",
  ];
  await it.server.send("mallory", "xss", ...nasty);
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "xss");
  await alice.showAll();
  assert.deepEqual((await alice.messages()).map((m) => m[2]), nasty);
  assert.equal(await alice.count("#log :is(img, script, svg)"), 0);
  assert.notEqual(await alice.page.title(), "owned");
  await it.check(alice, "xss", "alice");
});

test("whoever types elsewhere while the first room is shown goes on typing there", async () => {
  const { page } = await it.tab();
  await page.goto(it.proxy.origin);
  await page.fill("#name", "alice");
  await page.press("#name", "Enter");
  await page.focus("#room");
  await page.waitForSelector(`[aria-current="true"]`); // alice is in rooms of earlier tests
  assert.equal(await page.evaluate(() => document.activeElement.id), "room");
  await page.press("#room", "x");
  assert.equal(await page.inputValue("#room"), "x");
});

test("a reload shows what was shown, and what came meanwhile", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "reload");
  for (let round = 1; round <= 5; round++) {
    await alice.say(`alice ${round}`);
    if (round % 2) await alice.sees(`alice ${round}`); // Else it may be under way.
    const reloaded = alice.page.reload();
    await it.server.send("bob", "reload", `bob ${round}`);
    await reloaded;
    await alice.live();
    await alice.sees(`alice ${round}`);
    await alice.sees(`bob ${round}`);
    await it.check(alice, "reload", "bob");
  }
});

test("Disconnect and Connect: what was missed is marked, what was written is sent", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "toggle");
  await alice.say("before");
  await alice.sees("before");
  await alice.toggle();
  await alice.state("idle");
  await it.server.send("bob", "toggle", "meanwhile 1", "meanwhile 2");
  await alice.say("written offline");
  await alice.page.reload(); // Connects.
  await alice.live();
  await alice.sees("written offline");
  assert.deepEqual(await alice.replayed(), ["meanwhile 1", "meanwhile 2"]);
  await it.check(alice, "toggle", "bob");
});

test("seven tabs at once: each is live, and the page still loads", async () => {
  const tabs = [];
  for (let i = 1; i <= 7; i++) tabs.push(await (await it.tab()).enter(it.proxy.origin, `user${i}`, "crowd"));
  for (const [i, tab] of tabs.entries()) await tab.say(`from ${i + 1}`);
  for (const tab of tabs) {
    for (let i = 1; i <= 7; i++) await tab.sees(`from ${i}`);
    const shown = await tab.messages();
    assert.equal(shown.length, 7);
    assert.equal(new Set(shown.map((m) => m[0])).size, 7);
  }
});

test("a duplicated tab forks: both go on, nothing is lost or repeated", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "fork");
  await alice.say("before");
  await alice.sees("before");
  const opened = it.context.waitForEvent("page");
  await alice.page.evaluate(() => window.open(location.href)); // Copies sessionStorage.
  const copy = await it.tab(await opened);
  await copy.live();
  await copy.sees("before");
  assert.equal(await alice.page.locator("#state").getAttribute("data-state"), "live");
  await alice.say("from the first");
  await copy.say("from the copy");
  for (const tab of [alice, copy]) {
    await tab.sees("from the first");
    await tab.sees("from the copy");
    await it.check(tab, "fork", "alice");
  }
  assert.notEqual(await alice.sessionId(), await copy.sessionId());
  await copy.page.reload();
  await copy.live();
  await it.check(copy, "fork", "alice");
});

test("history: a room's earlier messages come on demand, once each", async () => {
  const texts = Array.from({ length: 230 }, (_, i) => `m${i + 1}.`);
  await it.server.sendMany("bob", "history", texts);
  const carol = await (await it.tab()).enter(it.proxy.origin, "carol", "history");
  assert.ok((await carol.messages()).length < texts.length, "not everything comes by itself");
  await carol.showAll();
  await it.check(carol, "history", "bob");
});

test("R34: a room that the server cannot read just now: said in it, in plain words, until it is back", async () => {
  const tab = await it.tab();
  const { page } = tab;
  let socket;
  await page.routeWebSocket(/Connect$/, (route) => {
    socket = route;
    route.connectToServer();
  });
  const alice = await tab.enter(it.proxy.origin, "alice", "sick");
  await alice.join("well");
  await alice.join("sick");
  const note = page.locator("#unavailable");
  assert.ok(await note.isHidden());
  const name = message(1, Buffer.from("sick"));
  inject(socket, message(15, name, message(2, Buffer.from("ROOM_UNAVAILABLE"))));
  await note.filter({ hasText: "The server cannot read this room just now." }).waitFor();
  assert.equal(await alice.state("live").then((state) => state.textContent()), "Live");
  await page.click('[data-room="well"]');
  await note.waitFor({ state: "hidden" });
  await page.click('[data-room="sick"]');
  await note.waitFor();
  inject(socket, message(2, message(1, name))); // Its RoomState.
  await note.waitFor({ state: "hidden" });
  await alice.say("back");
  await alice.sees("back");
  await it.check(alice, "sick", "alice");
});

/** A field of a protobuf message, with what is in it: less than 128 bytes. */
function message(field, ...parts) {
  const bytes = Buffer.concat(parts);
  return Buffer.from([(field << 3) | 2, bytes.length, ...bytes]);
}

/** Sends a page a frame that its server has not sent. */
function inject(socket, bytes) {
  socket.send(Buffer.from([0, 0, 0, 0, bytes.length, ...bytes]));
}
