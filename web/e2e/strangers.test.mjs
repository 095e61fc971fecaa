// What people meet who are new here, or have bad luck.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { sdk, Server, stage } from "./kit.mjs";

const it = stage();

/** Another server beside the stage's, with flags of its own; browsers find it on its own address. */
async function serve(...flags) {
  const folder = await mkdtemp(join(tmpdir(), "reprise-e2e-"));
  const server = new Server(it.server.binary, folder);
  await server.start(...flags);
  const stop = async () => {
    await server.kill();
    await rm(folder, { recursive: true, force: true });
  };
  return { server, origin: `http://${server.http}`, stop };
}

test("names of all kinds: people and rooms are called what they are called", async () => {
  const names = ["josé", "花子", "мария", "مريم", "auth0|abc", "alice@example.com", "a%41", "o'neill", "x".repeat(128)];
  const bob = await (await it.tab()).enter(it.proxy.origin, "bob", "tower-of-babel");
  for (const name of names) {
    const tab = await (await it.tab()).enter(it.proxy.origin, name, "tower-of-babel");
    await tab.say(`I am ${name}`);
    await bob.sees(`I am ${name}`);
    await tab.join(name);
    await tab.say("hello");
    await tab.sees("hello");
    await tab.page.reload();
    await tab.live();
    await tab.sees("hello");
    await tab.page.close();
  }
  assert.deepEqual((await bob.messages()).map((m) => m[1]), names);
  await it.check(bob, "tower-of-babel", "bob");
});

test("a name typed with combining marks is the same name", async () => {
  const tab = await (await it.tab()).enter(it.proxy.origin, "jose\u0301", "marks");
  await tab.say("hello");
  await tab.sees("hello");
  assert.deepEqual((await it.server.messages("josé", "marks")).map((m) => m.slice(1)), [["josé", "hello"]]);
});

test("a name that is none: said at once, at the field", async () => {
  const { page } = await it.tab();
  await page.goto(it.proxy.origin);
  const wrong = () => page.$eval("#name", (input) => input.validationMessage);
  for (const [name, why] of [["two words", /spaces/], ["é".repeat(65), /at most 128 bytes/], ["   ", /empty/]]) {
    await page.fill("#name", name);
    await page.press("#name", "Enter");
    assert.match(await wrong(), why);
    assert.ok(await page.isHidden("#chat"));
  }
  await page.fill("#name", "fine");
  assert.equal(await wrong(), "", "correcting it takes the message away");
  await page.press("#name", "Enter");
  await page.waitForSelector('#state[data-state="live"]');
  const room = () => page.$eval("#room", (input) => input.validationMessage);
  await page.fill("#room", "two words");
  await page.press("#room", "Enter");
  assert.match(await room(), /spaces/);
});

test("a name that only the server refuses: said at once, with what to do", async () => {
  const { page } = await it.tab();
  await page.goto(it.proxy.origin);
  await page.fill("#name", "ａｌｉｃｅ"); // Fullwidth: looks like alice, and is not in the server's form.
  await page.press("#name", "Enter");
  await page.waitForSelector('#state[data-state="closed"]');
  assert.match(await page.textContent("#banner-text"), /does not take “ａｌｉｃｅ” for a name.*Sign out/);
  await page.click("#sign-out");
  await page.fill("#name", "alice");
  await page.press("#name", "Enter");
  await page.waitForSelector('#state[data-state="live"]');
});

test("a room's name that only the server refuses is told, and nothing hangs", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "plain");
  await alice.page.fill("#room", "ｌｏｂｂｙ");
  await alice.page.press("#room", "Enter");
  await alice.page.waitForSelector("#notices .notice");
  await alice.say("still here");
  await alice.sees("still here");
});

test("pastes: too much is refused and stays in the field, all that fits is sent", async () => {
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "pastes");
  const { page } = alice;
  const put = (text) => page.$eval("#text", (input, text) => (input.value = text), text);
  for (const [text, why] of [["x".repeat(1_500_000), /at most 65536 bytes/], ["é".repeat(32_769), /has 65538/], ["caf\ud83d", /surrogate/]]) {
    await put(text);
    await page.press("#text", "Enter");
    await page.locator("#notices .notice", { hasText: why }).waitFor();
    assert.equal(await page.$eval("#text", (input) => input.value.length), text.length);
    await page.$$eval("#notices .notice", (notices) => notices.forEach((n) => n.remove()));
  }
  const fits = ["x".repeat(65_536), "👩‍👩‍👧‍👦".repeat(2_000), "\u202egnirts\u202c", "a\u0300".repeat(500), "\u0000\u0007", "<b>\r\n\t</b>"];
  for (const text of fits) {
    await put(text);
    await page.press("#text", "Enter");
  }
  await alice.say("the end");
  await alice.sees("the end");
  const sent = (await it.server.messages("bob2", "pastes").catch(() => it.server.messages("alice", "pastes"))).map((m) => m[2]);
  assert.deepEqual(sent.slice(0, -1), fits.map((text) => text.replace("\r\n", "\n")));
  await it.check(alice, "pastes", "alice");
});

test("too many sessions: said in words that tell what to do, and Connect works once one is gone", async () => {
  const { server, origin, stop } = await serve("--limit-user-sessions", "2");
  try {
    const tabs = [];
    const closed = '#state[data-state="closed"]';
    for (let i = 0; tabs.length === i && i < 10; i++) {
      const tab = await it.tab();
      await tab.page.goto(origin);
      await tab.page.fill("#name", "many");
      await tab.page.press("#name", "Enter");
      await tab.page.waitForSelector(`#state[data-state="live"], ${closed}`);
      if (await tab.page.isHidden(closed)) tabs.push(tab);
      else {
        assert.match(await tab.page.textContent("#banner-text"), /too many tabs and programs.*Close some.*Connect/);
        assert.ok(i >= 2);
        await tabs[0].page.close();
        await tab.page.waitForFunction(async (closed) => {
          if (!document.querySelector(closed)) return document.querySelector('#state[data-state="live"]');
          document.querySelector("#toggle").click();
          return false;
        }, closed, { polling: 500 });
        return;
      }
    }
    assert.fail(`${tabs.length} sessions were let in`);
  } finally {
    await stop();
  }
});

test("the SDK: the same as a typed error, and the room too many settles", async () => {
  const { server, origin, stop } = await serve("--limit-user-rooms", "2");
  const { session, until, RepriseError } = await sdk();
  const alice = session(origin, "alice");
  try {
    alice.connect();
    await until(alice, () => alice.state.name === "live", "live");
    await alice.join("one");
    await alice.join("two");
    await assert.rejects(alice.join("three"), (e) => e instanceof RepriseError && e.reason === "TOO_MANY_ROOMS" && e.final);
    await assert.rejects(alice.leave("elsewhere"), (e) => e instanceof RepriseError && e.reason === "ROOM_NOT_FOUND");
    await alice.join("one");
    assert.equal(alice.state.name, "live");
    assert.ok(server);
  } finally {
    alice.disconnect();
    await stop();
  }
});

test("a browser whose settings block storage: the page works, and says that it stores nothing", async () => {
  const tab = await it.tab();
  await tab.page.addInitScript(() => {
    for (const name of ["sessionStorage", "localStorage"]) {
      Object.defineProperty(window, name, {
        get() {
          throw new DOMException("Access is denied", "SecurityError");
        },
      });
    }
  });
  await tab.enter(it.proxy.origin, "blocked", "blocked");
  await tab.say("said all the same");
  await tab.sees("said all the same");
  assert.match(await tab.page.textContent("body"), /does not let the page store anything/);
});

test("the server's data were wiped: the page says so, and offers to join again", async () => {
  const wanda = await (await it.tab()).enter(it.proxy.origin, "wanda", "wiped");
  await wanda.join("wiped-too");
  await wanda.say("before");
  await wanda.sees("before");
  await wanda.page.waitForTimeout(500); // Stored and acknowledged.
  await it.server.kill("SIGKILL");
  it.proxy.mode = "refuse";
  await rm(it.server.data, { recursive: true });
  await it.server.start();
  await wanda.say("written while it was away");
  it.proxy.mode = "pass";
  await wanda.live();
  const lost = wanda.page.locator("#lost");
  await lost.waitFor();
  assert.match(await wanda.page.textContent("#lost-text"), /does not have you in these rooms any more/);
  await wanda.page.reload(); // It is still so.
  await wanda.live();
  await lost.waitFor();
  await wanda.page.click('#lost-rooms [data-lost="wiped-too"]');
  await wanda.page.waitForSelector(`[data-room="wiped-too"][aria-current="true"]`);
  await wanda.page.waitForSelector("#text:enabled");
  await wanda.say("after");
  await wanda.sees("after");
  assert.match(await wanda.page.textContent("#pending"), /written while it was away/, "what was written is not lost");
  await wanda.page.locator("#pending button", { hasText: "Try again" }).click();
  await wanda.sees("written while it was away");
  assert.match(await wanda.page.textContent("#lost-text"), /this room/);
  await wanda.page.click("#lost-dismiss");
  await lost.waitFor({ state: "hidden" });
  assert.deepEqual((await wanda.messages()).map((m) => m[2]), ["after", "written while it was away"]);
});

test("--origin for another page's sake leaves the server's own page working", async () => {
  const { server, origin, stop } = await serve("--origin", "http://127.0.0.1:1");
  try {
    const alice = await (await it.tab()).enter(origin, "alice", "origins");
    await alice.say("hello");
    await alice.sees("hello");
    await alice.page.reload();
    await alice.live();
    await server.send("bob", "origins", "hello alice");
    await alice.sees("hello alice");
    assert.deepEqual(alice.problems, []);
  } finally {
    await stop();
  }
});
