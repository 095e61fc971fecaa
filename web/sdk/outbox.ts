import { Code } from "@connectrpc/connect";

import { RepriseError } from "./errors";
import type { Place } from "./place";
import type { StoredSend, TabStore } from "./storage";

/** Messages that may wait to be sent. */
export const maxWaiting = 200;

/** Why a message waits, how often it has had to before, and whether it may go. */
export interface Wait {
  readonly why: string;
  readonly tries: number;
  over: boolean;
}

/**
 * Messages that are not confirmed yet, in the order they were written. It
 * survives a reload; a message is sent again under its client_id until there
 * is an answer, which makes one event however often it is sent.
 */
export class Outbox {
  #sends: StoredSend[];
  /** By client_id: sent on the present attachment, no answer yet. */
  readonly #inFlight = new Set<string>();
  /** By client_id: refused for now. */
  readonly #waits = new Map<string, Wait>();
  /** By client_id: streams that the server ended while it was under way. */
  readonly #strikes = new Map<string, number>();

  constructor(readonly store: TabStore) {
    this.#sends = store.outbox();
  }

  /** What is still to be shown as pending in a room. */
  pending(room: string): readonly StoredSend[] {
    return this.#sends.filter((send) => send.room === room);
  }

  /** Why the server does not take a message for now; empty if nothing is known. */
  waitsFor(clientId: string): string {
    return this.#waits.get(clientId)?.why ?? "";
  }

  /** Throws if too much is waiting already. Returns whether it is stored. */
  add(send: StoredSend): boolean {
    if (this.#sends.length >= maxWaiting) {
      const why = `${maxWaiting} messages are waiting to be sent; wait until some have gone`;
      throw new RepriseError(why, Code.ResourceExhausted, { reason: "OUTBOX_FULL", retryAfterMs: 0 });
    }
    this.#sends.push(send);
    return this.#save();
  }

  /**
   * Takes what may be sent now: the oldest waiting message of each room, so
   * that a room's messages keep their order even when one is refused for a
   * while.
   */
  take(): StoredSend[] {
    const ready: StoredSend[] = [];
    const busy = new Set<string>();
    for (const send of this.#sends) {
      if (send.offset !== undefined || send.failed !== undefined || busy.has(send.room)) continue;
      busy.add(send.room);
      if (this.#inFlight.has(send.clientId) || this.#waits.get(send.clientId)?.over === false) continue;
      this.#inFlight.add(send.clientId);
      ready.push(send);
    }
    return ready;
  }

  /**
   * Whatever was under way has an unknown outcome: send it again. Returns what
   * is not, since the server has ended `maxStrikes` streams with a verdict
   * while it was under way.
   */
  detached(verdict?: RepriseError, maxStrikes = 0): StoredSend[] {
    const struck = verdict ? [...this.#inFlight] : [];
    this.#inFlight.clear();
    return struck.flatMap((clientId) => {
      const strikes = (this.#strikes.get(clientId) ?? 0) + 1;
      this.#strikes.set(clientId, strikes);
      return (strikes >= maxStrikes && this.refused(clientId, verdict!.message)) || [];
    });
  }

  /** The server has it at offset; it stays until the event itself is held. */
  confirmed(clientId: string, offset: bigint, place: Place | undefined): void {
    this.#forget(clientId);
    if (place && offset <= place.offset) return this.remove(clientId);
    this.#replace(clientId, (send) => ({ ...send, offset: String(offset) }));
  }

  /**
   * Refused for now: it is not taken again until the wait is over. Whoever calls
   * says when, by a timer and by no clock, which may be set back.
   */
  postponed(clientId: string, why: string): Wait {
    const before = this.#waits.get(clientId);
    const wait = { why, tries: before ? before.tries + 1 : 0, over: false };
    this.#inFlight.delete(clientId);
    this.#waits.set(clientId, wait);
    return wait;
  }

  /** Refused for good. Returns it as it is now, if it is still there. */
  refused(clientId: string, why: string): StoredSend | undefined {
    this.#forget(clientId);
    this.#replace(clientId, (send) => ({ ...send, failed: why }));
    return this.#sends.find((send) => send.clientId === clientId);
  }

  /** A room is lost: what was confirmed there will not come any more. */
  closed(room: string): void {
    this.#sends = this.#sends.filter((send) => send.room !== room || send.offset === undefined);
    this.#save();
  }

  /** Tries a refused message again, at a person's request. */
  retry(clientId: string): void {
    this.#replace(clientId, ({ failed: _, ...send }) => send);
  }

  remove(clientId: string): void {
    this.#forget(clientId);
    const kept = this.#sends.filter((send) => send.clientId !== clientId);
    if (kept.length === this.#sends.length) return;
    this.#sends = kept;
    this.#save();
  }

  /** The events of a room are held up to a place: what they confirm goes. */
  held(room: string, place: Place): void {
    const kept = this.#sends.filter(
      (send) => send.room !== room || send.offset === undefined || BigInt(send.offset) > place.offset,
    );
    if (kept.length === this.#sends.length) return;
    this.#sends = kept;
    this.#save();
  }

  /**
   * A room's log has lost what was after `to`. A message that was confirmed
   * there, and not yet seen, is sent again.
   */
  rewound(room: string, to: bigint): void {
    for (const { room: at, clientId, offset } of this.#sends) {
      if (at !== room || offset === undefined || BigInt(offset) <= to) continue;
      this.#replace(clientId, ({ offset: _, ...send }) => send);
    }
  }

  clear(): void {
    this.#sends = [];
    this.#inFlight.clear();
    this.#waits.clear();
    this.#strikes.clear();
  }

  #forget(clientId: string): void {
    this.#inFlight.delete(clientId);
    this.#waits.delete(clientId);
    this.#strikes.delete(clientId);
  }

  #replace(clientId: string, change: (send: StoredSend) => StoredSend): void {
    this.#sends = this.#sends.map((send) => (send.clientId === clientId ? change(send) : send));
    this.#save();
  }

  #save(): boolean {
    return this.store.saveOutbox(this.#sends);
  }
}
