import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import type { ContextValues, StreamResponse, Transport, UnaryResponse } from "@connectrpc/connect";
import { createMethodUrl, createMethodSerializationLookup, runStreamingCall } from "@connectrpc/connect/protocol";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";

import { compressedFlag, envelope, formatHeaders, FrameReader, FrameTooLarge, parseHeaders, trailerFlag } from "./framing";
import { Queue } from "./queue";

/** How to make a transport over grpc-websockets. */
export interface GrpcWebSocketOptions {
  /** Where the server is, as "https://chat.example.com". */
  readonly baseUrl: string;
  /** Largest message accepted or sent, in bytes. 4 MiB unless given. */
  readonly maxMessageBytes?: number;
  /**
   * How many bytes of messages may wait to be read before the call fails with
   * RESOURCE_EXHAUSTED. 8 MiB unless given: a websocket cannot be paused.
   */
  readonly maxQueuedBytes?: number;
  /** The websocket to use; the browser's unless given. */
  readonly WebSocket?: new (url: string, protocol: string) => WebSocket;
}

/**
 * The cause of an error with code UNAVAILABLE when a websocket was refused
 * before it was open. Script is not told why: the server may be down, or
 * something on the way may not let websockets through.
 */
export class WebSocketNotOpened extends Error {}

/** Sent in pieces of this many bytes; the wrapper's own limit is 32 KiB. */
const pieceBytes = 16 * 1024;
/** Sending pauses while the browser holds more than this many bytes. */
const highWater = 256 * 1024;
const drainPollMs = 25;

/**
 * A Connect transport over the grpc-websockets protocol of
 * improbable-eng/grpc-web: one websocket for each call, in both directions.
 */
export function createGrpcWebSocketTransport(options: GrpcWebSocketOptions): Transport {
  const limit = options.maxMessageBytes ?? 4 << 20;

  async function stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O> | DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const serialization = createMethodSerializationLookup(method, undefined, undefined, {
      readMaxBytes: limit,
      writeMaxBytes: limit,
    });
    const { serialize } = serialization.getI(true);
    const { parse } = serialization.getO(true);
    return await runStreamingCall<I, O>({
      ...(signal && { signal }),
      ...(timeoutMs !== undefined && timeoutMs > 0 && { timeoutMs }),
      req: {
        stream: true,
        service: method.parent,
        // The call below does not look at the kind of method.
        method: method as DescMethodStreaming<I, O>,
        requestMethod: "POST",
        url: createMethodUrl(options.baseUrl, method).replace(/^http/, "ws"),
        header: requestHeader(header, timeoutMs),
        contextValues: contextValues ?? createContextValues(),
        message: input,
      },
      next: async (req) => {
        const call = new Call(req.url, req.header, req.signal, options);
        void call.write(req.message, serialize);
        return { ...req, header: await call.header, trailer: call.trailer, message: read(call, parse) };
      },
    });
  }

  return {
    stream,
    async unary<I extends DescMessage, O extends DescMessage>(
      method: DescMethodUnary<I, O>,
      signal: AbortSignal | undefined,
      timeoutMs: number | undefined,
      header: HeadersInit | undefined,
      input: MessageInitShape<I>,
      contextValues?: ContextValues,
    ): Promise<UnaryResponse<I, O>> {
      const response = await stream(method, signal, timeoutMs, header, once(input), contextValues);
      const messages: MessageShape<O>[] = [];
      for await (const message of response.message) messages.push(message);
      if (messages.length !== 1) {
        throw new ConnectError(`${messages.length} messages in answer to a unary call`, Code.Unimplemented);
      }
      const { header: responseHeader, trailer, service } = response;
      return { stream: false, service, method, header: responseHeader, trailer, message: messages[0]! };
    },
  };
}

/** One call: a websocket, from its handshake to its status. */
class Call {
  readonly header: Promise<Headers>;
  readonly trailer = new Headers();
  /** Messages received, then the end of the call or its error. */
  readonly messages = new Queue<Uint8Array>();

  readonly #socket: WebSocket;
  readonly #frames: FrameReader;
  readonly #maxQueued: number;
  #queued = 0;
  #opened = false;
  #ended = false;
  #trailed = false;
  #header: Headers | undefined;
  #resolveHeader!: (header: Headers) => void;
  #rejectHeader!: (error: ConnectError) => void;
  #signalOpen!: (open: boolean) => void;
  readonly #whenOpen = new Promise<boolean>((resolve) => (this.#signalOpen = resolve));

  constructor(url: string, requestHeader: Headers, signal: AbortSignal, options: GrpcWebSocketOptions) {
    this.#frames = new FrameReader(options.maxMessageBytes ?? 4 << 20);
    this.#maxQueued = options.maxQueuedBytes ?? 8 << 20;
    this.header = new Promise((resolve, reject) => {
      this.#resolveHeader = resolve;
      this.#rejectHeader = reject;
    });
    const socket = new (options.WebSocket ?? WebSocket)(url, "grpc-websockets");
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#opened = true;
      socket.send(formatHeaders(requestHeader));
      this.#signalOpen(true);
    };
    socket.onmessage = (event: MessageEvent<unknown>) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    // An error says nothing, and the close event that follows does; but for a
    // handshake that failed, Node 20 sends no such event.
    socket.onerror = () => this.#opened || this.#closed(1006, "");
    const cancel = () => this.#fail(ConnectError.from(signal.reason, Code.Canceled));
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
  }

  /** Sends all messages, then closes the sending side. */
  async write<T>(input: AsyncIterable<T>, serialize: (message: T) => Uint8Array): Promise<void> {
    try {
      if (!(await this.#whenOpen)) return;
      for await (const message of input) {
        if (!(await this.#drained())) return;
        this.#send(envelope(serialize(message)));
      }
      if (!this.#ended) this.#socket.send(Uint8Array.of(1));
    } catch (error) {
      this.#fail(ConnectError.from(error, Code.Internal));
    }
  }

  /** Called by the reader for each message it takes. */
  taken(message: Uint8Array): void {
    this.#queued -= message.length;
  }

  /** Waits until the browser has little left to send; false if the call ended. */
  async #drained(): Promise<boolean> {
    // There is no event for it.
    while (!this.#ended && this.#socket.bufferedAmount > highWater) {
      await new Promise((resolve) => setTimeout(resolve, drainPollMs));
    }
    return !this.#ended;
  }

  #send(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      const out = new Uint8Array(1 + piece.length); // A leading 0: data follows.
      out.set(piece, 1);
      this.#socket.send(out);
    }
  }

  #receive(data: unknown): void {
    if (this.#ended) return;
    try {
      if (!(data instanceof ArrayBuffer)) throw new ConnectError("text message on a binary protocol", Code.Internal);
      for (const frame of this.#frames.push(new Uint8Array(data))) this.#frame(frame.flags, frame.data);
    } catch (error) {
      const code = error instanceof FrameTooLarge ? Code.ResourceExhausted : Code.Internal;
      this.#fail(ConnectError.from(error, code));
    }
  }

  #frame(flags: number, data: Uint8Array): void {
    if (flags & trailerFlag) return this.#metadata(parseHeaders(data));
    if (flags & compressedFlag) throw new ConnectError("compressed message, which was not offered", Code.Internal);
    this.#gotHeader(new Headers());
    this.#queued += data.length;
    if (this.#queued > this.#maxQueued) {
      throw new ConnectError("messages come in faster than they are read", Code.ResourceExhausted);
    }
    this.messages.push(data);
  }

  /** Headers come first, trailers last; an early error sends trailers only. */
  #metadata(metadata: Headers): void {
    if (!metadata.has("grpc-status")) return this.#gotHeader(metadata);
    this.#trailed = true;
    metadata.forEach((value, name) => this.trailer.set(name, value));
    const error = findTrailerError(metadata);
    if (error) return this.#fail(error);
    this.#gotHeader(metadata);
    this.#end();
    this.messages.end();
  }

  #gotHeader(header: Headers): void {
    if (this.#header) return;
    this.#header = header;
    this.#resolveHeader(header);
  }

  #closed(code: number, reason: string): void {
    if (this.#ended || this.#trailed) return;
    if (!this.#opened) {
      const cause = new WebSocketNotOpened("the websocket could not be opened");
      return this.#fail(new ConnectError(cause.message, Code.Unavailable, undefined, undefined, cause));
    }
    const detail = reason ? `: ${reason}` : "";
    this.#fail(new ConnectError(`stream ended without a status (websocket close ${code}${detail})`, closeCode(code)));
  }

  #fail(error: ConnectError): void {
    if (this.#ended) return;
    this.#end();
    // Whoever waits for the answer learns of the headers that came before from
    // the error alone.
    this.#header?.forEach((value, name) => error.metadata.append(name, value));
    this.#rejectHeader(error);
    // Nobody may be waiting for the headers any more.
    this.header.catch(() => {});
    this.messages.fail(error);
  }

  #end(): void {
    this.#ended = true;
    this.#signalOpen(false);
    this.#socket.close();
  }
}

/** What a websocket that closed without a gRPC status means. */
function closeCode(code: number): Code {
  switch (code) {
    case 1002: // protocol error
    case 1003: // unsupported data
    case 1007: // inconsistent data
      return Code.Internal;
    case 1009: // message too big
      return Code.ResourceExhausted;
    default: // 1000, 1001 going away, 1005, 1006 lost, 1011 server error, ...
      return Code.Unavailable;
  }
}

function requestHeader(init: HeadersInit | undefined, timeoutMs: number | undefined): Headers {
  const header = new Headers(init);
  header.set("content-type", "application/grpc-web+proto");
  header.set("x-grpc-web", "1");
  if (timeoutMs !== undefined && timeoutMs > 0) header.set("grpc-timeout", `${timeoutMs}m`);
  return header;
}

async function* read<T>(call: Call, parse: (data: Uint8Array) => T): AsyncGenerator<T> {
  for await (const message of call.messages) {
    call.taken(message);
    yield parse(message);
  }
}

async function* once<T>(item: T): AsyncGenerator<T> {
  yield item;
}
