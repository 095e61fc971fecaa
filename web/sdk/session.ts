import { Code, ConnectError } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";

import type { ChatService } from "#gen/chat_service_pb";
import type { Events } from "#gen/event_pb";
import type { Fault, Receipt, ServerFrame } from "#gen/frame_pb";
import type { Gap, Rewind } from "#gen/position_pb";
import type { RoomClosed, RoomState } from "#gen/room_pb";
import { Takeover } from "#gen/session_pb";
import type { Welcome } from "#gen/session_pb";
import { Acks, sizeOf } from "./acks";
import type { Attachment } from "./attachment";
import type { Dials } from "./carrier";
import { Connection } from "./connection";
import type { Owner } from "./connection";
import type { Env } from "./env";
import { isRetryable, millis } from "./errors";
import type { FirstFrame, OutFrame } from "./link";
import { Outbox } from "./outbox";
import { RoomLog } from "./room-log";
import type { GapEntry, Verdict } from "./room-log";
import type { State } from "./state";
import { TabStore } from "./storage";
import type { StoredSend, StoredSession } from "./storage";

/** Unacknowledged event bytes after which the server pauses the stream. */
const windowBytes = 64 * 1024;
/** How long handled events wait to be stored and acknowledged together. */
const flushMs = 200;
/** How long a refused message waits if the server does not say. */
const resendMs = 2_000;
/** Events asked for at once when fetching history. */
const pageSize = 100;
/** How long a page that is being replaced may still have its lock. */
const reloadMs = 300;
/** How long a unary call may take. */
const callMs = 15_000;

/** How to make a Session. */
export interface SessionOptions {
  /** Who the token is for. What is stored for another user is forgotten. */
  readonly user: string;
  /** Called at each attempt; never stored. */
  readonly token: () => string | Promise<string>;
  readonly env: Env;
  readonly dials: Dials;
  /** For unary calls. */
  readonly client: Client<typeof ChatService>;
  /** Newest events of each room that a new session begins with. */
  readonly history?: number;
}

/** What has changed. */
export type Change =
  | { readonly what: "state" }
  /** A room has come or gone. */
  | { readonly what: "rooms" }
  /** A room's lines, or its pending messages. */
  | { readonly what: "room"; readonly room: string }
  /** Something a person should be told. */
  | { readonly what: "notice"; readonly text: string };

/** A join or leave without an answer yet. */
interface Request {
  readonly frame: OutFrame;
  readonly resolve: () => void;
  readonly reject: (error: ConnectError) => void;
}

/**
 * A tab's place in all of its user's rooms. It keeps itself attached, holds
 * each room's lines up to exactly its position, and stores both, so that the
 * next page load goes on from there.
 *
 * Everything happens on the caller's thread, in the order the server sent it;
 * listeners are called synchronously and must not throw.
 */
export class Session implements Owner {
  /** Room whose replay should come first. */
  focus = "";

  readonly #options: SessionOptions;
  readonly #env: Env;
  readonly #store: TabStore;
  readonly #connection: Connection;
  readonly #outbox: Outbox;
  readonly #acks = new Acks();
  readonly #rooms = new Map<string, RoomLog>();
  readonly #requests = new Map<string, Request>();
  readonly #listeners = new Set<(change: Change) => void>();

  #session: StoredSession | undefined;
  /** Names this running client; empty until its first attempt. */
  #instance = "";
  /** Releases the lock of the session, if this tab has it. */
  #unlock = () => {};
  /** Rooms that differ from what is stored. */
  #unsaved = new Set<string>();
  #sessionUnsaved = false;
  /** Whether all rooms of the session have been named: not stored before. */
  #roomsKnown = false;
  /** Storage does not work: nothing survives this page. */
  #volatile = false;
  #flushing = false;
  #cancelFlush = () => {};
  #requestCount = 0;
  #suspended = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#env = options.env;
    this.#store = new TabStore(options.env.storage, options.user);
    this.#session = this.#store.session();
    this.#roomsKnown = this.#session !== undefined;
    for (const log of this.#store.rooms()) this.#rooms.set(log.name, log);
    this.#outbox = new Outbox(this.#store);
    for (const log of this.#rooms.values()) this.#outbox.held(log.name, log.place);
    this.#connection = new Connection(this.#env, this, options.dials, () => this.#probe());
  }

  get user(): string {
    return this.#options.user;
  }

  get state(): State {
    return this.#connection.state;
  }

  /** The session's id; empty before the first Welcome. */
  get id(): string {
    return this.#session?.id ?? "";
  }

  /** The rooms, by name. */
  get rooms(): RoomLog[] {
    return [...this.#rooms.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  room(name: string): RoomLog | undefined {
    return this.#rooms.get(name);
  }

  /** Messages to a room that are not among its events yet. */
  pending(room: string): readonly StoredSend[] {
    return this.#outbox.pending(room);
  }

  /** Calls fn at each change, until the returned function is called. */
  subscribe(fn: (change: Change) => void): () => void {
    this.#listeners.add(fn);
    return () => this.#listeners.delete(fn);
  }

  connect(): void {
    this.#suspended = false;
    this.#connection.connect();
  }

  /** Detaches; the session stays where it is and can be resumed. */
  disconnect(): void {
    this.#flush();
    this.#suspended = false;
    this.#connection.disconnect(false);
  }

  /** Ends the session, here and on the server, and forgets all of it. */
  end(): void {
    this.#connection.disconnect(true);
    this.#cancelFlush();
    this.#flushing = false;
    this.#release();
    this.#store.clear();
    this.#outbox.clear();
    this.#rooms.clear();
    this.#session = undefined;
    this.#acks.attached();
    this.#acks.forgetCheckpoint();
    this.#unsaved.clear();
    for (const request of this.#requests.values()) request.reject(new ConnectError("session ended", Code.Canceled));
    this.#requests.clear();
    this.#emit({ what: "rooms" });
  }

  /** The page is put away: leave nothing open. */
  suspend(): void {
    this.#flush();
    this.#suspended ||= this.state.name !== "idle" && this.state.name !== "closed";
    if (this.#suspended) this.#connection.suspend();
    this.#release();
  }

  /** The page is shown again. */
  wake(): void {
    if (this.#suspended) this.connect();
  }

  /** The network is said to be back. */
  online(): void {
    this.#connection.online();
  }

  /** The page became visible, or the clock may have jumped. */
  check(): void {
    this.#connection.check();
  }

  /** Stores what is not stored yet. */
  save(): void {
    this.#flush();
  }

  /**
   * Posts a message. It is kept, over reconnects and reloads, until the server
   * has confirmed or refused it; until then it is in pending. Throws if too
   * many are waiting.
   */
  send(room: string, text: string): void {
    this.#outbox.add({ clientId: this.#env.id(), room, text, time: this.#env.now() });
    this.#emit({ what: "room", room });
    this.#pump();
  }

  /** Sends a refused message again. */
  retrySend(room: string, clientId: string): void {
    this.#outbox.retry(clientId);
    this.#emit({ what: "room", room });
    this.#pump();
  }

  /** Gives a refused message up. */
  dropSend(room: string, clientId: string): void {
    this.#outbox.remove(clientId);
    this.#emit({ what: "room", room });
  }

  /** Joins a room, and creates it if need be; the newest events come along. */
  join(room: string, history = pageSize): Promise<void> {
    return this.#request({ frame: { case: "joinRoom", value: { room, history } } });
  }

  leave(room: string): Promise<void> {
    return this.#request({ frame: { case: "leaveRoom", value: { room } } });
  }

  /** Fetches what a gap left out, as far as it is still there. */
  async loadGap(room: string, gap: GapEntry): Promise<void> {
    let rest: GapEntry | undefined = gap;
    while (rest) {
      const log = this.#rooms.get(room);
      const epoch = log?.epoch;
      const range = { room, after: rest.first - 1n, before: rest.last + 1n, limit: pageSize };
      const page = await this.#options.client.listEvents(range, await this.#callOptions());
      if (!log || this.#rooms.get(room) !== log || log.epoch !== epoch) return;
      rest = log.fill(rest, page.stretches, page.more);
      this.#unstored(room);
      this.#emit({ what: "room", room });
    }
  }

  /** Fetches events before the oldest line. */
  async loadEarlier(room: string): Promise<void> {
    const log = this.#rooms.get(room);
    if (!log || log.start === 0n) return;
    const { epoch, start } = log;
    const range = { room, before: start, limit: pageSize, newest: true };
    const page = await this.#options.client.listEvents(range, await this.#callOptions());
    if (this.#rooms.get(room) !== log || log.epoch !== epoch || log.start !== start) return;
    log.prepend(page.stretches);
    log.exhausted = page.stretches.length === 0 || (page.gap !== undefined && !page.more);
    this.#unstored(room);
    this.#emit({ what: "room", room });
  }

  // What the connection asks for.

  async prepare(): Promise<void> {
    if (this.#instance) return;
    // A tab that was copied brings the session of its origin along, which
    // still has the lock: they are two running clients, and this one must not
    // pretend to be the other.
    const session = this.#session;
    const mine = session && (await this.#claim(session.id));
    this.#instance ||= mine ? session.instance : this.#env.id();
  }

  async headers(): Promise<HeadersInit> {
    return { authorization: `Bearer ${await this.#options.token()}` };
  }

  first(): { frame: FirstFrame; withCheckpoint: boolean } {
    const focus = this.focus && this.#rooms.has(this.focus) ? [this.focus] : [];
    const common = { instanceId: this.#instance, focus, window: windowBytes };
    const session = this.#session;
    if (!session) {
      return { frame: { case: "open", value: { ...common, history: this.#options.history ?? 0 } }, withCheckpoint: false };
    }
    const { checkpoint } = this.#acks;
    const positions = [...this.#rooms.values()]
      .filter((log) => !this.#acks.covers(log))
      .map((log) => log.place.position(log.name));
    const { id: sessionId, key: resumeKey } = session;
    const value = { ...common, sessionId, resumeKey, takeover: Takeover.FORK, positions, checkpoint };
    return { frame: { case: "resume", value }, withCheckpoint: checkpoint !== "" };
  }

  forgetCheckpoint(): void {
    this.#acks.forgetCheckpoint();
  }

  welcomed(_: Attachment, welcome: Welcome): void {
    const { sessionId: id, resumeKey: key } = welcome;
    if (id !== this.#session?.id) {
      this.#acks.forgetCheckpoint();
      this.#roomsKnown = false;
      void this.#claim(id);
    }
    this.#session = { id, key, instance: this.#instance };
    this.#sessionUnsaved = true;
    this.#acks.attached();
    for (const { frame } of this.#requests.values()) this.#connection.send(frame);
    this.#pump();
  }

  frame(attachment: Attachment, frame: ServerFrame["frame"]): string | undefined {
    switch (frame.case) {
      case "roomState":
        return this.#roomState(frame.value);
      case "roomClosed":
        return this.#roomClosed(frame.value);
      case "rewind":
        return this.#rewind(frame.value);
      case "gap":
        return this.#gap(frame.value);
      case "events":
        return this.#events(attachment, frame.value);
      case "caughtUp":
        return this.#caughtUp(attachment, frame.value.room, frame.value.offset);
      case "receipt":
        return this.#receipt(frame.value);
      case "fault":
        return this.#fault(frame.value);
      case "checkpoint":
        this.#acks.stored(frame.value.id, frame.value.acks);
    }
    return undefined; // A frame of a newer server is skipped.
  }

  detached(): void {
    this.#outbox.detached();
  }

  stateChanged(): void {
    this.#emit({ what: "state" });
  }

  // Rooms.

  #roomState({ room, position }: RoomState): undefined {
    if (!room) return;
    let log = this.#rooms.get(room.name);
    const isNew = !log;
    log ??= new RoomLog(room.name);
    log.title = room.title;
    this.#rooms.set(room.name, log);
    if (position) log.startAt(position.incarnation, position.offset);
    this.#moved(room.name, 0);
    this.#emit(isNew ? { what: "rooms" } : { what: "room", room: room.name });
  }

  #roomClosed({ room }: RoomClosed): undefined {
    if (!this.#rooms.delete(room)) return;
    this.#unsaved.delete(room);
    this.#acks.drop(room);
    this.#store.dropRoom(room);
    this.#emit({ what: "rooms" });
  }

  #rewind(rewind: Rewind): string | undefined {
    const verdict = this.#rooms.get(rewind.room)?.rewind(rewind);
    if (verdict === "new") this.#outbox.rewound(rewind.room, rewind.to);
    const wrong = this.#took(rewind.room, verdict, 0, `Rewind to ${rewind.to}`);
    if (!wrong) this.#pump();
    return wrong;
  }

  #gap(gap: Gap): string | undefined {
    const verdict = this.#rooms.get(gap.room)?.gap(gap);
    return this.#took(gap.room, verdict, 0, `Gap from ${gap.first} to ${gap.last}`);
  }

  #events(attachment: Attachment, events: Events): string | undefined {
    const log = this.#rooms.get(events.room);
    const missed = attachment.missed(events.room);
    const before = log?.place.offset ?? 0n;
    const verdict = log?.accept(events, missed);
    if (missed) attachment.replayed += events.events.filter((e) => e.offset > before).length;
    const bytes = events.events.reduce((sum, event) => sum + sizeOf(event), 0);
    const wrong = this.#took(events.room, verdict, bytes, `Events after ${events.events[0]?.after ?? "nothing"}`);
    if (wrong) return wrong;
    for (const { sender, clientId } of events.events) {
      if (sender === this.user && clientId) this.#outbox.remove(clientId);
    }
    this.#pump();
    return undefined;
  }

  #caughtUp(attachment: Attachment, room: string, offset: bigint): string | undefined {
    if (room !== "") {
      attachment.caughtUp.add(room);
      const held = this.#rooms.get(room)?.place.offset ?? 0n;
      return held < offset ? `CaughtUp at ${offset} of room ${room}, of which only ${held} has come` : undefined;
    }
    this.#roomsKnown = true;
    this.#flush();
    return undefined;
  }

  /** Notes what has been handled, or returns what is wrong. */
  #took(room: string, verdict: Verdict | undefined, bytes: number, what: string): string | undefined {
    if (verdict === undefined) return `${what} of room ${room}, which was not announced`;
    const place = this.#rooms.get(room)!.place;
    if (verdict === "hole") return `${what} of room ${room} does not continue offset ${place.offset}`;
    this.#moved(room, bytes);
    if (verdict === "held") return undefined;
    this.#outbox.held(room, place);
    this.#emit({ what: "room", room });
    return undefined;
  }

  // Storing and acknowledging.

  #moved(room: string, bytes: number): void {
    this.#acks.handled(room, bytes);
    this.#unstored(room);
    if (this.#acks.due) this.#flush();
  }

  #unstored(room: string): void {
    this.#unsaved.add(room);
    if (this.#flushing) return;
    this.#flushing = true;
    this.#cancelFlush = this.#env.after(flushMs, () => this.#flush());
  }

  /** Stores, then acknowledges: in this order, see TabStore. */
  #flush(): void {
    this.#cancelFlush();
    this.#flushing = false;
    this.#write();
    if (!this.#connection.attached) return;
    for (const places of this.#acks.take(this.#rooms)) {
      const positions = [...places].map(([room, place]) => place.position(room));
      this.#connection.send({ frame: { case: "ack", value: { positions } } });
    }
  }

  #write(): void {
    if (this.#volatile) return;
    const logs = [...this.#unsaved].flatMap((name) => this.#rooms.get(name) ?? []);
    let ok = this.#store.saveRooms(logs);
    this.#unsaved.clear();
    if (ok && this.#sessionUnsaved && this.#session && this.#roomsKnown) {
      ok = this.#store.saveSession(this.#session);
      this.#sessionUnsaved = false;
    }
    if (ok) return;
    this.#volatile = true;
    this.#store.clear();
    this.#emit({ what: "notice", text: "This browser does not let the page store anything: a reload will start afresh." });
  }

  // Sending.

  #pump(): void {
    if (!this.#connection.attached) return;
    for (const { clientId, room, text } of this.#outbox.take(this.#env.now())) {
      const frame = { case: "sendMessage", value: { room, text, clientId } } as const;
      this.#connection.send({ requestId: `m:${clientId}`, frame });
    }
  }

  #request(frame: OutFrame): Promise<void> {
    const { name } = this.state;
    if (name === "idle" || name === "closed") {
      return Promise.reject(new ConnectError("not connected", Code.Unavailable));
    }
    const requestId = `r:${++this.#requestCount}`;
    const whole = { ...frame, requestId };
    return new Promise((resolve, reject) => {
      this.#requests.set(requestId, { frame: whole, resolve, reject });
      this.#connection.send(whole);
    });
  }

  #receipt({ requestId, result }: Receipt): undefined {
    const request = this.#requests.get(requestId);
    if (request) {
      this.#requests.delete(requestId);
      request.resolve();
    }
    if (result.case !== "sendMessage") return;
    const { room, offset } = result.value;
    this.#outbox.confirmed(requestId.slice(2), offset, this.#rooms.get(room)?.place);
    this.#emit({ what: "room", room });
    this.#pump();
  }

  #fault({ requestId, code, reason, message, retryAfter }: Fault): undefined {
    const error = new ConnectError(message, code);
    const request = this.#requests.get(requestId);
    if (request && !isAgain(code, reason)) {
      this.#requests.delete(requestId);
      request.reject(error);
    } else if (request) {
      this.#env.after(millis(retryAfter) || resendMs, () => {
        if (this.#requests.has(requestId)) this.#connection.send(request.frame);
      });
    } else if (requestId.startsWith("m:")) {
      this.#sendRefused(requestId.slice(2), error, reason, millis(retryAfter) || resendMs);
    } else {
      // Acks alone carry no id, and are not refused while they arrive.
      this.#acks.refused();
      if (!isAgain(code, reason)) this.#emit({ what: "notice", text: message });
    }
  }

  #sendRefused(clientId: string, error: ConnectError, reason: string, delay: number): void {
    if (isAgain(error.code, reason)) {
      this.#outbox.postponed(clientId, this.#env.now() + delay);
      this.#env.after(delay, () => this.#pump());
      return;
    }
    this.#outbox.refused(clientId, error.rawMessage);
    this.#emit({ what: "rooms" });
    this.#pump();
  }

  // Helpers.

  /** Takes the lock of a session, unless another tab has it. */
  async #claim(id: string): Promise<boolean> {
    const name = `reprise/session/${id}`;
    const unlock = await this.#env.lock(name, reloadMs);
    if (!unlock) return false;
    this.#unlock();
    this.#unlock = unlock;
    return true;
  }

  /** Stops being the running client that it was. */
  #release(): void {
    this.#unlock();
    this.#unlock = () => {};
    this.#instance = "";
  }

  async #probe(): Promise<void> {
    await this.#options.client.listRooms({ pageSize: 1 }, await this.#callOptions());
  }

  async #callOptions(): Promise<{ headers: HeadersInit; timeoutMs: number }> {
    return { headers: await this.headers(), timeoutMs: callMs };
  }

  #emit(change: Change): void {
    for (const listener of this.#listeners) listener(change);
  }
}

/**
 * Whether a refused frame will be accepted later. An attachment that was
 * taken over answers FENCED until the newer one repeats the frame.
 */
function isAgain(code: Code, reason: string): boolean {
  return isRetryable(code) || reason === "FENCED" || reason === "NOT_ATTACHED";
}
