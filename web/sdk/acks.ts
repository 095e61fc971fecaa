import type { Event } from "#gen/event_pb";
import type { Place } from "./place";
import type { RoomLog } from "./room-log";

/** Acknowledged at once beyond this many bytes; well below the window. */
const dueBytes = 16 * 1024;
/** Positions in one Ack frame, if the server does not say. */
const defaultPositions = 1000;

/** Where rooms are, by name. */
type Places = ReadonlyMap<string, Place>;

/**
 * What is to be acknowledged, and what the server is known to have stored: the
 * positions of the Acks that its newest Checkpoint counts. A resume names that
 * Checkpoint and sends only the positions that differ from these.
 */
export class Acks {
  #moved = new Set<string>();
  #bytes = 0;
  /** Sent on this attachment and not in a checkpoint yet, oldest first. */
  #sent: Places[] = [];
  /** How many were sent before those. */
  #counted = 0n;
  /** Whether an Ack was refused, so that counting them is of no use. */
  #miscounted = false;
  readonly #stored = new Map<string, Place>();
  #checkpoint = "";
  #maxPositions = defaultPositions;

  /** Whether so much is unacknowledged that it should not wait. */
  get due(): boolean {
    return this.#bytes >= dueBytes;
  }

  /** The newest checkpoint seen; empty for none. */
  get checkpoint(): string {
    return this.#checkpoint;
  }

  /** A room's place has moved, by events of about so many bytes. */
  handled(room: string, bytes: number): void {
    this.#moved.add(room);
    this.#bytes += bytes;
  }

  /** Takes what is to be acknowledged now: the positions of each Ack. */
  take(rooms: ReadonlyMap<string, RoomLog>): Places[] {
    const acks: Places[] = [];
    let places = new Map<string, Place>();
    for (const name of this.#moved) {
      const place = rooms.get(name)?.place;
      if (!place || place.offset === 0n) continue;
      if (places.size === 0) acks.push(places);
      places.set(name, place);
      if (places.size >= this.#maxPositions) places = new Map();
    }
    this.#moved.clear();
    this.#bytes = 0;
    this.#sent.push(...acks);
    return acks;
  }

  /** The server has stored the first `count` Acks of this attachment. */
  stored(checkpoint: string, count: bigint): void {
    if (this.#miscounted) return;
    for (; this.#counted < count; this.#counted++) {
      for (const [room, place] of this.#sent.shift() ?? []) this.#stored.set(room, place);
    }
    this.#checkpoint = checkpoint;
  }

  /** An Ack was refused, and it is not known which. */
  refused(): void {
    this.#miscounted = true;
  }

  /**
   * A new attachment, whose server takes so many positions in an Ack (0: it
   * does not say): what was under way has an unknown outcome.
   */
  attached(maxPositions = 0): void {
    this.#maxPositions = maxPositions || defaultPositions;
    this.#sent = [];
    this.#counted = 0n;
    this.#miscounted = false;
    this.#bytes = 0;
  }

  /** Whether a resume that names the checkpoint may leave this room out. */
  covers(log: RoomLog): boolean {
    return this.#checkpoint !== "" && log.place.equals(this.#stored.get(log.name));
  }

  /** The server does not know the checkpoint: send all positions. */
  forgetCheckpoint(): void {
    this.#checkpoint = "";
    this.#stored.clear();
  }

  drop(room: string): void {
    this.#moved.delete(room);
    this.#stored.delete(room);
  }
}

/** At least the encoded size of an event; UTF-8 takes 3 bytes a unit at most. */
export function sizeOf(event: Event): number {
  const fixed = 256;
  const { case: kind, value } = event.body;
  if (kind === "message") return fixed + 3 * value.text.length;
  if (kind === "custom") return fixed + 3 * value.data.length;
  return fixed;
}
