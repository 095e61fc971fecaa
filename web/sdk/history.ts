import type { CallOptions, Client } from "@connectrpc/connect";

import type { ChatService } from "#gen/chat_service_pb";
import type { GapEntry, RoomLog } from "./room-log";

/** Events asked for at once. */
const pageSize = 100;

/** Fetches what is not delivered by itself: gaps, and what is before a log. */
export class History {
  constructor(
    readonly client: Client<typeof ChatService>,
    readonly options: () => Promise<CallOptions>,
    readonly rooms: ReadonlyMap<string, RoomLog>,
    /** Called when a room has more lines. */
    readonly changed: (room: string) => void,
  ) {}

  /** Fetches what a gap left out, as far as it is still there. */
  async fill(room: string, gap: GapEntry): Promise<void> {
    let rest: GapEntry | undefined = gap;
    while (rest) {
      const { first, last }: GapEntry = rest;
      const log = this.rooms.get(room);
      if (!log) return;
      const { epoch } = log;
      const range = { room, after: first - 1n, before: last + 1n, limit: pageSize };
      const page = await this.client.listEvents(range, await this.options());
      if (!this.#still(log, epoch)) return;
      rest = log.fill(rest, page.stretches, page.more);
      this.changed(room);
    }
  }

  /** Fetches a page of events before the oldest line. */
  async extend(room: string): Promise<void> {
    const log = this.rooms.get(room);
    if (!log || log.start === 0n) return;
    const { epoch, start } = log;
    const range = { room, before: start, limit: pageSize, newest: true };
    const page = await this.client.listEvents(range, await this.options());
    if (!this.#still(log, epoch) || log.start !== start) return;
    log.prepend(page.stretches);
    log.exhausted = page.stretches.length === 0 || (page.gap !== undefined && !page.more);
    this.changed(room);
  }

  /** Whether what was asked for is still what is wanted. */
  #still(log: RoomLog, epoch: number): boolean {
    return this.rooms.get(log.name) === log && log.epoch === epoch;
  }
}
