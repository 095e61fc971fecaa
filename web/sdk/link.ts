import { create, toBinary } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { Client, Transport } from "@connectrpc/connect";

import { ChatService } from "#gen/chat_service_pb";
import { ClientFrameSchema, ServerFrameSchema } from "#gen/frame_pb";
import type { ClientFrame, ReceiptSchema, ServerFrame } from "#gen/frame_pb";
import { ViaSchema } from "#gen/session_pb";
import type { OpenRequestSchema, ResumeRequestSchema } from "#gen/session_pb";
import { invalid, RepriseError } from "./errors";
import { Queue } from "./queue";

/** The frame an attachment begins with. */
export type FirstFrame =
  | { readonly case: "open"; readonly value: MessageInitShape<typeof OpenRequestSchema> }
  | { readonly case: "resume"; readonly value: MessageInitShape<typeof ResumeRequestSchema> };

/** A frame to send: its request_id and its content. */
export type OutFrame = MessageInitShape<typeof ClientFrameSchema>;

/** An attachment's stream, whatever carries it. */
export interface Link {
  /** What the server sends; ends when the stream ends, throws its error. */
  readonly frames: AsyncIterable<ServerFrame>;
  /**
   * Sends a frame. After the Welcome only. Throws a RepriseError if it cannot
   * be encoded; the stream goes on.
   */
  send(frame: OutFrame): void;
  /** Says goodbye; the stream ends soon after. */
  bye(endSession: boolean): void;
  /** Drops the stream. */
  close(): void;
}

/** Opens links. `headers` carries the token. */
export type Dial = (first: FirstFrame, headers: HeadersInit) => Link;

/** Throws unless a frame can go over the wire. */
function encodable(init: OutFrame): ClientFrame {
  const frame = create(ClientFrameSchema, init);
  try {
    toBinary(ClientFrameSchema, frame);
  } catch (error) {
    throw invalid(frame.frame.case ?? "frame", `cannot be encoded: ${(error as Error).message}`);
  }
  return frame;
}

/** A link over Connect: both directions in one stream. */
export function connectLink(transport: Transport): Dial {
  const client = createClient(ChatService, transport);
  return (first, headers) => {
    const abort = new AbortController();
    const out = new Queue<OutFrame>();
    out.push({ frame: first });
    return {
      frames: client.connect(out, { headers, signal: abort.signal }),
      // An error while the stream is written would end it for everybody.
      send: (frame) => out.push(encodable(frame)),
      bye(endSession) {
        out.push({ frame: { case: "bye", value: { endSession } } });
        out.end();
      },
      close() {
        out.end();
        abort.abort();
      },
    };
  };
}

/**
 * A link over Open or Resume for what comes, and a unary call for each frame
 * that goes: for browsers that get no websocket through. The session is the
 * same.
 */
export function unaryLink(transport: Transport): Dial {
  const client = createClient(ChatService, transport);
  return (first, headers) => new UnaryLink(client, first, headers);
}

class UnaryLink implements Link {
  readonly frames = new Queue<ServerFrame>();
  readonly #abort = new AbortController();
  #acks = Promise.resolve();
  #via = create(ViaSchema);

  constructor(
    readonly client: Client<typeof ChatService>,
    first: FirstFrame,
    readonly headers: HeadersInit,
  ) {
    const options = { headers, signal: this.#abort.signal };
    void this.#read(first.case === "open" ? client.open(first.value, options) : client.resume(first.value, options));
  }

  send(init: OutFrame): void {
    const frame = encodable(init);
    // A Checkpoint counts acknowledgements, so these keep their order.
    if (frame.frame.case === "ack") this.#acks = this.#acks.then(() => this.#answer(frame));
    else void this.#answer(frame);
  }

  async #answer(frame: ClientFrame): Promise<void> {
    if (this.#abort.signal.aborted) return;
    try {
      const answer = await this.#call(frame);
      if (frame.requestId) this.frames.push(answer);
    } catch (error) {
      const refusal = RepriseError.from(error);
      // The attachment's token has run out: the next one brings another.
      if (refusal.final && refusal.code === Code.Unauthenticated) return this.frames.fail(refusal);
      this.frames.push(faultOf(frame.requestId, refusal));
    }
  }

  bye(endSession: boolean): void {
    const { sessionId } = this.#via;
    if (endSession && sessionId) {
      this.client.endSession({ sessionId }, { headers: this.headers }).catch(() => {});
    }
    this.close();
  }

  close(): void {
    this.#abort.abort();
  }

  async #read(stream: AsyncIterable<ServerFrame>): Promise<void> {
    try {
      for await (const frame of stream) {
        if (frame.frame.case === "welcome") {
          const { sessionId, attach } = frame.frame.value;
          this.#via = create(ViaSchema, { sessionId, attach });
        }
        this.frames.push(frame);
      }
      this.frames.end();
    } catch (error) {
      this.frames.fail(error);
    }
  }

  /** Makes the unary call that says the same as the frame. */
  async #call({ requestId, frame }: ClientFrame): Promise<ServerFrame> {
    const via = this.#via;
    const options = { headers: this.headers, timeoutMs: 15_000 };
    switch (frame.case) {
      case "sendMessage": {
        const value = await this.client.sendMessage({ ...frame.value, via }, options);
        return receipt(requestId, { case: "sendMessage", value });
      }
      case "joinRoom": {
        const value = await this.client.joinRoom({ ...frame.value, via }, options);
        return receipt(requestId, { case: "joinRoom", value });
      }
      case "leaveRoom": {
        const value = await this.client.leaveRoom({ ...frame.value, via }, options);
        return receipt(requestId, { case: "leaveRoom", value });
      }
      case "ack": {
        const value = await this.client.ack({ ...frame.value, via }, options);
        return receipt(requestId, { case: "ack", value });
      }
      default:
        throw new ConnectError(`no unary call for frame ${frame.case}`, Code.Internal);
    }
  }
}

type Result = NonNullable<MessageInitShape<typeof ReceiptSchema>["result"]>;

function receipt(requestId: string, result: Result): ServerFrame {
  return create(ServerFrameSchema, { frame: { case: "receipt", value: { requestId, result } } });
}

/** A Fault as a stream would bring it. The network's is nobody's refusal. */
function faultOf(requestId: string, error: RepriseError): ServerFrame {
  const { reason, message, retryAfterMs: delay } = error;
  const code = reason ? error.code : Code.Unavailable;
  const fields = error.fields.map((f) => ({ ...f }));
  const fault = { requestId, code, reason, message, fields };
  const retryAfter = delay === undefined ? {} : { retryAfter: durationFromMs(delay) };
  return create(ServerFrameSchema, { frame: { case: "fault", value: { ...fault, ...retryAfter } } });
}
