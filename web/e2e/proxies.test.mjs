import assert from "node:assert/strict";
import { test } from "node:test";

import { answers, HttpProxy } from "./http-proxy.mjs";
import { sdk, stage } from "./kit.mjs";

const it = stage();

/** Failures in a row after which both a websocket and a call have been tried. */
const enough = 3;

test("whatever a proxy answers while its backend is away, the SDK goes on, and says what it met", async () => {
  const { session, until, texts } = await sdk();
  const all = Object.entries(answers).map(async ([name, answer], i) => {
    const proxy = await new HttpProxy(() => it.server.http).start();
    const user = `proxied${i}`;
    const alice = session(proxy.origin, user);
    try {
      // From the very first attempt on.
      proxy.answer = answer;
      alice.connect();
      const failing = () => alice.state.name === "waiting" && alice.state.failures >= enough;
      await until(alice, failing, `${name}: told in the state`);
      assert.equal(alice.state.reason, "", `${name}: no verdict of this service`);
      assert.notEqual(alice.state.error, "");
      proxy.pass();
      await until(alice, () => alice.state.name === "live", `${name}: live at last`);
      await alice.join(user);
      // And in the middle of a conversation.
      proxy.cut(answer);
      alice.send(user, "written meanwhile");
      const { answered } = proxy;
      await until(alice, () => failing() && proxy.answered >= answered + enough, `${name}: told again`);
      proxy.pass();
      await until(alice, () => texts(alice, user).includes("written meanwhile"), `${name}: sent at last`);
      assert.deepEqual((await it.server.messages(user, user)).map((m) => m[2]), ["written meanwhile"], name);
    } finally {
      alice.disconnect();
      proxy.stop();
    }
  });
  const failed = (await Promise.allSettled(all)).filter((result) => result.status === "rejected");
  assert.deepEqual(failed.map((result) => String(result.reason)), []);
});

test("by fetch too: neither the stream nor a call is ended by a stranger's answer", async (t) => {
  const { session, until, texts } = await sdk();
  const proxy = await new HttpProxy(() => it.server.http).start();
  const alice = session(proxy.origin, "fetcher", { fetchOnly: true });
  t.after(() => {
    alice.disconnect();
    proxy.stop();
  });
  alice.connect();
  await until(alice, () => alice.state.name === "live", "live");
  await alice.join("fetched");
  // Each takes the time of a wait; what answers there are makes no other difference.
  for (const name of ["403", "401", "503", "a portal's page, 200", "an empty answer of the right type", "another service's status", "hanging up"]) {
    proxy.answer = answers[name]; // The stream goes on; the call for the message meets the proxy.
    alice.send("fetched", name);
    await until(alice, () => alice.pending("fetched").some((p) => alice.waitsFor(p.clientId) !== ""), `${name}: waits`);
    assert.ok(alice.pending("fetched").every((p) => p.failed === undefined), name);
    proxy.answer = undefined;
    alice.online();
    await until(alice, () => texts(alice, "fetched").includes(name), `${name}: sent at last`);
  }
});

test("TLS that fails is the network's", async (t) => {
  const { session, until } = await sdk();
  // As a network whose certificates are not to be trusted: what answers speaks no TLS.
  const alice = session(`https://${it.server.http}`, "tls");
  t.after(() => alice.disconnect());
  alice.connect();
  await until(alice, () => alice.state.name === "waiting" && alice.state.failures >= enough, "told in the state");
  assert.equal(alice.state.reason, "");
});

test("the page: a proxy that says 403 for a while stops nothing, and is told", async () => {
  const port = Number(it.server.http.split(":")[1]);
  it.proxy.stop(); // The browser knows one name for the server; another proxy has it now.
  const proxy = await new HttpProxy(() => it.server.http).start(port, "127.0.0.2");
  const alice = await (await it.tab()).enter(it.proxy.origin, "alice", "portal");
  await alice.say("before");
  await alice.sees("before");
  for (const [answer, told] of [["403", /HTTP 403/], ["a portal's page, 200", /cannot be reached/], ["401", /HTTP 401/]]) {
    proxy.cut(answers[answer]);
    await alice.say(`while ${answer}`);
    await alice.page.waitForFunction((told) => new RegExp(told).test(document.querySelector("#why").textContent), told.source);
    assert.ok(await alice.page.locator("#banner").isHidden());
    proxy.pass();
    await it.server.send("bob", "portal", `bob, while ${answer}`);
    await alice.sees(`while ${answer}`);
    await alice.sees(`bob, while ${answer}`);
    await alice.live();
    assert.ok(await alice.page.locator("#why").isHidden());
  }
  await it.check(alice, "portal", "bob");
  proxy.stop();
});
