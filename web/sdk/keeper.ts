import { Acks } from "./acks";
import type { Env } from "./env";
import type { OutFrame } from "./link";
import type { RoomLog } from "./room-log";
import type { StoredSession, TabStore } from "./storage";

/** How long handled events wait to be stored and acknowledged together. */
const flushMs = 200;

/** What a Keeper needs of the session it belongs to. */
export interface KeeperHost {
  attached(): boolean;
  send(frame: OutFrame): void;
  /** Storage does not work: nothing survives this page. */
  storageFailed(): void;
}

/**
 * Stores what has been handled, and acknowledges it to the server: in this
 * order, and both for many events at once.
 */
export class Keeper {
  readonly acks = new Acks();
  /** Rooms that differ from what is stored. */
  readonly #unsaved = new Set<string>();
  /** The session, if it differs from what is stored. */
  #session: StoredSession | undefined;
  /**
   * Whether all rooms of the session have been named. It is not stored before:
   * a room that a stored session does not know would have no place.
   */
  #complete: boolean;
  #volatile = false; // Nothing can be stored, which was said.
  #scheduled = false;
  #cancel = () => {};

  constructor(
    readonly env: Env,
    readonly store: TabStore,
    readonly rooms: ReadonlyMap<string, RoomLog>,
    readonly host: KeeperHost,
  ) {
    this.#complete = store.session() !== undefined;
  }

  /** Whether nothing can be stored. */
  get volatile(): boolean {
    return this.#volatile;
  }

  /** A room's place has moved, by events of about so many bytes. */
  handled(room: string, bytes: number): void {
    this.acks.handled(room, bytes);
    this.changed(room);
    if (this.acks.due) this.flush(); // A hidden tab's timers may take a minute.
  }

  /** A room's lines have changed. */
  changed(room: string): void {
    this.#unsaved.add(room);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#cancel = this.env.after(flushMs, () => this.flush());
  }

  dropped(room: string): void {
    this.#unsaved.delete(room);
    this.acks.drop(room);
    this.store.dropRoom(room);
  }

  /**
   * The server has welcomed a session; isOther: not the one it was;
   * ackPositions: how many it takes in an Ack.
   */
  welcomed(session: StoredSession, isOther: boolean, ackPositions: number): void {
    this.#session = session;
    this.acks.attached(ackPositions);
    if (!isOther) return;
    this.acks.forgetCheckpoint();
    this.#complete = false;
  }

  /** All rooms have been named and caught up. */
  caughtUp(): void {
    this.#complete = true;
    this.flush();
  }

  flush(): void {
    this.#cancel();
    this.#scheduled = false;
    if (!this.#volatile && !this.#write()) {
      this.#volatile = true;
      this.store.clear();
      this.host.storageFailed();
    }
    if (!this.host.attached()) return;
    for (const places of this.acks.take(this.rooms)) {
      const positions = [...places].map(([room, place]) => place.position(room));
      this.host.send({ frame: { case: "ack", value: { positions } } });
    }
  }

  /** Forgets everything, here and in storage. */
  clear(): void {
    this.#cancel();
    this.#scheduled = false;
    this.#unsaved.clear();
    this.#session = undefined;
    this.#complete = false;
    this.acks.attached();
    this.acks.forgetCheckpoint();
    this.store.clear();
  }

  /** Rooms first, so that a stored session never lacks one. */
  #write(): boolean {
    const logs = [...this.#unsaved].flatMap((name) => this.rooms.get(name) ?? []);
    this.#unsaved.clear();
    if (!this.store.saveRooms(logs)) return false;
    if (!this.#session || !this.#complete) return true;
    const session = this.#session;
    this.#session = undefined;
    return this.store.saveSession(session);
  }
}
