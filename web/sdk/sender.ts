import { Code, ConnectError } from "@connectrpc/connect";

import type { Fault, Receipt } from "#gen/frame_pb";
import type { Env } from "./env";
import { isRetryable, millis } from "./errors";
import type { OutFrame } from "./link";
import type { Outbox } from "./outbox";
import type { Place } from "./place";

/** How long a refused frame waits if the server does not say. */
const resendMs = 2_000;

/** What a Sender needs of the session it belongs to. */
export interface SenderHost {
  attached(): boolean;
  send(frame: OutFrame): void;
  place(room: string): Place | undefined;
  /** A room's pending messages have changed. */
  pendingChanged(): void;
  /** A frame without a request_id was refused. */
  refused(message: string, again: boolean): void;
}

/** A request without an answer yet. */
interface Request {
  readonly frame: OutFrame;
  readonly resolve: () => void;
  readonly reject: (error: ConnectError) => void;
}

/**
 * Sends messages and requests until each has its answer, over as many
 * attachments as it takes. Messages are idempotent by client_id, joins and
 * leaves by their nature.
 */
export class Sender {
  readonly #requests = new Map<string, Request>();
  #count = 0;

  constructor(
    readonly env: Env,
    readonly outbox: Outbox,
    readonly host: SenderHost,
  ) {}

  /** A new attachment: everything without an answer goes out again. */
  attached(): void {
    for (const { frame } of this.#requests.values()) this.host.send(frame);
    this.pump();
  }

  /** Sends the messages whose turn it is. */
  pump(): void {
    if (!this.host.attached()) return;
    for (const { clientId, room, text } of this.outbox.take(this.env.now())) {
      const frame = { case: "sendMessage", value: { room, text, clientId } } as const;
      this.host.send({ requestId: `m:${clientId}`, frame });
    }
  }

  /** Resolves when the server has carried the frame out. */
  request(frame: OutFrame["frame"]): Promise<void> {
    const requestId = `r:${++this.#count}`;
    const whole = { requestId, ...(frame && { frame }) };
    return new Promise((resolve, reject) => {
      this.#requests.set(requestId, { frame: whole, resolve, reject });
      if (this.host.attached()) this.host.send(whole);
    });
  }

  /** Rejects what has no answer. */
  clear(): void {
    const error = new ConnectError("the session has ended", Code.Canceled);
    for (const request of this.#requests.values()) request.reject(error);
    this.#requests.clear();
    this.outbox.clear();
  }

  receipt({ requestId, result }: Receipt): void {
    this.#requests.get(requestId)?.resolve();
    this.#requests.delete(requestId);
    if (result.case !== "sendMessage") return;
    const { room, offset } = result.value;
    this.outbox.confirmed(requestId.slice(2), offset, this.host.place(room));
    this.host.pendingChanged();
    this.pump();
  }

  fault({ requestId, code, reason, message, retryAfter }: Fault): void {
    const again = isAgain(code, reason);
    const delay = millis(retryAfter) || resendMs;
    if (requestId.startsWith("m:")) {
      this.#messageRefused(requestId.slice(2), message, again ? delay : undefined);
    } else if (requestId.startsWith("r:")) {
      this.#requestRefused(requestId, new ConnectError(message, code), again ? delay : undefined);
    } else {
      this.host.refused(message, again);
    }
  }

  #messageRefused(clientId: string, message: string, delay: number | undefined): void {
    if (delay !== undefined) {
      this.outbox.postponed(clientId, this.env.now() + delay);
      this.env.after(delay, () => this.pump());
      return;
    }
    this.outbox.refused(clientId, message);
    this.host.pendingChanged();
    this.pump();
  }

  #requestRefused(requestId: string, error: ConnectError, delay: number | undefined): void {
    const request = this.#requests.get(requestId);
    if (delay === undefined) {
      this.#requests.delete(requestId);
      request?.reject(error);
      return;
    }
    this.env.after(delay, () => {
      if (request && this.#requests.has(requestId) && this.host.attached()) this.host.send(request.frame);
    });
  }
}

/**
 * Whether a refused frame will be accepted later. An attachment that was
 * taken over answers FENCED until the newer one repeats the frame.
 */
function isAgain(code: Code, reason: string): boolean {
  return isRetryable(code) || reason === "FENCED" || reason === "NOT_ATTACHED";
}
