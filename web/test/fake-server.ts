import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";

import type { ChatService } from "#gen/chat_service_pb";
import { EventSchema, EventsSchema } from "#gen/event_pb";
import type { Event } from "#gen/event_pb";
import { ClientFrameSchema, ServerFrameSchema } from "#gen/frame_pb";
import type { ClientFrame, ServerFrame } from "#gen/frame_pb";
import { GapReason } from "#gen/position_pb";
import type { Position } from "#gen/position_pb";
import { ListEventsResponseSchema } from "#gen/room_pb";
import type { ListEventsRequest } from "#gen/room_pb";
import { Outcome } from "#gen/session_pb";
import type { OpenRequest, ResumeRequest } from "#gen/session_pb";
import type { Dial, FirstFrame, Link, OutFrame } from "../sdk/link";
import { Queue } from "../sdk/queue";

interface Held {
  incarnation: string;
  offset: bigint;
}

interface FakeSession {
  id: string;
  user: string;
  keys: string[];
  attach: bigint;
  checkpoint: string;
  instance: string;
  positions: Map<string, Held>;
  holder: FakeLink | undefined;
}

/** An event and the incarnation it was appended under. */
interface Logged {
  incarnation: string;
  event: Event;
}

/** A room of the model: its log, and the oldest offset that is kept. */
export class FakeRoom {
  log: Logged[] = [];
  oldest = 1n;
  readonly members = new Set<string>();

  constructor(readonly name: string) {}

  get head(): bigint {
    return this.log.at(-1)?.event.offset ?? 0n;
  }

  get incarnation(): string {
    return this.log.at(-1)?.incarnation ?? "";
  }

  /** The last offset of a stretch, 0 if there is no such. */
  endOf(incarnation: string): bigint {
    return this.log.findLast((l) => l.incarnation === incarnation)?.event.offset ?? 0n;
  }

  after(offset: bigint): Logged[] {
    return this.log.filter((l) => l.event.offset > offset && l.event.offset >= this.oldest);
  }
}

/** A model of the server: rooms, sessions, and what DESIGN says of resume. */
export class FakeServer {
  readonly rooms = new Map<string, FakeRoom>();
  readonly sessions = new Map<string, FakeSession>();
  /** Links in the order they were dialled. */
  readonly links: FakeLink[] = [];
  incarnation = "i_1";
  /** Answer to every dial, if it is to fail. */
  refuse: ((first: FirstFrame) => unknown) | undefined;
  /** Whether frames go out by themselves, or by FakeLink.deliver alone. */
  automatic = true;
  replayLimit = Infinity;
  /** Whether nothing follows a Welcome. */
  silent = false;
  /** Rooms that cannot be read at an attach. */
  readonly unreadable = new Set<string>();
  /** Rooms that a user may be in. */
  maxRooms = Infinity;
  /** Welcome.limits. */
  limits: { messageBytes?: number; ackPositions?: number } | undefined;
  heartbeatMs = 20_000;
  resumeHintMs = 0;
  #count = 0;

  constructor(readonly now: () => number) {}

  room(name: string): FakeRoom {
    let room = this.rooms.get(name);
    if (!room) this.rooms.set(name, (room = new FakeRoom(name)));
    return room;
  }

  /** The way in for a client of user. */
  dial(user: string): (...args: Parameters<Dial>) => FakeLink {
    return (first) => {
      const link = new FakeLink(this, user, first);
      this.links.push(link);
      return link;
    };
  }

  get last(): FakeLink {
    return this.links.at(-1)!;
  }

  /** Unary calls of a user. */
  client(): Client<typeof ChatService> {
    const fake = {
      listRooms: async () => ({ rooms: [] }),
      listEvents: async (request: ListEventsRequest) => this.listEvents(request),
    };
    return fake as unknown as Client<typeof ChatService>;
  }

  listEvents({ room, after = 0n, before = 0n, limit = 100, newest }: ListEventsRequest) {
    const its = this.room(room);
    const range = its.after(after).filter((l) => before === 0n || l.event.offset < before);
    const page = newest ? range.slice(-limit) : range.slice(0, limit);
    const stretches = page.map((l) => create(EventsSchema, { room, incarnation: l.incarnation, events: [l.event] }));
    const gap = after + 1n < its.oldest ? { room, first: after + 1n, last: its.oldest - 1n } : undefined;
    const more = page.length < range.length;
    return create(ListEventsResponseSchema, { stretches, more, head: its.head, ...(gap && { gap }) });
  }

  /** Publishes; a known client_id makes no second event. */
  publish(name: string, sender: string, text: string, clientId = ""): { offset: bigint; duplicate: boolean } {
    const known = clientId && this.room(name).log.find((l) => l.event.clientId === clientId && l.event.sender === sender);
    if (known) return { offset: known.event.offset, duplicate: true };
    return { offset: this.append(name, sender, { case: "message", value: { text } }, clientId), duplicate: false };
  }

  append(name: string, sender: string, body: MessageInitShape<typeof EventSchema>["body"], clientId = ""): bigint {
    const room = this.room(name);
    const after = room.head;
    const event = create(EventSchema, {
      offset: after + 1n,
      after,
      time: timestampFromMs(this.now()),
      sender,
      clientId,
      ...(body && { body }),
    });
    room.log.push({ incarnation: this.incarnation, event });
    if (this.automatic) for (const link of this.links) link.deliver();
    return event.offset;
  }

  /** Dies: every stream ends without a word. */
  crash(): void {
    for (const link of this.links) link.lose();
  }

  /** Starts again, on what it has stored. */
  restart(): void {
    this.crash();
    this.incarnation = `i_${++this.#count + 1}`;
  }

  /** Removes events from the start of a room, as retention does. */
  trim(name: string, oldest: bigint): void {
    this.room(name).oldest = oldest;
  }

  open(user: string): FakeSession {
    const id = `s_${++this.#count}`;
    const session = { id, user, keys: [], attach: 0n, checkpoint: "", instance: "", positions: new Map(), holder: undefined };
    this.sessions.set(id, session);
    return session;
  }
}

/** The server's end of one attachment. */
export class FakeLink implements Link {
  readonly frames = new Queue<ServerFrame>();
  /** What the client has sent. */
  readonly got: ClientFrame[] = [];
  closed = false;
  session: FakeSession | undefined;
  readonly cursors = new Map<string, bigint>();
  #acks = 0n;

  constructor(
    readonly server: FakeServer,
    readonly user: string,
    readonly first: FirstFrame,
  ) {
    queueMicrotask(() => this.#begin());
  }

  send(init: OutFrame): void {
    if (this.closed) return;
    const frame = create(ClientFrameSchema, init);
    this.got.push(frame);
    queueMicrotask(() => this.closed || this.#handle(frame));
  }

  bye(endSession: boolean): void {
    this.got.push(create(ClientFrameSchema, { frame: { case: "bye", value: { endSession } } }));
    this.end();
  }

  close(): void {
    this.closed = true;
    this.frames.fail(new ConnectError("canceled", Code.Canceled));
  }

  /** The network is cut: what has not been read is lost. */
  lose(): void {
    this.closed = true;
    void this.frames.return();
  }

  /** The stream ends with an error, after what was sent. */
  drop(error: unknown): void {
    this.closed = true;
    this.frames.fail(error);
  }

  end(): void {
    this.closed = true;
    this.frames.end();
  }

  push(frame: MessageInitShape<typeof ServerFrameSchema>["frame"]): void {
    if (this.server.silent && frame?.case !== "welcome") return;
    if (frame && !this.closed) this.frames.push(create(ServerFrameSchema, { frame }));
  }

  /** Sends what the cursors lack, at most `limit` events. */
  deliver(limit = Infinity): void {
    if (this.closed) return;
    for (const [name, cursor] of this.cursors) {
      for (const { incarnation, event } of this.server.room(name).after(cursor)) {
        if (limit-- <= 0) return;
        this.cursors.set(name, event.offset);
        this.push({ case: "events", value: { room: name, incarnation, events: [event] } });
      }
    }
  }

  #begin(): void {
    const refusal = this.server.refuse?.(this.first);
    if (refusal) return this.drop(refusal);
    if (this.closed) return;
    if (this.first.case === "open") this.#open();
    else this.#resume(this.first.value as ResumeRequest);
  }

  #open(): void {
    const { instanceId, history: wanted } = this.first.value as OpenRequest;
    this.session = this.server.open(this.user);
    this.session.instance = instanceId;
    this.#welcome(Outcome.NEW);
    const history = BigInt(wanted);
    for (const room of this.#readable()) {
      const start = room.head > history ? room.head - history : 0n;
      this.#enter(room, start);
      this.deliver();
      this.push({ case: "caughtUp", value: { room: room.name, offset: room.head, incarnation: room.incarnation } });
    }
    this.push({ case: "caughtUp", value: {} });
  }

  #resume(request: ResumeRequest): void {
    let session = this.server.sessions.get(request.sessionId);
    let outcome = Outcome.EXACT;
    if (request.checkpoint && request.checkpoint !== session?.checkpoint) {
      return this.drop(refusal(Code.FailedPrecondition, "POSITIONS_NEEDED"));
    }
    if (!session) {
      session = this.server.open(this.user);
      outcome = Outcome.REBUILT;
    } else if (this.#heldByAnother(session, request)) {
      const copy = this.server.open(this.user);
      for (const [room, held] of session.positions) copy.positions.set(room, held);
      session = copy;
      outcome = Outcome.FORKED;
    }
    this.session = session;
    session.instance = request.instanceId;
    const before = session.holder;
    this.#welcome(outcome);
    if (before && !before.closed) {
      before.push({ case: "moved", value: { attach: session.attach } });
      before.end();
    }
    for (const room of this.#readable()) this.#replay(room, request.positions.find((p) => p.room === room.name));
    for (const position of request.positions) {
      const room = this.server.rooms.get(position.room);
      if (!room?.members.has(this.user)) this.push({ case: "roomClosed", value: { room: position.room } });
    }
    this.push({ case: "caughtUp", value: {} });
  }

  #heldByAnother(session: FakeSession, { instanceId, resumeKey }: ResumeRequest): boolean {
    if (!session.keys.includes(resumeKey)) return true;
    return session.holder !== undefined && !session.holder.closed && session.instance !== instanceId;
  }

  #welcome(outcome: Outcome): void {
    const session = this.session!;
    session.attach++;
    session.keys.push(`rk_${session.id}_${session.attach}`);
    session.holder = this;
    this.push({
      case: "welcome",
      value: {
        sessionId: session.id,
        resumeKey: session.keys.at(-1)!,
        attach: session.attach,
        outcome,
        heartbeat: { seconds: BigInt(this.server.heartbeatMs / 1000) },
        ...(this.server.limits && { limits: this.server.limits }),
        resumeHint: { seconds: BigInt(this.server.resumeHintMs / 1000) },
      },
    });
  }

  #replay(room: FakeRoom, given: MessageInitShape<typeof import("#gen/position_pb").PositionSchema> | undefined): void {
    const stored = this.session!.positions.get(room.name);
    if (!given && !stored) return this.#enter(room, room.head);
    const position = (given ?? stored!) as Position;
    let start = position.offset;
    const stretches = [position, ...(position.earlier ?? [])];
    const good = stretches.find((s) => s.offset === 0n || (s.offset > 0n && s.offset <= room.endOf(s.incarnation)));
    if (good !== position) {
      // Where the client's newest known stretch ends, if it is a shared one.
      const known = stretches.find((s) => room.endOf(s.incarnation) > 0n);
      const end = known ? room.endOf(known.incarnation) : 0n;
      start = known ? (end < known.offset ? end : known.offset) : 0n;
      this.push({ case: "rewind", value: { room: room.name, to: start, incarnation: start ? known!.incarnation : "" } });
    }
    this.cursors.set(room.name, start);
    if (start >= room.head) return;
    let first = start;
    let reason = GapReason.RETENTION;
    if (room.oldest - 1n > first) first = room.oldest - 1n;
    if (room.head - first > BigInt(Math.min(this.server.replayLimit, 1e9))) {
      first = room.head - BigInt(this.server.replayLimit);
      reason = GapReason.REPLAY_LIMIT;
    }
    if (first > start) {
      const incarnation = room.log.find((l) => l.event.offset === first)!.incarnation;
      const recoverable = reason === GapReason.REPLAY_LIMIT;
      this.push({ case: "gap", value: { room: room.name, first: start + 1n, last: first, reason, recoverable, incarnation } });
      this.cursors.set(room.name, first);
    }
    if (!this.server.automatic) return;
    this.deliver();
    this.push({ case: "caughtUp", value: { room: room.name, offset: room.head, incarnation: room.incarnation } });
  }

  /** Announces a room whose delivery starts after an offset. */
  #enter(room: FakeRoom, start: bigint): void {
    const incarnation = room.log.find((l) => l.event.offset === start)?.incarnation ?? "";
    this.cursors.set(room.name, start);
    this.session!.positions.set(room.name, { incarnation, offset: start });
    this.push({
      case: "roomState",
      value: { room: { name: room.name, head: room.head }, position: { room: room.name, incarnation, offset: start } },
    });
  }

  /** The rooms that can be read; tells which cannot. */
  #readable(): FakeRoom[] {
    const { unreadable } = this.server;
    const rooms = this.#rooms();
    for (const { name } of rooms) if (unreadable.has(name)) this.unavailable(name);
    return rooms.filter(({ name }) => !unreadable.has(name));
  }

  /** Says that a room cannot be read just now. */
  unavailable(room: string): void {
    this.push({ case: "roomUnavailable", value: { room, reason: "ROOM_UNAVAILABLE" } });
  }

  /** Goes on in a room that was unavailable. */
  back(name: string, offset: bigint): void {
    this.#enter(this.server.room(name), offset);
    this.deliver();
  }

  #rooms(): FakeRoom[] {
    return [...this.server.rooms.values()].filter((room) => room.members.has(this.user));
  }

  #handle({ requestId, frame }: ClientFrame): void {
    switch (frame.case) {
      case "sendMessage": {
        const { room, text, clientId } = frame.value;
        const { offset, duplicate } = this.server.publish(room, this.user, text, clientId);
        const value = { room, offset, duplicate, incarnation: this.server.room(room).incarnation };
        return this.push({ case: "receipt", value: { requestId, result: { case: "sendMessage", value } } });
      }
      case "joinRoom":
        return this.#join(requestId, frame.value.room);
      case "leaveRoom": {
        const { room } = frame.value;
        this.server.room(room).members.delete(this.user);
        this.cursors.delete(room);
        this.push({ case: "roomClosed", value: { room } });
        return this.push({ case: "receipt", value: { requestId, result: { case: "leaveRoom", value: {} } } });
      }
      case "ack":
        if (frame.value.positions.length > 0) this.#ack(frame.value.positions);
    }
  }

  #join(requestId: string, name: string): void {
    const room = this.server.room(name);
    if (!room.members.has(this.user) && this.#rooms().length >= this.server.maxRooms) {
      const fault = { requestId, code: Code.ResourceExhausted, reason: "TOO_MANY_ROOMS", message: "leave one" };
      return this.push({ case: "fault", value: fault });
    }
    if (!room.members.has(this.user)) {
      room.members.add(this.user);
      this.#enter(room, room.head);
      this.server.append(name, this.user, { case: "memberChange", value: { kind: 1, user: this.user } });
    }
    this.push({ case: "receipt", value: { requestId, result: { case: "joinRoom", value: { room: { name } } } } });
  }

  #ack(positions: readonly Position[]): void {
    const session = this.session!;
    for (const { room, incarnation, offset } of positions) {
      if (offset > (this.cursors.get(room) ?? 0n)) throw new Error(`acknowledged ${room} ${offset} beyond what was sent`);
      session.positions.set(room, { incarnation, offset });
    }
    session.checkpoint = `cp_${session.id}_${session.attach}_${++this.#acks}`;
    this.push({ case: "checkpoint", value: { id: session.checkpoint, acks: this.#acks } });
  }
}

/** An error as it comes over the wire, with its ErrorInfo. */
export function refusal(code: Code, reason: string, message = reason, retryMs?: number): ConnectError {
  const error = new ConnectError(message, code);
  const bytes = new TextEncoder().encode(reason);
  const domain = new TextEncoder().encode("reprise.chat");
  const value = new Uint8Array([10, bytes.length, ...bytes, 18, domain.length, ...domain]);
  error.details.push({ type: "google.rpc.ErrorInfo", value });
  if (retryMs !== undefined) {
    const seconds = Math.floor(retryMs / 1000);
    error.details.push({ type: "google.rpc.RetryInfo", value: new Uint8Array([10, 2, 8, seconds]) });
  }
  return error;
}
