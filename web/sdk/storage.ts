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
  #limit = 0;

  /** What is stored for another user is wiped. */
  constructor(
    readonly storage: TabStorage,
    readonly user: string,
  ) {
    if (this.#read<string>(userKey) !== user) this.clear();
  }

  session(): StoredSession | undefined {
    return this.#read<StoredSession>(sessionKey);
  }

  saveSession(session: StoredSession): boolean {
    return this.#write(userKey, this.user) && this.#write(sessionKey, session);
  }

  /**
   * The rooms of the stored session. Without one they are of no use, since a
   * new session starts elsewhere, and are forgotten.
   */
  rooms(): RoomLog[] {
    const logs: RoomLog[] = [];
    const orphaned = this.storage.getItem(sessionKey) === null;
    for (const key of this.#keys()) {
      if (!key.startsWith(roomPrefix)) continue;
      if (orphaned) {
        this.storage.removeItem(key);
        continue;
      }
      const stored = this.#read<StoredRoom>(key);
      if (stored) logs.push(RoomLog.fromJSON(key.slice(roomPrefix.length), stored));
    }
    return logs;
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
    return this.#read<StoredSend[]>(outboxKey) ?? [];
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

  #read<T>(key: string): T | undefined {
    const text = this.storage.getItem(key);
    return text === null ? undefined : (JSON.parse(text) as T);
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
