import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test } from "node:test";

import { ChatService } from "#gen/chat_service_pb";
import { ClientFrameSchema, ServerFrameSchema } from "#gen/frame_pb";
import type { ServerFrame } from "#gen/frame_pb";
import { SendMessageRequestSchema, SendMessageResponseSchema } from "#gen/message_pb";
import { reasonOf, retryDelayOf } from "../sdk/errors";
import { createGrpcWebSocketTransport, WebSocketNotOpened } from "../sdk/grpc-websocket";
import { Queue } from "../sdk/queue";
import { settle } from "./fake-env";

/** The server's end of a websocket, by hand. */
class FakeWebSocket {
  static last: FakeWebSocket;
  binaryType = "";
  bufferedAmount = 0;
  closedByClient = false;
  readonly sent: Uint8Array[] = [];
  onopen = () => {};
  onmessage = (_: { data: unknown }) => {};
  onerror = () => {};
  onclose = (_: { code: number; reason: string }) => {};

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {
    FakeWebSocket.last = this;
  }

  send(data: Uint8Array): void {
    this.sent.push(Uint8Array.from(data));
  }

  close(): void {
    this.closedByClient = true;
  }

  message(bytes: Uint8Array): void {
    this.onmessage({ data: Uint8Array.from(bytes).buffer });
  }

  /** The messages that came in, put together from their pieces. */
  messages(): Uint8Array[] {
    const stream = this.sent.slice(1).filter((m) => m[0] === 0).flatMap((m) => [...m.subarray(1)]);
    const messages: Uint8Array[] = [];
    for (let at = 0; at < stream.length; ) {
      const length = new DataView(Uint8Array.from(stream.slice(at, at + 5)).buffer).getUint32(1);
      messages.push(Uint8Array.from(stream.slice(at + 5, at + 5 + length)));
      at += 5 + length;
    }
    return messages;
  }
}

function frame(flags: number, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(5 + data.length);
  out[0] = flags;
  new DataView(out.buffer).setUint32(1, data.length);
  out.set(data, 5);
  return out;
}

const text = (value: string) => new TextEncoder().encode(value);
const header = frame(0x80, text("Content-Type: application/grpc-web+proto\r\nTrailer: Grpc-Status\r\n"));
const trailer = (lines: string) => frame(0x80, text(lines));
const beat = (n: number) =>
  frame(0, toBinary(ServerFrameSchema, create(ServerFrameSchema, { frame: { case: "checkpoint", value: { id: `cp_${n}` } } })));

function connect(limits: { maxMessageBytes?: number; maxQueuedBytes?: number } = {}) {
  const transport = createGrpcWebSocketTransport({
    baseUrl: "https://chat.example.com",
    WebSocket: FakeWebSocket as unknown as new (url: string, protocol: string) => WebSocket,
    ...limits,
  });
  const input = new Queue<{ requestId: string }>();
  const abort = new AbortController();
  const stream = createClient(ChatService, transport).connect(input, {
    signal: abort.signal,
    headers: { authorization: "Bearer dev:alice" },
  });
  const frames: ServerFrame[] = [];
  let error: ConnectError | undefined;
  const done = (async () => {
    try {
      for await (const message of stream) frames.push(message);
    } catch (reason) {
      error = ConnectError.from(reason);
    }
  })();
  return { input, abort, frames, done, error: () => error, ids: () => frames.map((f) => (f.frame.value as { id: string }).id) };
}

async function opened(limits?: Parameters<typeof connect>[0]) {
  const call = connect(limits);
  await settle();
  const socket = FakeWebSocket.last;
  socket.onopen();
  return { ...call, socket };
}

test("the handshake: url, subprotocol, headers in the first message", async () => {
  const { socket } = await opened();
  assert.equal(socket.url, "wss://chat.example.com/reprise.v1.ChatService/Connect");
  assert.equal(socket.protocol, "grpc-websockets");
  const lines = new TextDecoder().decode(socket.sent[0]).split("\r\n");
  assert.ok(lines.includes("content-type: application/grpc-web+proto"));
  assert.ok(lines.includes("authorization: Bearer dev:alice"));
});

test("a stream that is cut anywhere is put together again", async () => {
  const bytes = [header, beat(1), beat(2), beat(3), trailer("grpc-status: 0\r\n")].flatMap((f) => [...f]);
  for (const size of [1, 2, 3, 4, 5, 6, 7, 11, 64, bytes.length]) {
    const { socket, done, ids, error } = await opened();
    for (let at = 0; at < bytes.length; at += size) socket.message(Uint8Array.from(bytes.slice(at, at + size)));
    await done;
    assert.deepEqual(ids(), ["cp_1", "cp_2", "cp_3"], `in pieces of ${size}`);
    assert.equal(error(), undefined);
    assert.ok(socket.closedByClient);
  }
});

test("both directions at once, then half-close", async () => {
  const { socket, input, ids } = await opened();
  input.push({ requestId: "r1" });
  await settle();
  socket.message(header);
  socket.message(beat(1));
  await settle();
  assert.deepEqual(ids(), ["cp_1"]);
  input.push({ requestId: "r2" });
  input.end();
  await settle();
  assert.deepEqual(socket.messages().map((m) => fromBinary(ClientFrameSchema, m).requestId), ["r1", "r2"]);
  assert.deepEqual([...socket.sent.at(-1)!], [1]);
});

test("a message over the wrapper's read limit goes in pieces", async () => {
  const { socket, input } = await opened();
  input.push({ requestId: "x".repeat(100_000) });
  await settle();
  assert.ok(socket.sent.every((m) => m.length <= 16 * 1024 + 1));
  assert.equal(fromBinary(ClientFrameSchema, socket.messages()[0]!).requestId.length, 100_000);
});

test("sending pauses while the browser still holds much", async () => {
  const { socket, input } = await opened();
  socket.bufferedAmount = 1 << 20;
  input.push({ requestId: "r1" });
  await settle();
  assert.equal(socket.messages().length, 0);
  socket.bufferedAmount = 0;
  while (socket.messages().length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
});

test("an error before any message: code, Unicode message, reason, delay", async () => {
  const { socket, done, error } = await opened();
  // google.rpc.Status{8, "später", [ErrorInfo{"RATE_LIMITED"}, RetryInfo{2.5 s}]}
  const info = (type: string, value: number[]) => {
    const url = [...text(`type.googleapis.com/google.rpc.${type}`)];
    const any = [10, url.length, ...url, 18, value.length, ...value];
    return [26, any.length, ...any];
  };
  const reason = [...text("RATE_LIMITED")];
  const message = [...text("später")];
  const status = [8, 8, 18, message.length, ...message];
  const domain = [...text("reprise.chat")];
  status.push(...info("ErrorInfo", [10, reason.length, ...reason, 18, domain.length, ...domain]));
  status.push(...info("RetryInfo", [10, 8, 8, 2, 16, 0x80, 0xca, 0xb5, 0xee, 1]));
  const details = Buffer.from(status).toString("base64").replace(/=+$/, "");
  socket.message(trailer(`grpc-status: 8\r\ngrpc-message: sp%C3%A4ter\r\ngrpc-status-details-bin: ${details}\r\n`));
  await done;
  assert.equal(error()?.code, Code.ResourceExhausted);
  assert.equal(error()?.rawMessage, "später");
  assert.equal(reasonOf(error()!), "RATE_LIMITED");
  assert.equal(retryDelayOf(error()!), 2500);
});

test("an error after messages: the messages come first", async () => {
  const { socket, done, ids, error } = await opened();
  for (const f of [header, beat(1), trailer("grpc-status: 14\r\ngrpc-message: draining\r\n")]) socket.message(f);
  await done;
  assert.deepEqual(ids(), ["cp_1"]);
  assert.equal(error()?.code, Code.Unavailable);
});

test("headers that came before an error are in the error", async () => {
  for (const frames of [[], [beat(1)]]) {
    const { socket, done, error } = await opened();
    const custom = frame(0x80, text("Content-Type: application/grpc-web+proto\r\nX-Custom: one\r\nX-Custom: two\r\n"));
    for (const f of [custom, ...frames, trailer("grpc-status: 9\r\nx-trailer: three\r\n")]) socket.message(f);
    await done;
    assert.equal(error()?.code, Code.FailedPrecondition);
    assert.equal(error()?.metadata.get("x-custom"), "one, two");
    assert.equal(error()?.metadata.get("x-trailer"), "three");
  }
});

test("every way to close without a status has a code", async () => {
  const codes: [number, Code][] = [
    [1000, Code.Unavailable],
    [1001, Code.Unavailable],
    [1006, Code.Unavailable],
    [1009, Code.ResourceExhausted],
    [1011, Code.Unavailable],
    [1002, Code.Internal],
  ];
  for (const [close, code] of codes) {
    const { socket, done, error } = await opened();
    socket.message(header);
    socket.onclose({ code: close, reason: "" });
    await done;
    assert.equal(error()?.code, code, `websocket close ${close}`);
    assert.ok(!(error()?.cause instanceof WebSocketNotOpened));
  }
});

test("a websocket that never opened is told apart, by its close or its error alone", async () => {
  for (const end of [(s: FakeWebSocket) => s.onclose({ code: 1006, reason: "" }), (s: FakeWebSocket) => s.onerror()]) {
    const { done, error } = connect();
    await settle();
    end(FakeWebSocket.last);
    await done;
    assert.equal(error()?.code, Code.Unavailable);
    assert.ok(error()?.cause instanceof WebSocketNotOpened);
  }
});

test("aborting closes the websocket, before and after it is open", async () => {
  const early = connect();
  await settle();
  const socket = FakeWebSocket.last;
  early.abort.abort();
  await early.done;
  assert.equal(early.error()?.code, Code.Canceled);
  assert.ok(socket.closedByClient);

  const late = await opened();
  late.socket.message(header);
  await settle();
  late.abort.abort();
  await late.done;
  assert.equal(late.error()?.code, Code.Canceled);
  assert.ok(late.socket.closedByClient);
});

test("bad bytes end the call: text, compression, garbage, a frame too large", async () => {
  const bad: [(socket: FakeWebSocket) => void, Code][] = [
    [(s) => s.onmessage({ data: "text" }), Code.Internal],
    [(s) => s.message(frame(1, Uint8Array.of(1))), Code.Internal],
    [(s) => s.message(Uint8Array.of(0, 0xff, 0xff, 0xff, 0xff)), Code.ResourceExhausted],
    [(s) => s.message(frame(0, Uint8Array.of(0xff, 0xff))), Code.Internal],
  ];
  for (const [send, code] of bad) {
    const { socket, done, error } = await opened();
    socket.message(header);
    send(socket);
    await done;
    assert.equal(error()?.code, code);
    assert.ok(socket.closedByClient);
  }
});

test("a reader that is too slow for a socket that cannot wait: an error, not memory", async () => {
  const { socket, done, error } = await opened({ maxQueuedBytes: 20 });
  socket.message(header);
  for (let i = 0; i < 10; i++) socket.message(beat(i)); // All in one turn.
  await done;
  assert.equal(error()?.code, Code.ResourceExhausted);
});

test("a unary call over a websocket", async () => {
  const transport = createGrpcWebSocketTransport({
    baseUrl: "http://127.0.0.1:8080",
    WebSocket: FakeWebSocket as unknown as new (url: string, protocol: string) => WebSocket,
  });
  const answer = createClient(ChatService, transport).sendMessage({ room: "lobby", text: "hello" });
  await settle();
  const socket = FakeWebSocket.last;
  socket.onopen();
  await settle();
  assert.equal(fromBinary(SendMessageRequestSchema, socket.messages()[0]!).text, "hello");
  socket.message(header);
  socket.message(frame(0, toBinary(SendMessageResponseSchema, create(SendMessageResponseSchema, { offset: 2n ** 63n }))));
  socket.message(trailer("grpc-status: 0\r\n"));
  assert.equal((await answer).offset, 2n ** 63n);
});
