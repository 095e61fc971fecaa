import { Code } from "@connectrpc/connect";

import type { Fault, Receipt } from "#gen/frame_pb";
import type { Env } from "./env";
import { RepriseError } from "./errors";
import type { OutFrame } from "./link";
import type { Outbox } from "./outbox";
import type { Place } from "./place";
import type { StoredSend } from "./storage";

/** Bounds of the wait before a refused frame is repeated, if the server does not say. */
const resendMs = { first: 2_000, longest: 60_000 } as const;
/** How long a request may go without an answer, over all attachments. */
const requestMs = 60_000;
/** Streams that a frame may take with it before it is given up. */
export const maxStrikes = 3;

/** What a Sender needs of the session it belongs to. */
export interface SenderHost {
  attached(): boolean;
  /** Throws a RepriseError if the frame cannot be encoded. */
  send(frame: OutFrame): void;
  /** What keeps a message from being sent, if anything does. */
  check(send: StoredSend): RepriseError | undefined;
  place(room: string): Place | undefined;
  /** A room's pending messages have changed. */
  pendingChanged(): void;
  /** A message was refused for good. */
  messageRefused(send: StoredSend): void;
  /** A frame without a request_id was refused. */
  refused(error: RepriseError, again: boolean): void;
}

/** A request without an answer yet. */
interface Request {
  readonly frame: OutFrame;
  readonly resolve: () => void;
  readonly reject: (error: RepriseError) => void;
  readonly cancelTimer: () => void;
  /** How often it was refused for a while. */
  tries: number;
  /** Whether it is under way on the present attachment. */
  sent: boolean;
  /** Streams that the server ended while it was under way. */
  strikes: number;
}

/**
 * Sends messages and requests until each has its answer, over as many
 * attachments as it takes. Messages are idempotent by client_id, joins and
 * leaves by their nature. What cannot succeed is not repeated, and no frame
 * takes the stream with it that the others share.
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
    for (const id of this.#requests.keys()) this.#sendRequest(id);
    this.pump();
  }

  /**
   * The attachment is gone. With a verdict, the server has ended it for what
   * this client had sent, and it does not say which frame: one that is under
   * way each time is given up.
   */
  detached(verdict?: RepriseError): void {
    for (const send of this.outbox.detached(verdict, maxStrikes)) this.host.messageRefused(send);
    for (const [id, request] of this.#requests) {
      if (verdict && request.sent && ++request.strikes >= maxStrikes) this.#settle(id, verdict);
      request.sent = false;
    }
  }

  /** Sends the messages whose turn it is. */
  pump(): void {
    if (!this.host.attached()) return;
    for (let ready = this.outbox.take(); ready.length > 0; ready = this.outbox.take()) {
      for (const send of ready) this.#sendMessage(send);
    }
  }

  /** Resolves when the server has carried the frame out. */
  request(frame: OutFrame["frame"]): Promise<void> {
    const requestId = `r:${++this.#count}`;
    const whole = { requestId, ...(frame && { frame }) };
    return new Promise((resolve, reject) => {
      const late = new RepriseError("no answer in time; it may be carried out all the same", Code.DeadlineExceeded);
      const cancelTimer = this.env.after(requestMs, () => this.#settle(requestId, late));
      const begin = { tries: 0, sent: false, strikes: 0 };
      this.#requests.set(requestId, { frame: whole, resolve, reject, cancelTimer, ...begin });
      if (this.host.attached()) this.#sendRequest(requestId);
    });
  }

  /** Rejects the requests that have no answer. */
  rejectAll(error: RepriseError): void {
    for (const id of this.#requests.keys()) this.#settle(id, error);
  }

  /** Forgets everything. */
  clear(): void {
    this.rejectAll(new RepriseError("the session has ended", Code.Canceled));
    this.outbox.clear();
  }

  receipt({ requestId, result }: Receipt): void {
    this.#settle(requestId);
    if (result.case !== "sendMessage") return;
    const { room, offset } = result.value;
    this.outbox.confirmed(requestId.slice(2), offset, this.host.place(room));
    this.host.pendingChanged();
    this.pump();
  }

  fault(fault: Fault): void {
    const { requestId } = fault;
    const error = RepriseError.fromFault(fault);
    const again = isAgain(error);
    if (requestId.startsWith("m:")) this.#messageRefused(requestId.slice(2), error, again);
    else if (requestId.startsWith("r:")) this.#requestRefused(requestId, error, again);
    else this.host.refused(error, again);
  }

  #sendMessage(send: StoredSend): void {
    const { clientId, room, text } = send;
    const wrong = this.host.check(send);
    if (wrong) return this.#messageRefused(clientId, wrong, false);
    const frame = { case: "sendMessage", value: { room, text, clientId } } as const;
    try {
      this.host.send({ requestId: `m:${clientId}`, frame });
    } catch (error) {
      this.#messageRefused(clientId, RepriseError.from(error), false);
    }
  }

  #sendRequest(id: string): void {
    const request = this.#requests.get(id);
    if (!request) return;
    request.sent = true;
    try {
      this.host.send(request.frame);
    } catch (error) {
      this.#settle(id, RepriseError.from(error));
    }
  }

  #settle(id: string, error?: RepriseError): void {
    const request = this.#requests.get(id);
    if (!request) return;
    this.#requests.delete(id);
    request.cancelTimer();
    if (error) request.reject(error);
    else request.resolve();
  }

  #messageRefused(clientId: string, error: RepriseError, again: boolean): void {
    if (again) {
      const wait = this.outbox.postponed(clientId, error.message);
      this.env.after(waitMs(error, wait.tries), () => {
        wait.over = true;
        this.pump();
      });
    } else {
      const send = this.outbox.refused(clientId, error.message);
      if (send) this.host.messageRefused(send);
    }
    this.host.pendingChanged();
    if (!again) this.pump();
  }

  #requestRefused(id: string, error: RepriseError, again: boolean): void {
    if (!again) return this.#settle(id, error);
    const request = this.#requests.get(id);
    if (!request) return;
    request.sent = false;
    this.env.after(waitMs(error, request.tries++), () => {
      if (!request.sent && this.host.attached()) this.#sendRequest(id);
    });
  }
}

/** How long to wait after so many refusals before this one. */
function waitMs({ retryAfterMs }: RepriseError, tries: number): number {
  return retryAfterMs || Math.min(resendMs.longest, resendMs.first * 2 ** Math.min(tries, 10));
}

/**
 * Whether a refused frame will be accepted later. An attachment that was
 * taken over answers FENCED until the newer one repeats the frame.
 */
function isAgain(error: RepriseError): boolean {
  return !error.final || error.reason === "FENCED" || error.reason === "NOT_ATTACHED";
}
