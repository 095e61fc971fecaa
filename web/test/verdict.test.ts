import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { ChatService } from "#gen/chat_service_pb";
import { RepriseError } from "../sdk/errors";
import { unaryLink } from "../sdk/link";
import { settle } from "./fake-env";
import { refusal } from "./fake-server";
import { refuseSends, world } from "./harness";

const codes = Object.values(Code).filter((code): code is Code => typeof code === "number");

test("an answer that is not this service's is the network's, whatever its code", async () => {
  for (const code of codes) {
    for (const strange of [new ConnectError("from a proxy", code), stranger(code)]) {
      const { world: w, server, page } = world();
      server.refuse = () => strange;
      const alice = await page().connect();
      await w.advance(60_000);
      const state = alice.session.state;
      assert.equal(state.name, "waiting", Code[code]);
      assert.deepEqual([state.error, state.reason], ["from a proxy", ""]);
      assert.ok(state.failures > 2);
      server.refuse = undefined;
      await w.advance(60_000);
      assert.equal(alice.state, "live", Code[code]);
    }
  }
});

/** Another service's verdict: its domain is not ours. */
function stranger(code: Code): ConnectError {
  const error = new ConnectError("from a proxy", code);
  const text = (no: number, value: string) => [no * 8 + 2, value.length, ...new TextEncoder().encode(value)];
  const value = new Uint8Array([...text(1, "FENCED"), ...text(2, "example.com")]);
  error.details.push({ type: "google.rpc.ErrorInfo", value });
  return error;
}

test("a live stream that ends with a stranger's status is resumed", async () => {
  for (const code of codes) {
    const { world: w, server, page } = world();
    const alice = await page().connect();
    server.last.drop(stranger(code));
    await w.advance(5_000);
    assert.equal(alice.state, "live", Code[code]);
  }
});

test("too many sessions: final, typed, and told", async () => {
  const { world: w, server, page } = world();
  server.refuse = () => refusal(Code.ResourceExhausted, "TOO_MANY_SESSIONS", "end one");
  const alice = await page().connect();
  await w.advance(600_000);
  assert.deepEqual(alice.session.state, {
    name: "closed",
    code: Code.ResourceExhausted,
    reason: "TOO_MANY_SESSIONS",
    message: "end one",
  });
  assert.equal(server.links.length, 1);
  server.refuse = undefined; // A session was ended elsewhere.
  await alice.connect();
  assert.equal(alice.state, "live");
});

test("RESOURCE_EXHAUSTED with RetryInfo is waited for", async () => {
  const { world: w, server, page } = world();
  server.refuse = () => refusal(Code.ResourceExhausted, "RATE_LIMITED", "slow", 3_000);
  const alice = await page().connect();
  server.refuse = undefined;
  await w.advance(4_000);
  assert.equal(alice.state, "live");
});

test("a typed error has the fields, the reason and the delay", () => {
  const error = refusal(Code.InvalidArgument, "INVALID_FIELD", "no", 4_000);
  const text = (no: number, value: string) => [no * 8 + 2, value.length, ...new TextEncoder().encode(value)];
  const violation = (field: string) => {
    const bytes = [...text(1, field), ...text(2, "is wrong")];
    return [10, bytes.length, ...bytes];
  };
  error.details.push({ type: "google.rpc.BadRequest", value: new Uint8Array([...violation("room"), ...violation("text")]) });
  const typed = RepriseError.from(error);
  assert.deepEqual([typed.code, typed.reason, typed.message, typed.retryAfterMs], [Code.InvalidArgument, "INVALID_FIELD", "no", 4_000]);
  assert.deepEqual(typed.fields.map((f) => f.field), ["room", "text"]);
  assert.equal(RepriseError.from(typed), typed);
  assert.deepEqual([RepriseError.from("x").reason, RepriseError.from("x").final], ["", false]);
});

test("by fetch: a message that a proxy refuses for a while is sent again", async () => {
  let answers = 0;
  const proxy = createServer((_, response) => {
    answers++;
    response.writeHead(403, { "content-type": "text/html" }).end("<h1>Forbidden</h1>");
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const transport = createGrpcWebTransport({ baseUrl: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` });
  await assert.rejects(createClient(ChatService, transport).listRooms({}), ConnectError);
  const link = unaryLink(transport)({ case: "open", value: {} }, {});
  link.send({ requestId: "m:1", frame: { case: "sendMessage", value: { room: "lobby", text: "hello", clientId: "1" } } });
  const frames = link.frames[Symbol.asyncIterator]();
  const first = await frames.next();
  assert.ok(!first.done && first.value.frame.case === "fault");
  const error = RepriseError.fromFault(first.value.frame.value);
  assert.deepEqual([error.reason, error.final], ["", false]);
  assert.ok(answers >= 2);
  link.close();
  proxy.close();

  // And what the session makes of such a Fault.
  const { world: w, server, page } = world();
  const alice = await page().connect();
  let refused = 0;
  refuseSends(server.last, () => refused++ < 3, { code: error.code, reason: error.reason, message: error.message });
  alice.session.send("lobby", "hello");
  await w.advance(29_000);
  await settle();
  assert.deepEqual(alice.texts(), ["hello"]);
});
