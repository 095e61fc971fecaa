import type { Place } from "./place";
import type { StoredSend, TabStore } from "./storage";

/** Messages that may wait to be sent. */
export const maxWaiting = 200;

/**
 * Messages that are not confirmed yet, in the order they were written. It
 * survives a reload; a message is sent again under its client_id until there
 * is an answer, which makes one event however often it is sent.
 */
export class Outbox {
  #sends: StoredSend[];
  /** By client_id: sent on the present attachment, no answer yet. */
  readonly #inFlight = new Set<string>();
  /** By client_id: not before this time. */
  readonly #notBefore = new Map<string, number>();

  constructor(readonly store: TabStore) {
    this.#sends = store.outbox();
  }

  /** What is still to be shown as pending in a room. */
  pending(room: string): readonly StoredSend[] {
    return this.#sends.filter((send) => send.room === room);
  }

  /** Throws if too much is waiting already. */
  add(send: StoredSend): void {
    if (this.#sends.length >= maxWaiting) {
      throw new Error(`${maxWaiting} messages are waiting to be sent; wait until some have gone`);
    }
    this.#sends.push(send);
    this.#save();
  }

  /**
   * Takes what may be sent now: the oldest waiting message of each room, so
   * that a room's messages keep their order even when one is refused for a
   * while.
   */
  take(now: number): StoredSend[] {
    const ready: StoredSend[] = [];
    const busy = new Set<string>();
    for (const send of this.#sends) {
      if (send.offset !== undefined || send.failed !== undefined || busy.has(send.room)) continue;
      busy.add(send.room);
      if (this.#inFlight.has(send.clientId) || (this.#notBefore.get(send.clientId) ?? 0) > now) continue;
      this.#inFlight.add(send.clientId);
      ready.push(send);
    }
    return ready;
  }

  /** Whatever was under way has an unknown outcome: send it again. */
  detached(): void {
    this.#inFlight.clear();
  }

  /** The server has it at offset; it stays until the event itself is held. */
  confirmed(clientId: string, offset: bigint, place: Place | undefined): void {
    this.#forget(clientId);
    if (place && offset <= place.offset) return this.remove(clientId);
    this.#replace(clientId, (send) => ({ ...send, offset: String(offset) }));
  }

  /** Refused for now: try again at a time. */
  postponed(clientId: string, until: number): void {
    this.#inFlight.delete(clientId);
    this.#notBefore.set(clientId, until);
  }

  /** Refused for good. */
  refused(clientId: string, why: string): void {
    this.#forget(clientId);
    this.#replace(clientId, (send) => ({ ...send, failed: why }));
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
    this.#notBefore.clear();
  }

  #forget(clientId: string): void {
    this.#inFlight.delete(clientId);
    this.#notBefore.delete(clientId);
  }

  #replace(clientId: string, change: (send: StoredSend) => StoredSend): void {
    this.#sends = this.#sends.map((send) => (send.clientId === clientId ? change(send) : send));
    this.#save();
  }

  #save(): void {
    this.store.saveOutbox(this.#sends);
  }
}
