import { Code, ConnectError } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test } from "node:test";

import { RepriseError } from "../sdk/errors";
import { connectLink } from "../sdk/link";
import { createGrpcWebSocketTransport } from "../sdk/grpc-websocket";
import { FakeStorage, settle } from "./fake-env";
import { refusal } from "./fake-server";
import { Page, refuseSends, sent, world } from "./harness";

const outboxKey = "reprise/1/outbox";

/** What a promise is rejected with; fails if it is not. */
async function rejection(promise: Promise<unknown>): Promise<RepriseError> {
  const error = await promise.then(
    () => assert.fail("was not rejected"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RepriseError, String(error));
  return error;
}

test("what can never be sent is refused at once, and nothing of it is kept", async () => {
  const { server, page } = world();
  const alice = await page().connect();
  const bad: [string, string, string][] = [
    ["lobby", "", "text"],
    ["lobby", "caf\ud83d", "text"],
    ["lobby", "x".repeat(65_537), "text"],
    ["lobby", "é".repeat(32_769), "text"],
    ["", "hello", "room"],
    ["two words", "hello", "room"],
    ["half\udc00", "hello", "room"],
    ["x".repeat(129), "hello", "room"],
  ];
  for (const [room, text, field] of bad) {
    assert.throws(
      () => alice.session.send(room, text),
      (error) => error instanceof RepriseError && error.reason === "INVALID_FIELD" && error.fields[0]!.field === field,
    );
  }
  await settle();
  assert.equal(sent(server.last.got, "sendMessage").length, 0);
  assert.deepEqual(JSON.parse(alice.tab.storage.getItem(outboxKey) ?? "[]"), []);
  alice.session.send("lobby", "x".repeat(65_536));
  alice.session.send("lobby", "small");
  await settle();
  assert.equal(alice.texts().at(-1), "small");
  for (const room of ["", "two words", "half\udc00"]) {
    assert.equal((await rejection(alice.session.join(room))).reason, "INVALID_FIELD");
    assert.equal((await rejection(alice.session.leave(room))).reason, "INVALID_FIELD");
  }
});

test("the server's own limits are kept to, those of the next one too", async () => {
  const { world: w, server, page } = world();
  server.limits = { messageBytes: 10, ackPositions: 2 };
  for (const name of ["a", "b", "c"]) {
    server.room(name).members.add("alice");
    server.publish(name, "bob", "hello");
  }
  const alice = await page().connect();
  await w.advance(1_000);
  assert.deepEqual(sent(server.last.got, "ack").map((f) => (f.frame.value as { positions: unknown[] }).positions.length), [2, 1]);
  alice.session.send("lobby", "0123456789");
  assert.throws(() => alice.session.send("lobby", "0123456789-"), /at most 10 bytes/);
  server.limits = { messageBytes: 100_000 };
  server.crash();
  await w.advance(5_000);
  alice.session.send("lobby", "x".repeat(100_000));
  // Written for a server that took it; the next one does not.
  server.refuse = () => new ConnectError("down", Code.Unavailable);
  server.crash();
  await settle();
  alice.session.send("lobby", "x".repeat(90_000));
  server.limits = undefined;
  server.refuse = undefined;
  await w.advance(5_000);
  assert.match(alice.session.pending("lobby")[0]!.failed!, /at most 65536 bytes/);
});

test("a user's name that is none is refused before anything is sent", () => {
  const { world: w, server } = world();
  for (const user of ["", "two words", "x".repeat(129), "half\ud83d"]) {
    assert.throws(
      () => new Page(w.tab(new FakeStorage()), server, user),
      (error) => error instanceof RepriseError && error.fields[0]!.field === "user",
    );
  }
});

test("a history that no server takes is refused before anything is sent", async () => {
  const { world: w, server, page } = world();
  const refused = (error: unknown) => error instanceof RepriseError && error.final && error.fields[0]!.field === "history";
  const bad = [-1, 0.5, 1001, NaN];
  for (const history of bad) assert.throws(() => new Page(w.tab(new FakeStorage()), server, "alice", { history }), refused);
  const alice = await page().connect();
  for (const history of bad) assert.ok(refused(await rejection(alice.session.join("garden", history))));
  assert.equal(sent(server.last.got, "joinRoom").length, 0);
  await alice.session.join("garden", 1000);
});

test("a token that no header can carry ends the session's attempts, with the reason", async () => {
  const { world: w, server } = world();
  const alice = new Page(w.tab(new FakeStorage()), server, "花子", { token: () => "dev:花子" });
  await alice.connect();
  await w.advance(60_000);
  assert.equal(alice.state, "closed");
  assert.equal((alice.session.state as { reason: string }).reason, "TOKEN_INVALID");
  assert.equal(server.links.length, 0);
});

test("poison in a stored outbox: not resent, told, and what is beside it goes out", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  await w.advance(1_000);
  alice.session.suspend();
  const send = { room: "lobby", time: 1 };
  const stored = [
    { ...send, clientId: "1", text: "caf\ud83d" },
    { ...send, clientId: "2", text: "x".repeat(1_500_000) },
    { ...send, clientId: "3", text: "" },
    { ...send, clientId: "4", text: "good" },
    { ...send, clientId: "5", room: "no such room", text: "lost" },
    { ...send, clientId: "6" },
    { ...send, clientId: "not an id", text: "x" },
    { ...send, clientId: "7", text: "x", offset: "nine" },
    null,
    "junk",
  ];
  alice.tab.storage.setItem(outboxKey, JSON.stringify(stored));
  const again = await alice.reload();
  await w.advance(20_000);
  assert.deepEqual(again.texts(), ["good"]);
  assert.equal(server.room("lobby").log.length, 1);
  const pending = again.session.pending("lobby");
  assert.deepEqual(pending.map((p) => p.clientId), ["1", "2", "3"]);
  assert.match(pending[0]!.failed!, /surrogate/);
  assert.match(pending[1]!.failed!, /at most 65536 bytes.*1500000/);
  assert.equal(sent(server.last.got, "sendMessage").length, 1);
  assert.ok(again.notices().some((n) => /could not be read/.test(n)));
  assert.ok(again.notices().some((n) => /Not sent to no such room/.test(n)));
  again.session.retrySend("lobby", "1");
  await settle();
  assert.match(again.session.pending("lobby")[0]!.failed!, /surrogate/);
  assert.equal(server.links.length, 2, "the stream that all share stays");
});

test("damaged storage: the page starts, says so, and loses no room of the server's", async () => {
  for (const [key, value] of [
    ["reprise/1/session", "{"],
    ["reprise/1/session", "7"],
    ["reprise/1/session", `{"id":"s_1"}`],
    ["reprise/1/room/lobby", "["],
    ["reprise/1/room/lobby", "{}"],
    ["reprise/1/room/lobby", `{"title":"","place":{"incarnation":"i","offset":"x","earlier":[]},"entries":[]}`],
    ["reprise/1/room/lobby", `{"title":"","place":{"incarnation":"i","offset":"-1","earlier":[]},"entries":[]}`],
    ["reprise/1/outbox", "nonsense"],
    ["reprise/1/outbox", "{}"],
    ["reprise/1/user", "alice"],
  ] as const) {
    const { world: w, server, page } = world();
    server.publish("lobby", "bob", "one");
    const alice = await page().connect();
    await w.advance(1_000);
    alice.session.suspend();
    alice.tab.storage.setItem(key, value);
    const again = await alice.reload();
    assert.equal(again.state, "live", `${key} = ${value}`);
    assert.deepEqual(again.texts(), ["one"]);
  }
});

test("RESOURCE_EXHAUSTED without RetryInfo is final: a message fails once, and its neighbours go out", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const fault = { code: Code.ResourceExhausted, reason: "FRAME_TOO_LARGE", message: "too large" };
  refuseSends(server.last, (text) => text === "bad", fault);
  alice.session.send("lobby", "bad");
  alice.session.send("lobby", "good");
  await w.advance(600_000);
  assert.deepEqual(alice.texts(), ["good"]);
  assert.equal(alice.session.pending("lobby")[0]!.failed, "too large");
});

test("a refusal that waiting may cure is told while the message waits, less and less often", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const fault = { code: Code.Internal, reason: "INTERNAL", message: "internal error" };
  let tries = 0;
  refuseSends(server.last, () => ++tries > 0, fault);
  alice.session.send("lobby", "hello");
  await settle();
  const [send] = alice.session.pending("lobby");
  assert.equal(alice.session.waitsFor(send!.clientId), "internal error");
  await w.advance(600_000);
  assert.ok(tries > 5 && tries < 20, `${tries} tries in ten minutes`);
  assert.equal(send!.failed, undefined);
});

test("join() of a room too many is rejected, with the reason", async () => {
  const { server, page } = world();
  server.maxRooms = 1;
  const alice = await page().connect();
  const error = await rejection(alice.session.join("garden"));
  assert.deepEqual([error.code, error.reason, error.final], [Code.ResourceExhausted, "TOO_MANY_ROOMS", true]);
});

/** A minute on a stream that lives, and on which nobody answers. */
async function silence(alice: Page, w: ReturnType<typeof world>["world"]): Promise<void> {
  for (let i = 0; i < 4; i++) {
    await w.advance(16_000);
    alice.links.at(-1)!.push({ case: "heartbeat", value: {} });
  }
  assert.equal(alice.links.length, 1);
}

test("every request settles: no answer, disconnected by hand, ended, refused for good", async () => {
  const ends: [string, (alice: Page, w: ReturnType<typeof world>["world"]) => unknown, Code, string][] = [
    ["no answer", (alice, w) => silence(alice, w), Code.DeadlineExceeded, ""],
    ["disconnect", (alice) => alice.session.disconnect(), Code.Canceled, ""],
    ["end", (alice) => alice.session.end(), Code.Canceled, ""],
    ["fenced", (alice) => (alice.links.at(-1)!.push({ case: "fenced", value: {} }), settle()), Code.FailedPrecondition, "FENCED"],
  ];
  for (const [how, end, code, reason] of ends) {
    const { world: w, server, page } = world();
    const alice = await page().connect();
    server.last.send = () => {}; // The server takes it and says nothing.
    const joined = rejection(alice.session.join("garden"));
    await settle();
    await end(alice, w);
    const error = await joined;
    assert.deepEqual([error.code, error.reason], [code, reason], how);
  }
  const { page } = world();
  assert.equal((await rejection(page().session.join("garden"))).code, Code.Unavailable);
});

test("a frame that cannot be encoded is refused alone", async () => {
  const { server, page } = world();
  const alice = await page().connect();
  const link = server.last;
  const send = link.send.bind(link);
  link.send = (init) => {
    if (JSON.stringify(init, (_, v: unknown) => (typeof v === "bigint" ? "" : v)).includes("bad")) {
      throw new RepriseError("cannot be encoded", Code.InvalidArgument, { reason: "INVALID_FIELD" });
    }
    send(init);
  };
  alice.session.send("lobby", "bad");
  alice.session.send("lobby", "good");
  await rejection(alice.session.join("bad"));
  await settle();
  assert.deepEqual(alice.texts(), ["good"]);
  assert.equal(alice.session.pending("lobby")[0]!.failed, "cannot be encoded");
  assert.equal(alice.state, "live");
  assert.equal(server.links.length, 1);
});

test("a link throws for such a frame, and sends the next one", async () => {
  const sockets: { sent: Uint8Array[]; closed: boolean; onopen: () => void }[] = [];
  class Socket {
    sent: Uint8Array[] = [];
    closed = false;
    bufferedAmount = 0;
    onopen = () => {};
    constructor() {
      sockets.push(this);
    }
    send(data: Uint8Array) {
      this.sent.push(data);
    }
    close() {
      this.closed = true;
    }
  }
  const dial = connectLink(createGrpcWebSocketTransport({ baseUrl: "http://x", WebSocket: Socket as never }));
  const link = dial({ case: "open", value: {} }, {});
  void link.frames[Symbol.asyncIterator]().next();
  await settle();
  sockets[0]!.onopen();
  const join = (room: string, history: number) => ({ frame: { case: "joinRoom", value: { room, history } } }) as const;
  assert.throws(
    () => link.send(join("bad", -1)),
    (error) => error instanceof RepriseError && error.final && /cannot be encoded/.test(error.message),
  );
  link.send(join("good", 1));
  await settle();
  assert.equal(sockets[0]!.closed, false);
  assert.match(new TextDecoder().decode(sockets[0]!.sent.at(-1)), /good/);
  assert.equal(sockets[0]!.sent.length, 3, "headers, the first frame, the good one");
});

test("a server that ends the stream for a frame: the frame is given up, not the connection", async () => {
  const { world: w, server, page } = world();
  const alice = await page().connect();
  const verdict = () => refusal(Code.ResourceExhausted, "FRAME_TOO_LARGE", "too large");
  let ends = 0;
  /** Ends each stream on which the poison arrives. */
  const poisoned = () => {
    const link = server.last;
    const send = link.send.bind(link);
    link.send = (init) => {
      if (!JSON.stringify(init, (_, v: unknown) => (typeof v === "bigint" ? "" : v)).includes("poison")) return send(init);
      ends++;
      queueMicrotask(() => link.drop(verdict()));
    };
  };
  poisoned();
  const open = server.dial.bind(server);
  server.dial = open;
  const dialled = server.links.push.bind(server.links);
  server.links.push = (...links) => {
    const n = dialled(...links);
    poisoned();
    return n;
  };
  alice.session.send("lobby", "poison");
  const joined = rejection(alice.session.join("poison"));
  alice.session.send("lobby", "good");
  await w.advance(120_000);
  assert.deepEqual(alice.texts(), ["good"]);
  assert.equal(alice.session.pending("lobby")[0]!.failed, "too large");
  assert.equal((await joined).reason, "FRAME_TOO_LARGE");
  assert.equal(alice.state, "live");
  assert.ok(ends <= 6, `${ends} streams were ended`);
});

test("an outbox that the browser cannot store is told at once", async () => {
  const { page } = world();
  const alice = await page().connect();
  alice.tab.storage.quota = 3_000;
  alice.session.send("lobby", "x".repeat(4_000));
  assert.ok(alice.notices().some((n) => /storage is full/.test(n)));
  await settle();
  assert.equal(alice.texts().at(-1), "x".repeat(4_000), "it is sent all the same");
});
