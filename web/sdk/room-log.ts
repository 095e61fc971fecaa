import { timestampMs } from "@bufbuild/protobuf/wkt";
import { MemberChange_Kind } from "#gen/event_pb";
import type { Event, Events } from "#gen/event_pb";
import { GapReason } from "#gen/position_pb";
import type { Gap, Rewind } from "#gen/position_pb";
import { Place } from "./place";
import type { StoredPlace } from "./place";

/** One line of a room as a person sees it. */
export type Entry = EventEntry | GapEntry | RewindEntry;

/** An event. */
export interface EventEntry {
  readonly kind: "message" | "joined" | "left" | "invited" | "created" | "custom" | "unknown";
  readonly offset: bigint;
  readonly after: bigint;
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly sender: string;
  readonly clientId: string;
  /** Message text; the user who joined, left or was invited; title; type of a custom event. */
  readonly text: string;
  /** Whether it was missed, and came when the session was resumed. */
  readonly replayed: boolean;
}

/** A range that was not sent. */
export interface GapEntry {
  readonly kind: "gap";
  readonly first: bigint;
  readonly last: bigint;
  readonly reason: GapReason;
  /** Whether it can be fetched. */
  readonly recoverable: boolean;
}

/** The place where the log turned out to be another one. */
export interface RewindEntry {
  readonly kind: "rewind";
  /** Newest offset both logs share. */
  readonly offset: bigint;
  /** How many events held after it were dropped. */
  readonly dropped: number;
}

/**
 * What became of a delivery: `new` was taken, `held` was there already,
 * `hole` does not continue what is held and must not be taken.
 */
export type Verdict = "new" | "held" | "hole";

/** Entries kept in memory, and how many are cut at once beyond. */
const maxEntries = 2000;
const cutBy = 500;

/**
 * A room as one tab holds it: the place, and the newest lines up to exactly
 * that place. Both are stored together, so that a reload can neither lose a
 * line nor show one twice.
 */
export class RoomLog {
  title = "";
  /**
   * Why the server cannot read the room just now, as ROOM_UNAVAILABLE; empty if
   * it can. What is missing comes by itself.
   */
  unavailable = "";
  /** Whether the server has nothing before the first line any more. */
  exhausted = false;
  #place: Place;
  #entries: Entry[] = [];
  #epoch = 0;

  constructor(
    readonly name: string,
    place = new Place(),
  ) {
    this.#place = place;
  }

  get place(): Place {
    return this.#place;
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Changes when a rewind makes what is being fetched meaningless. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Offset of the oldest line, to fetch what is before it; 0 for nothing. */
  get start(): bigint {
    const first = this.#entries[0];
    if (!first) return this.#place.offset > 0n ? this.#place.offset + 1n : 0n;
    if (first.kind === "gap") return first.first > 1n ? first.first : 0n;
    if (first.kind === "rewind") return first.offset > 0n ? first.offset + 1n : 0n;
    return first.after > 0n ? first.offset : 0n;
  }

  /** Takes what of a run of events is new. */
  accept(incarnation: string, events: readonly Event[], replayed: boolean): Verdict {
    let verdict: Verdict = "held";
    for (const event of events) {
      if (this.#place.holds(incarnation, event.offset)) continue;
      if (event.after !== this.#place.offset || event.offset <= this.#place.offset) return "hole";
      this.#entries.push(entryOf(event, replayed));
      this.#place = this.#place.advance(incarnation, event.offset);
      verdict = "new";
    }
    if (this.#entries.length > maxEntries) this.#entries.splice(0, cutBy);
    return verdict;
  }

  /** Takes a gap: its end counts as held. */
  gap(gap: Gap): Verdict {
    const held = this.#place.offset;
    if (this.#place.holds(gap.incarnation, gap.last)) return "held";
    if (gap.last <= held || gap.first > held + 1n) return "hole";
    const { last, reason, recoverable } = gap;
    this.#entries.push({ kind: "gap", first: held + 1n, last, reason, recoverable });
    this.#place = this.#place.advance(gap.incarnation, last);
    return "new";
  }

  /**
   * Starts delivery at a place the server names. What lies between is marked,
   * since nobody else will say that it was not sent.
   */
  startAt(incarnation: string, offset: bigint): Verdict {
    if (offset <= this.#place.offset) return "held";
    if (this.#place.offset === 0n && this.#entries.length === 0) {
      this.#place = new Place(incarnation, offset);
      return "new";
    }
    const entry = { first: this.#place.offset + 1n, last: offset, reason: GapReason.POSITION_UNKNOWN };
    this.#entries.push({ kind: "gap", ...entry, recoverable: true });
    this.#place = this.#place.advance(incarnation, offset);
    return "new";
  }

  /** Forgets what is held after the rewind's `to`. */
  rewind(rewind: Rewind): Verdict {
    if (rewind.to > this.#place.offset) return "hole";
    const kept: Entry[] = [];
    let dropped = 0;
    for (const entry of this.#entries) {
      const shared = upTo(entry, rewind.to);
      if (shared) kept.push(shared);
      else if (entry.kind !== "gap" && entry.kind !== "rewind") dropped++;
    }
    kept.push({ kind: "rewind", offset: rewind.to, dropped });
    this.#entries = kept;
    this.#place = this.#place.rewind(rewind.incarnation, rewind.to);
    this.#epoch++;
    return "new";
  }

  /**
   * Puts fetched events in the place of a gap; `more` says that the range has
   * events beyond these. Returns the gap that is left to fetch, if any. What
   * is neither fetched nor to be fetched stays a gap, no longer recoverable.
   */
  fill(gap: GapEntry, stretches: readonly Events[], more: boolean): GapEntry | undefined {
    const at = this.#entries.indexOf(gap);
    if (at < 0) return undefined; // A rewind has taken it away.
    const events = within(stretches, gap.first, gap.last);
    const parts: Entry[] = events.map((event) => entryOf(event, true));
    const before = events[0]?.after ?? gap.last;
    if (before >= gap.first) parts.unshift({ ...gap, last: before, recoverable: false });
    const end = events.at(-1)?.offset ?? gap.last;
    let rest: GapEntry | undefined;
    if (end < gap.last) {
      rest = { ...gap, first: end + 1n, recoverable: more };
      parts.push(rest);
    }
    this.#entries.splice(at, 1, ...parts);
    return more ? rest : undefined;
  }

  /** Puts older events before the first line. */
  prepend(stretches: readonly Events[]): void {
    const before = this.start;
    if (before === 0n) return;
    const events = within(stretches, 1n, before - 1n);
    this.#entries.unshift(...events.map((event) => entryOf(event, false)));
  }

  /** The place, and the newest `limit` lines. */
  toJSON(limit: number): StoredRoom {
    const newest = limit > 0 ? this.#entries.slice(-limit) : [];
    return { title: this.title, place: this.#place.toJSON(), entries: newest.map(storeEntry) };
  }

  static fromJSON(name: string, stored: StoredRoom): RoomLog {
    const log = new RoomLog(name, Place.fromJSON(stored.place));
    log.title = stored.title;
    log.#entries = stored.entries.map(restoreEntry);
    return log;
  }
}

/** A RoomLog in storage. */
export interface StoredRoom {
  title: string;
  place: StoredPlace;
  entries: StoredEntry[];
}

/** An Entry with its offsets as strings. */
export type StoredEntry = { [field: string]: string | number | boolean };

const offsetFields = ["offset", "after", "first", "last"];

function storeEntry(entry: Entry): StoredEntry {
  const stored: StoredEntry = {};
  for (const [name, value] of Object.entries(entry)) {
    stored[name] = typeof value === "bigint" ? String(value) : (value as string | number | boolean);
  }
  return stored;
}

function restoreEntry(stored: StoredEntry): Entry {
  const entry: { [field: string]: unknown } = { ...stored };
  for (const name of offsetFields) {
    if (name in entry) entry[name] = BigInt(entry[name] as string);
  }
  return entry as unknown as Entry;
}

/** The part of an entry up to an offset, if there is one. */
function upTo(entry: Entry, to: bigint): Entry | undefined {
  if (entry.kind !== "gap") return entry.offset <= to ? entry : undefined;
  if (entry.first > to) return undefined;
  return entry.last <= to ? entry : { ...entry, last: to };
}

function within(stretches: readonly Events[], first: bigint, last: bigint): Event[] {
  return stretches.flatMap((s) => s.events).filter((e) => e.offset >= first && e.offset <= last);
}

function entryOf(event: Event, replayed: boolean): EventEntry {
  const { offset, after, sender, clientId } = event;
  const time = event.time ? timestampMs(event.time) : 0;
  return { ...bodyOf(event), offset, after, time, sender, clientId, replayed };
}

const memberKinds: ReadonlyMap<MemberChange_Kind, EventEntry["kind"]> = new Map([
  [MemberChange_Kind.JOINED, "joined"],
  [MemberChange_Kind.LEFT, "left"],
  [MemberChange_Kind.INVITED, "invited"],
]);

function bodyOf({ body }: Event): Pick<EventEntry, "kind" | "text"> {
  switch (body.case) {
    case "message":
      return { kind: "message", text: body.value.text };
    case "memberChange":
      return { kind: memberKinds.get(body.value.kind) ?? "unknown", text: body.value.user };
    case "roomChange":
      return { kind: "created", text: body.value.title };
    case "custom":
      return { kind: "custom", text: body.value.type };
    default: // From a newer server: the offset is held all the same.
      return { kind: "unknown", text: "" };
  }
}
