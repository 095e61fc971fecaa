import type { MessageInitShape } from "@bufbuild/protobuf";
import type { PositionSchema } from "#gen/position_pb";

/** The end of what is held under one incarnation. */
export interface Stretch {
  readonly incarnation: string;
  readonly offset: bigint;
}

/** How many earlier stretches a position carries at most. */
const maxEarlier = 8;

/**
 * How far a room is held: everything up to `offset`, received under
 * `incarnation`, after `earlier` stretches, newest first. Immutable.
 */
export class Place implements Stretch {
  constructor(
    readonly incarnation = "",
    readonly offset = 0n,
    readonly earlier: readonly Stretch[] = [],
  ) {}

  /** The place after holding everything up to offset of an incarnation. */
  advance(incarnation: string, offset: bigint): Place {
    if (incarnation === this.incarnation || this.offset === 0n) return new Place(incarnation, offset, this.earlier);
    const ended = { incarnation: this.incarnation, offset: this.offset };
    const others = this.earlier.filter((s) => s.incarnation !== incarnation);
    return new Place(incarnation, offset, [ended, ...others].slice(0, maxEarlier));
  }

  /** The place after forgetting what is held after `to` of an incarnation. */
  rewind(incarnation: string, to: bigint): Place {
    const earlier = this.earlier.filter((s) => s.offset < to && s.incarnation !== incarnation);
    return new Place(incarnation, to, earlier);
  }

  /** Whether the offset, under this incarnation, is among what is held. */
  holds(incarnation: string, offset: bigint): boolean {
    if (offset > this.offset) return false;
    if (incarnation === this.incarnation) return true;
    return this.earlier.some((s) => s.incarnation === incarnation && offset <= s.offset);
  }

  equals(other: Place | undefined): boolean {
    return other !== undefined && other.offset === this.offset && other.incarnation === this.incarnation;
  }

  /** As it goes over the wire. */
  position(room: string): MessageInitShape<typeof PositionSchema> {
    return { room, incarnation: this.incarnation, offset: this.offset, earlier: this.earlier.map((s) => ({ ...s })) };
  }

  /** As it is stored: offsets as strings, since JSON has no 64-bit integers. */
  toJSON(): StoredPlace {
    return {
      incarnation: this.incarnation,
      offset: String(this.offset),
      earlier: this.earlier.map((s) => ({ incarnation: s.incarnation, offset: String(s.offset) })),
    };
  }

  static fromJSON(stored: StoredPlace): Place {
    const earlier = stored.earlier.map((s) => ({ incarnation: s.incarnation, offset: BigInt(s.offset) }));
    return new Place(stored.incarnation, BigInt(stored.offset), earlier);
  }
}

/** A Place in storage. */
export interface StoredPlace {
  incarnation: string;
  offset: string;
  earlier: { incarnation: string; offset: string }[];
}
