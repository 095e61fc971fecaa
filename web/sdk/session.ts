import { Code } from "@connectrpc/connect";
import type { CallOptions, Client } from "@connectrpc/connect";

import type { ChatService } from "#gen/chat_service_pb";
import type { Events } from "#gen/event_pb";
import type { ServerFrame } from "#gen/frame_pb";
import type { Gap, Rewind } from "#gen/position_pb";
import { RoomClosed_Reason } from "#gen/room_pb";
import type { RoomClosed, RoomState, RoomUnavailable } from "#gen/room_pb";
import { Outcome, Takeover } from "#gen/session_pb";
import type { Welcome } from "#gen/session_pb";
import { sizeOf } from "./acks";
import type { Attachment } from "./attachment";
import type { Dials } from "./carrier";
import { Connection } from "./connection";
import type { Attach } from "./connection";
import type { Env } from "./env";
import { RepriseError } from "./errors";
import { History } from "./history";
import { Keeper } from "./keeper";
import type { OutFrame } from "./link";
import { Outbox } from "./outbox";
import { RoomLog } from "./room-log";
import type { GapEntry, Verdict } from "./room-log";
import { Sender } from "./sender";
import type { State } from "./state";
import { TabStore } from "./storage";
import type { StoredSend, StoredSession } from "./storage";
import { checkHistory, checkName, checkText, defaultTextBytes, isAscii } from "./validate";

/** Unacknowledged event bytes after which the server pauses the stream. */
const windowBytes = 64 * 1024;
/** Newest events that come along when a room is joined. */
const joinHistory = 100;
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
  /** Newest events of each room that a new session begins with; at most 1000. */
  readonly history?: number;
}

/** What has changed. */
export type Change =
  | { readonly what: "state" }
  /** A room has come or gone, or anything about pending messages. */
  | { readonly what: "rooms" }
  /** A room's lines, or whether the server can read it. */
  | { readonly what: "room"; readonly room: string }
  /** A room is lost: `left` if its user has left it, else the server does not say why. */
  | { readonly what: "closed"; readonly room: string; readonly left: boolean }
  /** Something a person should be told. */
  | { readonly what: "notice"; readonly text: string };

/**
 * A tab's place in all of its user's rooms. It keeps itself attached, holds
 * each room's lines up to exactly its position, and stores both, so that the
 * next page load goes on from there.
 *
 * Everything happens on the page's one thread, in the order the server sent
 * it; listeners are called synchronously and must not throw.
 */
export class Session {
  /** Room whose replay should come first. */
  focus = "";

  readonly #options: SessionOptions;
  readonly #env: Env;
  readonly #rooms = new Map<string, RoomLog>();
  readonly #outbox: Outbox;
  readonly #connection: Connection;
  readonly #keeper: Keeper;
  readonly #sender: Sender;
  readonly #history: History;
  readonly #listeners = new Set<(change: Change) => void>();

  #session: StoredSession | undefined;
  /** Names this running client; empty until its first attempt. */
  #instance = "";
  /** Between the Welcome of a session that is not new and the end of its replay. */
  #restoring = false;
  /** Releases the lock of the session, if this tab has it. */
  #unlock = () => {};
  /** Put away while it was connected. */
  #suspended = false;
  /** Bytes of text that the server takes. */
  #textBytes = defaultTextBytes;
  /** To be said once somebody listens. */
  #unsaid: string[] = [];

  /** Throws a RepriseError if the user's name is none, or if no server takes the history. */
  constructor(options: SessionOptions) {
    const wrong = checkName("user", options.user) ?? checkHistory(options.history ?? 0);
    if (wrong) throw wrong;
    this.#options = options;
    this.#env = options.env;
    const store = new TabStore(options.env.storage, options.user);
    for (const log of store.rooms()) this.#rooms.set(log.name, log);
    this.#session = store.session();
    this.#outbox = new Outbox(store);
    for (const log of this.#rooms.values()) this.#outbox.held(log.name, log.place);
    if (store.damaged) this.#unsaid.push("Some of what this tab had stored could not be read, and is forgotten.");
    this.#connection = this.#makeConnection();
    this.#keeper = this.#makeKeeper(store);
    this.#sender = this.#makeSender();
    const callOptions = () => this.#callOptions();
    this.#history = new History(options.client, callOptions, this.#rooms, (room) => {
      this.#keeper.changed(room);
      this.#emit({ what: "room", room });
    });
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
    for (const text of this.#unsaid.splice(0)) this.#emit({ what: "notice", text });
    this.#suspended = false;
    this.#connection.connect();
  }

  /**
   * Detaches; the session stays where it is and can be resumed. Requests
   * without an answer are rejected.
   */
  disconnect(): void {
    this.#keeper.flush();
    this.#suspended = false;
    this.#connection.disconnect(false);
  }

  /** Ends the session, here and on the server, and forgets all of it. */
  end(): void {
    this.#connection.disconnect(true);
    this.#release();
    this.#session = undefined;
    this.#rooms.clear();
    this.#sender.clear();
    this.#keeper.clear();
    this.#emit({ what: "rooms" });
  }

  /** The page is put away: leave nothing open. */
  suspend(): void {
    this.#keeper.flush();
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
    this.#keeper.flush();
  }

  /** Why the server does not take a pending message for now; empty if nothing is known. */
  waitsFor(clientId: string): string {
    return this.#outbox.waitsFor(clientId);
  }

  /**
   * Posts a message. It is kept, over reconnects and reloads, until the server
   * has confirmed or refused it; until then it is in pending. Throws a
   * RepriseError if it can never be sent (INVALID_ARGUMENT), or if too many
   * are waiting.
   */
  send(room: string, text: string): void {
    const wrong = this.#check(room, text);
    if (wrong) throw wrong;
    const stored = this.#outbox.add({ clientId: this.#env.id(), room, text, time: this.#env.now() });
    if (!stored && !this.#keeper.volatile) this.#emit({ what: "notice", text: "This browser's storage is full: a reload loses what is not sent yet." });
    this.#emit({ what: "room", room });
    this.#sender.pump();
  }

  /** Sends a refused message again. */
  retrySend(room: string, clientId: string): void {
    this.#outbox.retry(clientId);
    this.#emit({ what: "room", room });
    this.#sender.pump();
  }

  /** Gives a refused message up. */
  dropSend(room: string, clientId: string): void {
    this.#outbox.remove(clientId);
    this.#emit({ what: "room", room });
  }

  /**
   * Joins a room, and creates it if need be; its newest events come along, at
   * most 1000. As every request it is repeated over reconnects and settles in
   * any case: with a RepriseError if it can never succeed, has no answer within
   * a minute (DEADLINE_EXCEEDED: it may be carried out all the same), or if the
   * session is disconnected first.
   */
  async join(room: string, history = joinHistory): Promise<void> {
    const wrong = checkHistory(history);
    if (wrong) throw wrong;
    return this.#request(room, { case: "joinRoom", value: { room, history } });
  }

  leave(room: string): Promise<void> {
    return this.#request(room, { case: "leaveRoom", value: { room } });
  }

  /**
   * Fetches what a gap left out, as far as it is still there. Rejects with a
   * RepriseError; what was fetched before that stays.
   */
  loadGap(room: string, gap: GapEntry): Promise<void> {
    return this.#history.fill(room, gap).catch(throwTyped);
  }

  /** Fetches a page of events before the oldest line. Rejects with a RepriseError. */
  loadEarlier(room: string): Promise<void> {
    return this.#history.extend(room).catch(throwTyped);
  }

  // Parts, and what they ask for.

  #makeConnection(): Connection {
    const owner = {
      prepare: () => this.#prepare(),
      headers: () => this.#headers(),
      first: () => this.#first(),
      forgetCheckpoint: () => this.#keeper.acks.forgetCheckpoint(),
      welcomed: (welcome: Welcome) => this.#welcomed(welcome),
      frame: (attachment: Attachment, frame: ServerFrame["frame"]) => this.#frame(attachment, frame),
      detached: (verdict?: RepriseError) => this.#sender.detached(verdict),
      stateChanged: () => this.#stateChanged(),
    };
    const probe = async () => this.#options.client.listRooms({ pageSize: 1 }, await this.#callOptions());
    return new Connection(this.#env, owner, this.#options.dials, probe);
  }

  #makeKeeper(store: TabStore): Keeper {
    return new Keeper(this.#env, store, this.#rooms, {
      attached: () => this.#connection.attached,
      send: (frame) => this.#connection.send(frame),
      storageFailed: () =>
        this.#emit({ what: "notice", text: "This browser does not let the page store anything: a reload will start afresh." }),
    });
  }

  #makeSender(): Sender {
    return new Sender(this.#env, this.#outbox, {
      attached: () => this.#connection.attached,
      send: (frame) => this.#connection.send(frame),
      check: ({ room, text }) => this.#check(room, text),
      place: (room) => this.#rooms.get(room)?.place,
      pendingChanged: () => this.#emit({ what: "rooms" }),
      messageRefused: ({ room, text, failed }) => {
        if (this.#rooms.has(room)) return; // It is shown there, with its reason.
        this.#emit({ what: "notice", text: `Not sent to ${room}: "${text.slice(0, 80)}": ${failed}` });
      },
      refused: ({ message }, again) => {
        // Acks alone carry no id, and are not refused while they arrive.
        this.#keeper.acks.refused();
        if (!again) this.#emit({ what: "notice", text: message });
      },
    });
  }

  // Attaching.

  /** Finds out which running client this is. */
  async #prepare(): Promise<void> {
    if (this.#instance) return;
    // A tab that was copied brings the session of its origin along, which
    // still has the lock: they are two running clients, and this one must not
    // pretend to be the other.
    const session = this.#session;
    const mine = session && (await this.#claim(session.id));
    this.#instance ||= mine ? session.instance : this.#env.id();
  }

  #first(): Attach {
    const focus = this.#rooms.has(this.focus) ? [this.focus] : [];
    const common = { instanceId: this.#instance, focus, window: windowBytes };
    if (!this.#session) {
      const value = { ...common, history: this.#options.history ?? 0 };
      return { frame: { case: "open", value }, withCheckpoint: false };
    }
    const { acks } = this.#keeper;
    const { id: sessionId, key: resumeKey } = this.#session;
    const positions = [...this.#rooms.values()]
      .filter((log) => !acks.covers(log))
      .map((log) => log.place.position(log.name));
    const { checkpoint } = acks;
    const value = { ...common, sessionId, resumeKey, takeover: Takeover.FORK, positions, checkpoint };
    return { frame: { case: "resume", value }, withCheckpoint: checkpoint !== "" };
  }

  #welcomed({ sessionId: id, resumeKey: key, outcome, limits }: Welcome): void {
    this.#textBytes = limits?.messageBytes || defaultTextBytes;
    this.#restoring = outcome !== Outcome.NEW;
    const isOther = id !== this.#session?.id;
    if (isOther) void this.#claim(id);
    this.#session = { id, key, instance: this.#instance };
    // What is still so is told again.
    for (const log of this.#rooms.values()) this.#setUnavailable(log, "");
    this.#keeper.welcomed(this.#session, isOther, limits?.ackPositions ?? 0);
    this.#sender.attached();
  }

  /** Takes the lock of a session, unless another tab has it. */
  async #claim(id: string): Promise<boolean> {
    const unlock = await this.#env.lock(`reprise/session/${id}`, reloadMs);
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

  // What the server sends. Each returns what is wrong with the frame, if
  // anything is.

  #frame(attachment: Attachment, frame: ServerFrame["frame"]): string | undefined {
    switch (frame.case) {
      case "roomState":
        return this.#roomState(frame.value);
      case "roomUnavailable":
        return this.#roomUnavailable(frame.value);
      case "roomClosed":
        return this.#roomClosed(frame.value);
      case "rewind":
        return this.#rewind(attachment, frame.value);
      case "gap":
        return this.#gap(attachment, frame.value);
      case "events":
        return this.#events(attachment, frame.value);
      case "caughtUp":
        return this.#caughtUp(attachment, frame.value.room, frame.value.offset);
      case "receipt":
        this.#sender.receipt(frame.value);
        break;
      case "fault":
        this.#sender.fault(frame.value);
        break;
      case "checkpoint":
        this.#keeper.acks.stored(frame.value.id, frame.value.acks);
    }
    return undefined; // A frame of a newer server is skipped.
  }

  #roomState({ room, position }: RoomState): undefined {
    if (!room) return;
    const known = this.#rooms.get(room.name);
    const log = known ?? new RoomLog(room.name);
    log.title = room.title;
    log.unavailable = "";
    this.#rooms.set(room.name, log);
    if (position) log.startAt(position.incarnation, position.offset);
    this.#keeper.handled(room.name, 0);
    this.#emit(known ? { what: "room", room: room.name } : { what: "rooms" });
    // A room that the session has been in, or has gained, and this tab has no
    // lines of: the tab was duplicated before its newest lines were copied, or
    // the room was joined on another device. Show what led up to the position.
    if (!known && this.#restoring && log.start > 0n) this.loadEarlier(room.name).catch(() => {}); // The button is still there.
  }

  /** Nothing of the room comes until its next RoomState; the server tries again by itself. */
  #roomUnavailable({ room, reason }: RoomUnavailable): undefined {
    const log = this.#rooms.get(room);
    if (log) return this.#setUnavailable(log, reason || "ROOM_UNAVAILABLE");
    // Nobody knows a place in it: it is made by its RoomState.
    this.#emit({ what: "notice", text: `The server cannot read the room ${room} just now. It comes when the server can.` });
  }

  #setUnavailable(log: RoomLog, why: string): undefined {
    if (log.unavailable === why) return;
    log.unavailable = why;
    this.#emit({ what: "room", room: log.name });
  }

  #roomClosed({ room, reason }: RoomClosed): undefined {
    if (!this.#rooms.delete(room)) return;
    this.#keeper.dropped(room);
    this.#outbox.closed(room);
    this.#emit({ what: "rooms" });
    this.#emit({ what: "closed", room, left: reason === RoomClosed_Reason.LEFT });
  }

  #rewind(attachment: Attachment, rewind: Rewind): string | undefined {
    const verdict = this.#rooms.get(rewind.room)?.rewind(rewind);
    if (verdict === "new") this.#outbox.rewound(rewind.room, rewind.to);
    const wrong = this.#took(attachment, rewind.room, verdict, 0, `Rewind to ${rewind.to}`);
    if (!wrong) this.#sender.pump();
    return wrong;
  }

  #gap(attachment: Attachment, gap: Gap): string | undefined {
    const verdict = this.#rooms.get(gap.room)?.gap(gap);
    return this.#took(attachment, gap.room, verdict, 0, `Gap from ${gap.first} to ${gap.last}`);
  }

  #events(attachment: Attachment, { room, incarnation, events }: Events): string | undefined {
    const log = this.#rooms.get(room);
    const missed = attachment.missed(room);
    const before = log?.place.offset ?? 0n;
    const verdict = log?.accept(incarnation, events, missed);
    if (missed) attachment.replayed += events.filter((e) => e.offset > before).length;
    const bytes = events.reduce((sum, event) => sum + sizeOf(event), 0);
    const wrong = this.#took(attachment, room, verdict, bytes, `Events after ${events[0]?.after ?? "nothing"}`);
    if (wrong) return wrong;
    for (const { sender, clientId } of events) {
      if (sender === this.user && clientId) this.#outbox.remove(clientId);
    }
    this.#sender.pump();
    return undefined;
  }

  #caughtUp(attachment: Attachment, room: string, offset: bigint): string | undefined {
    if (room === "") {
      this.#restoring = false;
      this.#keeper.caughtUp();
      return undefined;
    }
    attachment.caughtUp.add(room);
    const held = this.#rooms.get(room)?.place.offset ?? 0n;
    return held < offset ? `CaughtUp at ${offset} of room ${room}, of which only ${held} has come` : undefined;
  }

  /** Notes what has been handled, or returns what is wrong. */
  #took(attachment: Attachment, room: string, verdict: Verdict | undefined, bytes: number, what: string): string | undefined {
    if (verdict === undefined) return `${what} of room ${room}, which was not announced`;
    const { place } = this.#rooms.get(room)!;
    if (verdict === "hole") return `${what} of room ${room} does not continue offset ${place.offset}`;
    this.#keeper.handled(room, bytes);
    if (verdict === "held") return undefined;
    attachment.progressed = true;
    this.#outbox.held(room, place);
    this.#emit({ what: "room", room });
    return undefined;
  }

  // Helpers.

  #check(room: string, text: string): RepriseError | undefined {
    return checkName("room", room) ?? checkText(text, this.#textBytes);
  }

  async #request(room: string, frame: OutFrame["frame"]): Promise<void> {
    const wrong = checkName("room", room);
    if (wrong) throw wrong;
    const { name } = this.state;
    if (name === "idle" || name === "closed") throw new RepriseError("not connected: connect first", Code.Unavailable);
    await this.#sender.request(frame);
  }

  #stateChanged(): void {
    const { state } = this;
    if (state.name === "closed") {
      const { message, code, reason } = state;
      this.#sender.rejectAll(new RepriseError(message, code, { reason }));
    } else if (state.name === "idle" && !this.#suspended) {
      this.#sender.rejectAll(new RepriseError("disconnected", Code.Canceled));
    }
    this.#emit({ what: "state" });
  }

  async #headers(): Promise<HeadersInit> {
    const token = await this.#options.token();
    if (isAscii(token)) return { authorization: `Bearer ${token}` };
    throw new RepriseError("the token has characters that a header cannot carry: encode them", Code.Unauthenticated, {
      reason: "TOKEN_INVALID",
    });
  }

  async #callOptions(): Promise<CallOptions> {
    return { headers: await this.#headers(), timeoutMs: callMs };
  }

  #emit(change: Change): void {
    for (const listener of this.#listeners) listener(change);
  }
}

function throwTyped(error: unknown): never {
  throw RepriseError.from(error);
}
