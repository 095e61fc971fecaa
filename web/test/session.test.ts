import { Code, ConnectError } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test } from "node:test";

import { GapReason } from "#gen/position_pb";
import type { ResumeRequest } from "#gen/session_pb";
import { RepriseError } from "../sdk/errors";
import { WebSocketNotOpened } from "../sdk/grpc-websocket";
import type { GapEntry } from "../sdk/room-log";
import { FakeStorage, settle } from "./fake-env";
import { refusal } from "./fake-server";
import { checkContinuous, events, Page, refuseSends, sent, world } from "./harness";

const resumeOf = (link: { first: { value: unknown } }) => link.first.value as ResumeRequest;

test("a new session begins with the newest events, and goes on live", async () => {
  const { server, page } = world();
  for (let i = 1; i <= 60; i++) server.publish("lobby", "bob", `m${i}`);
  const alice = await page().connect();
  assert.deepEqual(alice.states, ["connecting", "replaying", "live"]);
  assert.equal(alice.texts().length, 50);
  server.publish("lobby", "bob", "m61");
  await settle();
  assert.equal(alice.texts().at(-1), "m61");
  assert.ok(events(alice.room()).every((e) => !e.replayed), "history is not replay");
  checkContinuous(alice.room());
});

test("what was missed is replayed, marked, and counted", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "before");
  await settle();
  server.refuse = () => new ConnectError("down", Code.Unavailable);
  server.crash();
  await settle();
  assert.equal(alice.state, "waiting");
  server.publish("lobby", "bob", "meanwhile");
  server.refuse = undefined;
  await w.advance(30_000);
  assert.equal(alice.state, "live");
  assert.deepEqual(events(alice.room()).map((e) => [e.text, e.replayed]), [["before", false], ["meanwhile", true]]);
  assert.equal((alice.session.state as { replayed: number }).replayed, 1);
});

test("P2: a hole in the stream is noticed, and filled by resuming from one's own position", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "one");
  await settle();
  server.automatic = false;
  server.publish("lobby", "bob", "two");
  server.last.cursors.set("lobby", 2n); // A server that skips an event.
  server.automatic = true;
  server.publish("lobby", "bob", "three");
  await settle();
  assert.deepEqual(alice.texts(), ["one"], "the event after the hole is not shown");
  await w.advance(30_000);
  assert.equal(resumeOf(server.last).positions[0]!.offset, 1n);
  assert.deepEqual(alice.texts(), ["one", "two", "three"]);
});

test("P2: CaughtUp with less than the head is a hole too", async () => {
  const { server, page } = world();
  const alice = await page().connect();
  server.last.push({ case: "caughtUp", value: { room: "lobby", offset: 3n } });
  await settle();
  assert.equal(alice.state, "waiting");
  assert.match((alice.session.state as { error: string }).error, /CaughtUp at 3/);
});

test("a gap is shown, counts as held, and can be fetched while it is recoverable", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "m1");
  await settle();
  server.crash();
  for (let i = 2; i <= 300; i++) server.publish("lobby", "bob", `m${i}`);
  server.replayLimit = 10;
  await w.advance(30_000);
  const gap = alice.room().entries.find((e): e is GapEntry => e.kind === "gap")!;
  assert.deepEqual([gap.first, gap.last, gap.reason, gap.recoverable], [2n, 290n, GapReason.REPLAY_LIMIT, true]);
  checkContinuous(alice.room());
  await alice.session.loadGap("lobby", gap);
  assert.equal(alice.texts().length, 300);
  assert.deepEqual(alice.texts().slice(0, 3), ["m1", "m2", "m3"]);
  checkContinuous(alice.room());
});

test("retention leaves a gap that stays", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "m1");
  await settle();
  server.crash();
  for (let i = 2; i <= 20; i++) server.publish("lobby", "bob", `m${i}`);
  server.trim("lobby", 15n);
  await w.advance(30_000);
  const gap = alice.room().entries[1] as GapEntry;
  assert.deepEqual([gap.kind, gap.first, gap.last, gap.recoverable], ["gap", 2n, 14n, false]);
  checkContinuous(alice.room());
});

test("R34: a room that the server cannot read is said to be so until its next RoomState, and goes on where it was", async () => {
  const { server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "before");
  await settle();
  assert.equal(alice.room().unavailable, "");
  alice.changes.length = 0;
  server.automatic = false;
  server.last.unavailable("lobby");
  server.publish("lobby", "bob", "meanwhile");
  await settle();
  assert.equal(alice.room().unavailable, "ROOM_UNAVAILABLE");
  assert.deepEqual(alice.changes, [{ what: "room", room: "lobby" }]);
  assert.equal(alice.state, "live", "the others go on");
  server.last.back("lobby", 1n);
  await settle();
  assert.equal(alice.room().unavailable, "");
  assert.deepEqual(alice.texts(), ["before", "meanwhile"]);
  checkContinuous(alice.room());
});

test("R34: what was unavailable before a resume is so only if it is told again, also after a reload", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "before");
  await w.advance(1_000);
  server.unreadable.add("lobby");
  const reconnect = () => {
    server.crash();
    return w.advance(30_000);
  };
  await reconnect();
  assert.deepEqual([alice.state, alice.room().unavailable], ["live", "ROOM_UNAVAILABLE"]);
  await reconnect();
  assert.equal(alice.room().unavailable, "ROOM_UNAVAILABLE");
  const again = await alice.reload();
  assert.equal(again.room().unavailable, "ROOM_UNAVAILABLE");
  server.unreadable.clear(); // The next attach finds it unchanged, and does not name it.
  server.last.lose();
  await w.advance(30_000);
  assert.deepEqual([again.state, again.room().unavailable], ["live", ""]);
});

test("R34: an unavailable room of which nothing is held is told, and has no place until it comes", async () => {
  const { world: w, server, page } = world();
  server.publish("lobby", "bob", "before");
  server.unreadable.add("lobby");
  const alice = await page().connect();
  assert.deepEqual([alice.state, alice.session.rooms.length], ["live", 0]);
  assert.match(alice.notices().join(), /cannot read the room lobby just now/);
  server.crash();
  await w.advance(30_000);
  assert.deepEqual(resumeOf(server.last).positions, [], "a position of 0 would ask for all of its log");
  server.last.back("lobby", 1n);
  await settle();
  assert.deepEqual([alice.room().place.offset, alice.room().unavailable], [1n, ""]);
});

test("a restored backup rewinds: what is not in the log goes, what follows comes", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "one");
  const backup = [...server.room("lobby").log];
  server.publish("lobby", "bob", "lost 1");
  server.publish("lobby", "bob", "lost 2");
  await settle();
  server.restart();
  server.room("lobby").log = backup;
  for (const text of ["other 1", "other 2", "other 3"]) server.publish("lobby", "bob", text);
  await w.advance(30_000);
  assert.deepEqual(alice.texts(), ["one", "other 1", "other 2", "other 3"]);
  assert.deepEqual(alice.room().entries.filter((e) => e.kind === "rewind"), [{ kind: "rewind", offset: 1n, dropped: 2 }]);
  checkContinuous(alice.room());
});

test("a reload goes on from what was shown: no line lost, none twice", async () => {
  const { server, page } = world();
  const alice = await page().connect();
  for (let i = 1; i <= 5; i++) server.publish("lobby", "bob", `m${i}`);
  await settle();
  server.automatic = false;
  server.publish("lobby", "bob", "m6");
  server.automatic = true;
  const again = await alice.reload();
  assert.deepEqual(again.texts(), ["m1", "m2", "m3", "m4", "m5", "m6"]);
  assert.deepEqual(events(again.room()).map((e) => e.replayed), [false, false, false, false, false, true]);
  assert.equal(resumeOf(server.last).sessionId, alice.session.id);
  assert.equal(server.sessions.size, 1);
  const third = await again.reload();
  assert.equal(third.texts().length, 6);
  checkContinuous(third.room());
});

test("a crash before anything was stored loses nothing either", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "stored");
  await w.advance(1_000);
  server.publish("lobby", "bob", "shown, not stored");
  await settle();
  assert.equal(alice.texts().length, 2);
  const again = await alice.reload({ crash: true });
  assert.deepEqual(again.texts(), ["stored", "shown, not stored"]);
});

test("nothing is acknowledged that is not stored", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const link = server.last;
  server.publish("lobby", "bob", "one");
  await settle();
  assert.equal(sent(link.got, "ack").length, 0);
  await w.advance(250);
  assert.equal(sent(link.got, "ack").length, 1);
  assert.equal(link.session!.positions.get("lobby")!.offset, 1n);
  const stored = JSON.parse(alice.tab.storage.getItem("reprise/1/room/lobby")!);
  assert.equal(stored.place.offset, "1");
  assert.equal(stored.entries.length, 1);
});

test("acknowledgements are coalesced, but do not wait once 16 KiB are handled", async () => {
  const { world: w, server, page } = world();
  await page().connect();
  const link = server.last;
  for (let i = 0; i < 20; i++) server.publish("lobby", "bob", "short");
  await settle();
  assert.equal(sent(link.got, "ack").length, 0, "timers have not run: a hidden tab");
  await w.advance(250);
  assert.equal(sent(link.got, "ack").length, 1, "twenty events, one Ack");
  server.publish("lobby", "bob", "x".repeat(20_000));
  await settle();
  assert.equal(sent(link.got, "ack").length, 2, "the window must not close on a hidden tab");
});

test("P13: a resume names its checkpoint and only the rooms that moved since", async () => {
  const { world: w, server, page } = world();
  for (const name of ["a", "b", "c"]) {
    server.room(name).members.add("alice");
    server.publish(name, "bob", "hello");
  }
  server.publish("lobby", "bob", "hello");
  await page().connect();
  await w.advance(1_000);
  server.publish("b", "bob", "not acknowledged");
  await settle();
  server.crash();
  await w.advance(30_000);
  const resume = resumeOf(server.last);
  assert.notEqual(resume.checkpoint, "");
  assert.deepEqual(resume.positions.map((p) => p.room), ["b"]);
});

test("POSITIONS_NEEDED: all positions are sent, at once and without the checkpoint", async () => {
  const { world: w, server, page } = world();
  server.publish("lobby", "bob", "hello");
  const alice = await page().connect();
  await w.advance(1_000);
  for (const session of server.sessions.values()) session.checkpoint = "cp_other";
  server.crash();
  await w.advance(30_000);
  const [first, second] = server.links.slice(-2).map(resumeOf);
  assert.notEqual(first!.checkpoint, "");
  assert.equal(second!.checkpoint, "");
  assert.deepEqual(second!.positions.map((p) => [p.room, p.offset]), [["lobby", 1n]]);
  assert.equal(alice.state, "live");
});

test("P7: a lost session record is rebuilt from the tab's own positions", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "one");
  await w.advance(1_000);
  server.crash();
  server.sessions.clear();
  server.publish("lobby", "bob", "two");
  await w.advance(30_000);
  assert.deepEqual(alice.texts(), ["one", "two"]);
  assert.ok(server.sessions.has(alice.session.id));
});

test("P4: a message that was lost, or whose receipt was, is sent again and makes one event", async () => {
  for (const turns of [0, 1, 2, 3, 4, 5, 6]) {
    const { world: w, server, page } = world();
    const alice = await page().connect();
    server.automatic = false;
    alice.session.send("lobby", "hello");
    for (let i = 0; i < turns; i++) await Promise.resolve();
    server.crash();
    server.automatic = true;
    await w.advance(30_000);
    assert.deepEqual(alice.texts(), ["hello"], `lost after ${turns} turns`);
    assert.equal(server.room("lobby").log.length, 1);
    assert.deepEqual(alice.session.pending("lobby"), []);
  }
});

test("messages written offline are kept over a reload and go out in order", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  await w.advance(1_000);
  server.refuse = () => new ConnectError("down", Code.Unavailable);
  server.crash();
  for (const text of ["one", "two", "three"]) alice.session.send("lobby", text);
  await settle();
  const again = await alice.reload();
  assert.deepEqual(again.session.pending("lobby").map((s) => s.text), ["one", "two", "three"]);
  server.refuse = undefined;
  await w.advance(60_000);
  assert.deepEqual(again.texts(), ["one", "two", "three"]);
  assert.deepEqual(again.session.pending("lobby"), []);
});

test("a refused message is kept with its reason, blocks nothing, and can be given up", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  refuseSends(server.last, (text) => text === "bad", { code: Code.InvalidArgument, reason: "INVALID_FIELD", message: "no" });
  alice.session.send("lobby", "bad");
  alice.session.send("lobby", "good");
  await w.advance(10_000);
  assert.deepEqual(alice.texts(), ["good"]);
  const [bad] = alice.session.pending("lobby");
  assert.deepEqual([bad!.text, bad!.failed], ["bad", "no"]);
  const again = await alice.reload();
  await w.advance(10_000);
  assert.deepEqual(again.texts(), ["good"], "a reload does not send it again");
  again.session.dropSend("lobby", bad!.clientId);
  assert.deepEqual(again.session.pending("lobby"), []);
});

test("P4: a rate limit holds a room's messages back, in order, as long as it says", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const end = w.time + 4_000;
  const fault = { code: Code.ResourceExhausted, reason: "RATE_LIMITED", message: "slow", retryAfter: { seconds: 5n } };
  refuseSends(server.last, (text) => text === "one" && w.time < end, fault);
  alice.session.send("lobby", "one");
  alice.session.send("lobby", "two");
  await w.advance(3_000);
  assert.deepEqual(alice.texts(), []);
  await w.advance(3_000);
  assert.deepEqual(alice.texts(), ["one", "two"]);
});

test("a message that was held back goes when its timer says so, whatever the clock says", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const end = w.time + 4_000;
  const fault = { code: Code.ResourceExhausted, reason: "RATE_LIMITED", message: "slow", retryAfter: { seconds: 5n } };
  refuseSends(server.last, () => w.time < end, fault);
  alice.session.send("lobby", "one");
  await w.advance(1_000);
  alice.tab.now = () => w.time - 3_600_000; // it is set back, or the timer comes a little early
  await w.advance(5_000);
  assert.deepEqual(alice.texts(), ["one"]);
});

test("the outbox is bounded", async () => {
  const { page } = world();
  const alice = page();
  for (let i = 0; i < 200; i++) alice.session.send("lobby", "x");
  assert.throws(() => alice.session.send("lobby", "x"), /200 messages are waiting/);
});

test("a duplicated tab is another client: it forks, and both go on", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "before");
  await w.advance(1_000);
  const copy = new Page(w.tab(alice.tab.storage.copy()), server, "alice");
  await copy.connect();
  await w.advance(1_000);
  assert.notEqual(copy.session.id, alice.session.id);
  assert.notEqual(resumeOf(server.last).instanceId, (server.links[0]!.first.value as ResumeRequest).instanceId);
  server.publish("lobby", "bob", "after");
  await settle();
  for (const tab of [alice, copy]) {
    assert.equal(tab.state, "live");
    assert.deepEqual(tab.texts(), ["before", "after"]);
  }
  const again = await copy.reload();
  await settle();
  assert.equal(again.session.id, copy.session.id, "the copy has a session of its own from now on");
  assert.deepEqual(again.texts(), ["before", "after"]);
});

test("a reconnect and a reload are the same instance", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  await w.advance(1_000);
  server.crash();
  await w.advance(30_000);
  await alice.reload();
  const instances = new Set(server.links.map((link) => resumeOf(link).instanceId));
  assert.equal(instances.size, 1);
});

test("Fenced is terminal: nothing is tried until a person says so", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.last.push({ case: "fenced", value: { attach: 2n } });
  server.last.drop(refusal(Code.FailedPrecondition, "FENCED"));
  const dials = server.links.length;
  await w.advance(3_600_000);
  alice.session.online();
  alice.session.check();
  await settle();
  assert.deepEqual(alice.session.state, {
    name: "closed",
    code: Code.FailedPrecondition,
    reason: "FENCED",
    message: "Another tab or program has taken this session over.",
  });
  assert.equal(server.links.length, dials);
  await alice.connect();
  assert.equal(alice.state, "live");
});

test("Drain: the new stream is opened while the old one is read, and nobody notices", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const old = server.last;
  server.publish("lobby", "bob", "one");
  old.push({ case: "drain", value: { moveAfter: { seconds: 3n }, closesIn: { seconds: 20n } } });
  await w.advance(2_900);
  assert.equal(server.last, old);
  server.publish("lobby", "bob", "two");
  await w.advance(200);
  assert.notEqual(server.last, old);
  assert.ok(old.closed, "the old stream was ended with Moved");
  server.publish("lobby", "bob", "three");
  await settle();
  assert.deepEqual(alice.texts(), ["one", "two", "three"]);
  assert.deepEqual(alice.states, ["connecting", "replaying", "live"]);
  assert.equal(resumeOf(server.last).instanceId, resumeOf(old).instanceId);
});

test("Drain: what both streams bring is taken once", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const old = server.last;
  server.publish("lobby", "bob", "one");
  await settle();
  // After the resume was sent with its positions, before it is answered.
  server.refuse = () => void server.publish("lobby", "bob", "two");
  old.push({ case: "drain", value: { moveAfter: {}, closesIn: { seconds: 20n } } });
  await w.advance(1);
  assert.notEqual(server.last, old);
  assert.equal(resumeOf(server.last).positions[0]!.offset, 1n);
  server.publish("lobby", "bob", "three");
  await settle();
  assert.deepEqual(alice.texts(), ["one", "two", "three"]);
  assert.deepEqual(alice.states, ["connecting", "replaying", "live"]);
  checkContinuous(alice.room());
});

test("Drain: once the new stream is welcomed, the old one has nothing to say but receipts", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const old = server.last;
  server.publish("lobby", "bob", "one");
  old.end = () => {}; // It is slow to end.
  old.push({ case: "drain", value: { moveAfter: {}, closesIn: { seconds: 20n } } });
  await w.advance(1);
  assert.notEqual(server.last, old);
  old.closed = false;
  old.push({ case: "rewind", value: { room: "lobby", to: 0n } });
  old.push({ case: "fenced", value: { attach: 2n } });
  await settle();
  assert.deepEqual(alice.texts(), ["one"]);
  assert.equal(alice.state, "live");
});

test("Drain of the only node: the old stream is read to its end, then one waits", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const old = server.last;
  server.refuse = () => refusal(Code.Unavailable, "DRAINING", "draining", 4_000);
  old.push({ case: "drain", value: { moveAfter: { seconds: 1n }, closesIn: { seconds: 20n } } });
  await w.advance(2_000);
  server.publish("lobby", "bob", "still read");
  await settle();
  assert.equal(alice.state, "live");
  assert.deepEqual(alice.texts(), ["still read"]);
  old.drop(refusal(Code.Unavailable, "DRAINING", "draining", 5_000));
  await settle();
  assert.equal(alice.state, "waiting");
  server.refuse = undefined;
  await w.advance(6_000);
  assert.equal(alice.state, "live");
});

test("a heartbeat is answered at once, by the frame's own handler", async () => {
  const { server, page } = world();
  await page().connect();
  server.last.push({ case: "heartbeat", value: {} });
  await settle(); // No timer has run.
  const [answer] = sent(server.last.got, "ack");
  assert.deepEqual((answer!.frame.value as { positions: unknown[] }).positions, []);
});

test("a silent stream is given up after a heartbeat and a grace, by the clock", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const first = server.last;
  await w.advance(29_000);
  assert.equal(server.last, first);
  await w.advance(10_000);
  assert.ok(first.closed);
  await w.advance(5_000);
  assert.equal(alice.state, "live");

  w.jump(3_600_000); // The lid was closed for an hour; no timer has run yet.
  const second = server.last;
  alice.session.check();
  await settle();
  assert.ok(second.closed, "noticed at once, not when a timer comes");
});

test("waits: the server's hint, full jitter, and not at all once the network is back", async () => {
  const { world: w, server, page } = world(() => 0.5);
  const alice = await page().connect();
  const retryIn = () => (alice.session.state as { retryAt: number }).retryAt - w.time;
  server.refuse = () => new ConnectError("down", Code.Unavailable);
  server.crash();
  await settle();
  assert.equal(retryIn(), 250);
  const waits = [];
  for (let i = 0; i < 7; i++) {
    await w.advance(retryIn());
    waits.push(retryIn());
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 10000, 10000]);
  server.refuse = () => refusal(Code.ResourceExhausted, "RATE_LIMITED", "storm", 7_000);
  alice.session.online();
  await settle();
  assert.equal(retryIn(), 7_000);
  server.refuse = undefined;
  alice.session.online();
  await settle();
  assert.equal(alice.state, "live");
});

test("R33: a lost stream waits a random part of the hint in its Welcome, or of a tenth of its life; RetryInfo goes before", async () => {
  const drained = new RepriseError("draining", Code.Unavailable, { reason: "DRAINING", retryAfterMs: 7_000 });
  const madly = new RepriseError("draining", Code.Unavailable, { reason: "DRAINING", retryAfterMs: 86_400_000 });
  const cut = new ConnectError("cut", Code.Unavailable);
  for (const [hint, beats, error, wait] of [
    [8_000, 8, cut, 4_000],
    [8_000, 1, cut, 750],
    [0, 8, cut, 250], // The back-off's own first bound.
    [8_000, 8, drained, 7_000],
    [8_000, 1, drained, 7_000],
    [8_000, 0, drained, 7_000],
    [8_000, 8, madly, 300_000],
  ] as const) {
    const { world: w, server, page } = world(() => 0.5);
    server.resumeHintMs = hint;
    const alice = await page().connect();
    for (let i = 0; i < beats; i++) {
      await w.advance(15_000);
      server.last.push({ case: "heartbeat", value: {} });
      await settle();
    }
    server.last.drop(error);
    await settle();
    const waits = (alice.session.state as { retryAt: number }).retryAt - w.time;
    assert.equal(waits, wait, `hint ${hint}, ${beats} heartbeats, ${error.message}`);
  }
});

test("the back-off starts again only after a stream has proven itself", async () => {
  const { world: w, server, page } = world(() => 0.999);
  const alice = await page().connect();
  const waits = [];
  for (let i = 0; i < 4; i++) {
    server.crash();
    await settle();
    const wait = (alice.session.state as { retryAt: number }).retryAt - w.time;
    waits.push(Math.round(wait / 500));
    await w.advance(wait);
  }
  assert.deepEqual(waits, [1, 2, 4, 8]);
  await w.advance(15_000);
  server.crash();
  await settle();
  assert.ok((alice.session.state as { retryAt: number }).retryAt - w.time < 500);
});

test("a refused token is asked for once more; then it is over", async () => {
  const { server, world: w } = world();
  let tokens = 0;
  const alice = new Page(w.tab(new FakeStorage()), server, "alice", { token: () => `dev:${++tokens}` });
  server.refuse = () => refusal(Code.Unauthenticated, "TOKEN_INVALID", "bad token");
  await alice.connect();
  assert.equal(tokens, 2);
  assert.deepEqual(alice.session.state, { name: "closed", code: Code.Unauthenticated, reason: "TOKEN_INVALID", message: "bad token" });
});

test("what cannot succeed is not tried again", async () => {
  for (const code of [Code.PermissionDenied, Code.InvalidArgument, Code.Unimplemented, Code.FailedPrecondition]) {
    const { server, world: w, page } = world();
    server.refuse = () => refusal(code, "SOME_REASON");
    const alice = await page().connect();
    await w.advance(600_000);
    assert.equal(alice.state, "closed");
    assert.equal(server.links.length, 1);
  }
});

test("two failed websockets, a reachable server: fetch, with the same session", async () => {
  const { server, world: w } = world();
  const alice = new Page(w.tab(new FakeStorage()), server, "alice");
  await alice.connect();
  await w.advance(1_000);
  const { id } = alice.session;
  const real = server.dial("alice");
  let websockets = 0;
  let fetches = 0;
  alice.tab.close();
  const { Session } = await import("../sdk/session");
  const blocked = () => new ConnectError("refused", Code.Unavailable, undefined, undefined, new WebSocketNotOpened());
  const session = new Session({
    user: "alice",
    token: () => "dev:alice",
    env: w.tab(alice.tab.storage),
    client: server.client(),
    dials: {
      stream: (first, headers) => {
        websockets++;
        const link = real(first, headers);
        link.drop(blocked());
        return link;
      },
      unary: (first, headers) => {
        fetches++;
        return real(first, headers);
      },
    },
  });
  session.connect();
  await w.advance(30_000);
  assert.equal(session.state.name, "live");
  assert.equal(session.id, id);
  assert.deepEqual([websockets, fetches], [3, 1], "the third try comes after a call has shown that the server is up");
});

test("a server that is down is not mistaken for a blocked websocket", async () => {
  const { server, world: w } = world();
  let fetches = 0;
  const { Session } = await import("../sdk/session");
  const down = () => new ConnectError("down", Code.Unavailable);
  server.refuse = () => new ConnectError("refused", Code.Unavailable, undefined, undefined, new WebSocketNotOpened());
  const client = { listRooms: () => (server.refuse ? Promise.reject(down()) : Promise.resolve({ rooms: [] })) };
  const session = new Session({
    user: "alice",
    token: () => "dev:alice",
    env: w.tab(new FakeStorage()),
    client: client as never,
    dials: {
      stream: server.dial("alice"),
      unary: (first, headers) => {
        fetches++;
        return server.dial("alice")(first, headers);
      },
    },
  });
  session.connect();
  await w.advance(600_000);
  server.refuse = undefined;
  await w.advance(30_000);
  assert.equal(session.state.name, "live");
  assert.equal(fetches, 0, "six connections to a host are too few to waste");
});

test("a page that is put away leaves nothing open, and comes back where it was", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "one");
  await settle();
  alice.session.suspend();
  assert.ok(server.last.closed);
  assert.equal(w.locks.size, 0);
  server.publish("lobby", "bob", "two");
  w.jump(86_400_000);
  alice.session.wake();
  await settle();
  assert.equal(alice.state, "live");
  assert.deepEqual(alice.texts(), ["one", "two"]);
});

test("Disconnect says goodbye and stays; Connect resumes", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  await w.advance(1_000);
  const link = server.last;
  alice.session.disconnect();
  await w.advance(600_000);
  alice.session.online();
  alice.session.wake();
  assert.equal(alice.state, "idle");
  assert.equal(sent(link.got, "bye").length, 1);
  assert.equal(server.last, link);
  server.publish("lobby", "bob", "meanwhile");
  await alice.connect();
  assert.deepEqual(events(alice.room()).map((e) => [e.text, e.replayed]), [["meanwhile", true]]);
});

test("late frames of a link that was given up say nothing", async () => {
  const { server, page } = world();
  const alice = await page().connect();
  const old = server.last;
  alice.session.disconnect();
  old.closed = false;
  server.publish("lobby", "bob", "late");
  old.push({ case: "fenced", value: {} });
  await settle();
  assert.equal(alice.state, "idle");
  assert.equal(alice.texts().length, 0);
});

test("joins and leaves outlive a lost stream", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.refuse = () => new ConnectError("down", Code.Unavailable);
  server.crash();
  await settle();
  const joined = alice.session.join("garden");
  server.refuse = undefined;
  await w.advance(30_000);
  await joined;
  assert.deepEqual(alice.session.rooms.map((r) => r.name), ["garden", "lobby"]);
  assert.deepEqual(events(alice.room("garden")).map((e) => [e.kind, e.text]), [["joined", "alice"]]);
  await alice.session.leave("garden");
  assert.equal(alice.session.room("garden"), undefined);
  const again = await alice.reload();
  assert.deepEqual(again.session.rooms.map((r) => r.name), ["lobby"]);
});

test("a full storage costs lines, never the place", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  await w.advance(1_000);
  alice.tab.storage.quota = 9_000;
  for (let i = 1; i <= 300; i++) server.publish("lobby", "bob", `a message of some length, number ${i}`);
  await w.advance(1_000);
  const again = await alice.reload();
  assert.equal(again.room().place.offset, 300n);
  server.publish("lobby", "bob", "next");
  await settle();
  assert.equal(again.texts().at(-1), "next");
  checkContinuous(again.room());
  await again.session.loadEarlier("lobby");
  checkContinuous(again.room());
  assert.ok(again.texts().length > 100);
});

test("no storage at all: told once, and a reload starts afresh", async () => {
  const { world: w, server, page } = world();
  const alice = page();
  alice.tab.storage.quota = 10;
  await alice.connect();
  server.publish("lobby", "bob", "one");
  await w.advance(1_000);
  assert.equal(alice.notices().length, 1);
  assert.equal(alice.tab.storage.length, 0);
  const again = await alice.reload();
  assert.deepEqual(again.texts(), ["one"]);
});

test("another user's session is not taken up", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  await w.advance(1_000);
  alice.session.suspend();
  const bob = new Page(w.tab(alice.tab.storage), server, "bob");
  await bob.connect();
  assert.equal(server.last.first.case, "open");
});

test("ending a session forgets all of it", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  server.publish("lobby", "bob", "one");
  await w.advance(1_000);
  alice.session.end();
  await w.advance(5_000);
  assert.equal(alice.tab.storage.length, 0);
  assert.equal(w.locks.size, 0);
  assert.deepEqual(alice.session.rooms, []);
});

test("earlier messages are fetched before the first line", async () => {
  const { server, page } = world();
  for (let i = 1; i <= 180; i++) server.publish("lobby", "bob", `m${i}`);
  const alice = await page().connect();
  await alice.session.loadEarlier("lobby");
  assert.equal(alice.texts().length, 150);
  await alice.session.loadEarlier("lobby");
  assert.equal(alice.texts()[0], "m1");
  assert.equal(alice.room().start, 0n);
  checkContinuous(alice.room());
});
