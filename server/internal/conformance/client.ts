// The client under test of Connect's conformance suite: the TypeScript SDK's
// two transports. It reads calls to make from its standard input and writes how
// they ended to its standard output, as client_compat.proto says. Which
// transport: websocket or fetch, its argument.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import { ConnectError, createClient } from "@connectrpc/connect";
import type { CallOptions, Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { setTimeout as sleep } from "node:timers/promises";

import { createGrpcWebSocketTransport } from "../../../web/sdk/grpc-websocket";
import { ClientCompatRequestSchema, ClientCompatResponseSchema, ClientResponseResultSchema } from "./gen/ts/connectrpc/conformance/v1/client_compat_pb";
import type { ClientCompatRequest, ClientResponseResult } from "./gen/ts/connectrpc/conformance/v1/client_compat_pb";
import { StreamType } from "./gen/ts/connectrpc/conformance/v1/config_pb";
import {
  BidiStreamRequestSchema, ClientStreamRequestSchema, ConformancePayloadSchema, ConformanceService, ErrorSchema, HeaderSchema,
  IdempotentUnaryRequestSchema, ServerStreamRequestSchema, UnaryRequestSchema, UnimplementedRequestSchema,
} from "./gen/ts/connectrpc/conformance/v1/service_pb";
import type { ConformancePayload } from "./gen/ts/connectrpc/conformance/v1/service_pb";

/** What any method answers with. */
type Answer = Message & { payload?: ConformancePayload | undefined };

const transportOf = {
  websocket: createGrpcWebSocketTransport,
  fetch: createGrpcWebTransport,
};

/** One call, from its first message to what is told of its end. */
class Call {
  readonly #abort = new AbortController();
  readonly #result = create(ClientResponseResultSchema);
  /** Wakes the sender, which at full duplex waits for each message's answer. */
  #answered = () => {};

  constructor(
    readonly client: Client<typeof ConformanceService>,
    readonly request: ClientCompatRequest,
  ) {}

  async run(): Promise<ClientResponseResult> {
    const result = this.#result;
    result.numUnsentRequests = this.request.requestMessages.length;
    try {
      for await (const answer of this.#answers()) {
        result.payloads.push(answer.payload ?? create(ConformancePayloadSchema));
        const cancelTiming = this.request.cancel?.cancelTiming;
        if (cancelTiming?.case === "afterNumResponses" && cancelTiming.value === result.payloads.length) this.#abort.abort();
        this.#answered();
      }
    } catch (e) {
      this.#failed(ConnectError.from(e));
    } finally {
      this.#answered();
    }
    return result;
  }

  #answers(): AsyncIterable<Answer> {
    const options: CallOptions = {
      headers: this.request.requestHeaders.flatMap(({ name, value }) => value.map((v): [string, string] => [name, v])),
      signal: this.#abort.signal,
      ...(this.request.timeoutMs !== undefined && { timeoutMs: this.request.timeoutMs }),
      onHeader: (header) => (this.#result.responseHeaders = pairs(header)),
      onTrailer: (trailer) => (this.#result.responseTrailers = pairs(trailer)),
    };
    switch (this.request.method) {
      case "Unary":
        return this.#one(UnaryRequestSchema, (message) => this.client.unary(message, options));
      case "IdempotentUnary":
        return this.#one(IdempotentUnaryRequestSchema, (message) => this.client.idempotentUnary(message, options));
      case "Unimplemented":
        return this.#one(UnimplementedRequestSchema, (message) => this.client.unimplemented(message, options));
      case "ServerStream":
        return this.#one(ServerStreamRequestSchema, (message) => this.client.serverStream(message, options));
      case "ClientStream":
        return each(this.client.clientStream(this.#messages(ClientStreamRequestSchema), options));
      case "BidiStream":
        return this.client.bidiStream(this.#messages(BidiStreamRequestSchema), options);
    }
    throw new Error(`unknown method ${this.request.method}`);
  }

  /** Calls a method that takes one message, which is sent with the call. */
  async *#one<I extends DescMessage>(
    schema: I,
    call: (message: MessageShape<I>) => Promise<Answer> | AsyncIterable<Answer>,
  ): AsyncGenerator<Answer> {
    const { requestDelayMs, requestMessages } = this.request;
    if (requestMessages.length !== 1) throw new Error(`${requestMessages.length} messages for a method that takes one`);
    await sleep(requestDelayMs);
    const answers = call(fromBinary(schema, requestMessages[0]!.value));
    this.#result.numUnsentRequests = 0;
    this.#sentAll();
    yield* each(answers);
  }

  /** The messages to send, each when it is time. To ask for the next says that the last was sent. */
  async *#messages<I extends DescMessage>(schema: I): AsyncGenerator<MessageShape<I>> {
    const { requestDelayMs, requestMessages, streamType } = this.request;
    for (const { value } of requestMessages) {
      await sleep(requestDelayMs);
      const answered = new Promise<void>((resolve) => (this.#answered = resolve));
      yield fromBinary(schema, value);
      this.#result.numUnsentRequests--;
      if (streamType === StreamType.FULL_DUPLEX_BIDI_STREAM) await answered;
    }
    this.#sentAll();
  }

  /** Cancels if it is time to, now that the sending side closes. */
  #sentAll(): void {
    if (!this.request.cancel) return;
    const { cancelTiming } = this.request.cancel;
    if (cancelTiming.case === "afterNumResponses") return;
    if (cancelTiming.case === "beforeCloseSend") this.#abort.abort();
    else setTimeout(() => this.#abort.abort(), cancelTiming.value ?? 0);
  }

  /** Of a call that failed, headers and trailers alike are told with the error. */
  #failed(error: ConnectError): void {
    const result = this.#result;
    result.error = create(ErrorSchema, {
      code: error.code as number,
      message: error.rawMessage,
      details: error.details.map((d) => {
        if ("desc" in d) throw new Error("a detail that did not come from the server");
        return { typeUrl: `type.googleapis.com/${d.type}`, value: d.value };
      }),
    });
    if (result.responseHeaders.length === 0) result.responseHeaders = pairs(error.metadata);
    result.responseTrailers = pairs(error.metadata);
  }
}

async function* each(answer: Promise<Answer> | AsyncIterable<Answer>): AsyncGenerator<Answer> {
  if (answer instanceof Promise) yield await answer;
  else yield* answer;
}

function pairs(headers: Headers) {
  return [...headers].map(([name, value]) => create(HeaderSchema, { name, value: value.split(", ") }));
}

/** Cuts the input into messages, each of which has its length before it. */
async function* sized(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held = Buffer.alloc(0);
  for await (const piece of input) {
    held = Buffer.concat([held, piece]);
    while (held.length >= 4 && held.length >= 4 + held.readUInt32BE()) {
      const end = 4 + held.readUInt32BE();
      yield held.subarray(4, end);
      held = held.subarray(end);
    }
  }
}

function answer(testName: string, response: ClientResponseResult): void {
  const bytes = toBinary(ClientCompatResponseSchema, create(ClientCompatResponseSchema, { testName, result: { case: "response", value: response } }));
  const out = Buffer.alloc(4 + bytes.length);
  out.writeUInt32BE(bytes.length);
  out.set(bytes, 4);
  process.stdout.write(out);
}

const makeTransport = transportOf[process.argv[2] as keyof typeof transportOf];
for await (const bytes of sized(process.stdin)) {
  const request = fromBinary(ClientCompatRequestSchema, bytes);
  const client = createClient(ConformanceService, makeTransport({ baseUrl: `http://${request.host}:${request.port}` }));
  answer(request.testName, await new Call(client, request).run());
}
