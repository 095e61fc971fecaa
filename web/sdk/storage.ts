import { create, toBinary } from "@bufbuild/protobuf";

import { PositionSchema } from "#gen/position_pb";
import type { TabStorage } from "./env";
import { RoomLog } from "./room-log";
import type { StoredRoom } from "./room-log";

/** What a tab remembers of its session. */
export interface StoredSession {
  /** Session id and resume key of the last Welcome. */
  readonly id: string;
  readonly key: string;
  /** This tab's instance id, given up if another tab holds the session's lock. */
  readonly instance: string;
}

/** A message that is not confirmed yet. */
export interface StoredSend {
  readonly clientId: string;
  readonly room: string;
  readonly text: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Offset from the receipt, until the event itself has come. */
  readonly offset?: string;
  /** Why it was refused for good. */
  readonly failed?: string;
}

const prefix = "reprise/1/";
const userKey = prefix + "user";
const sessionKey = prefix + "session";
const outboxKey = prefix + "outbox";
const roomPrefix = prefix + "room/";

/** Lines kept of each room, fewer when storage is full. */
const lineLimits = [200, 50, 10, 0];

/**
 * A tab's memory, in sessionStorage. A room's place and lines are one item,
 * so they never disagree. Nothing is acknowledged to the server before it is
 * stored here, and the session is written after its rooms; so whatever is
 * found after a crash is a place from which everything else follows.
 */
export class TabStore {
  /** Whether something stored could not be read, and was forgotten. */
  damaged = false;
  #limit = 0;

  /** What is stored for another user is wiped. */
  constructor(
    readonly storage: TabStorage,
    readonly user: string,
  ) {
    if (this.#read<string>(userKey) !== user) this.clear();
  }

  session(): StoredSession | undefined {
    const stored = this.#read<StoredSession>(sessionKey);
    if (stored === undefined || hasTexts(stored, "id", "key", "instance")) return stored;
    this.#forget(sessionKey);
    return undefined;
  }

  saveSession(session: StoredSession): boolean {
    return this.#write(userKey, this.user) && this.#write(sessionKey, session);
  }

  /**
   * The rooms of the stored session. Without one they are of no use, since a
   * new session starts elsewhere, and are forgotten; and so is a session of
   * which a room cannot be read, for the server would not name that one again.
   */
  rooms(): RoomLog[] {
    const keys = this.#keys().filter((key) => key.startsWith(roomPrefix));
    const logs = this.session() ? keys.map((key) => this.#room(key)) : [];
    if (logs.length === keys.length && logs.every((log) => log !== undefined)) return logs;
    for (const key of [sessionKey, ...keys]) this.storage.removeItem(key);
    return [];
  }

  /** Stores rooms; false if even their places alone do not fit. */
  saveRooms(logs: Iterable<RoomLog>): boolean {
    for (const log of logs) if (!this.#saveRoom(log)) return false;
    return true;
  }

  dropRoom(name: string): void {
    this.storage.removeItem(roomPrefix + name);
  }

  outbox(): StoredSend[] {
    const stored = this.#read<StoredSend[]>(outboxKey) ?? [];
    const sends = Array.isArray(stored) ? stored.filter(isSend) : [];
    if (sends.length !== stored.length) this.damaged = true;
    return sends;
  }

  saveOutbox(sends: readonly StoredSend[]): boolean {
    return this.#write(userKey, this.user) && this.#write(outboxKey, sends);
  }

  /** Forgets everything. */
  clear(): void {
    for (const key of this.#keys()) this.storage.removeItem(key);
  }

  #saveRoom(log: RoomLog): boolean {
    for (; this.#limit < lineLimits.length; this.#limit++) {
      if (this.#write(roomPrefix + log.name, log.toJSON(lineLimits[this.#limit]!))) return true;
    }
    this.#limit = lineLimits.length - 1;
    return false;
  }

  #keys(): string[] {
    const keys: string[] = [];
    for (let i = 0; i < this.storage.length; i++) {
      const key = this.storage.key(i);
      if (key?.startsWith(prefix)) keys.push(key);
    }
    return keys;
  }

  #room(key: string): RoomLog | undefined {
    try {
      const stored = this.#read<StoredRoom>(key);
      const log = stored && RoomLog.fromJSON(key.slice(roomPrefix.length), stored);
      if (log) toBinary(PositionSchema, create(PositionSchema, log.place.position(log.name)));
      return log;
    } catch {
      this.#forget(key);
      return undefined;
    }
  }

  /** What another version, another script or a person's tools may have left is no reason to fail. */
  #read<T>(key: string): T | undefined {
    const text = this.storage.getItem(key);
    if (text === null) return undefined;
    try {
      return (JSON.parse(text) as T | null) ?? undefined;
    } catch {
      this.#forget(key);
      return undefined;
    }
  }

  #forget(key: string): void {
    this.damaged = true;
    this.storage.removeItem(key);
  }

  #write(key: string, value: unknown): boolean {
    try {
      this.storage.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false; // Full, or forbidden by the browser's settings.
    }
  }
}

function hasTexts(value: unknown, ...names: string[]): boolean {
  const fields = value as Record<string, unknown>;
  return typeof value === "object" && names.every((name) => typeof fields[name] === "string");
}

/** Whether an entry of the outbox is one, whatever its text. */
function isSend(value: unknown): value is StoredSend {
  if (!value || !hasTexts(value, "clientId", "room", "text")) return false;
  const { clientId, time, offset = "0", failed = "" } = value as Record<string, unknown>;
  const plain = /^[0-9A-Za-z_.:-]{1,64}$/.test(clientId as string);
  return plain && typeof time === "number" && typeof failed === "string" && /^\d{1,20}$/.test(String(offset));
}
