import { create } from "@bufbuild/protobuf";
import type { Code } from "@connectrpc/connect";
import assert from "node:assert/strict";

import { ClientFrameSchema } from "#gen/frame_pb";
import type { ClientFrame } from "#gen/frame_pb";
import { Session } from "../sdk/session";
import type { Change } from "../sdk/session";
import type { EventEntry, RoomLog } from "../sdk/room-log";
import { FakeStorage, FakeTab, FakeWorld, settle } from "./fake-env";
import { FakeServer } from "./fake-server";
import type { FakeLink } from "./fake-server";

/** A page in a tab: what a load of the page makes. */
export class Page {
  readonly session: Session;
  readonly changes: Change[] = [];
  readonly states: string[] = [];
  /** Every link this page has opened. */
  readonly links: FakeLink[] = [];

  constructor(
    readonly tab: FakeTab,
    readonly server: FakeServer,
    readonly user: string,
    options: { history?: number; token?: () => string } = {},
  ) {
    const open = server.dial(user);
    const dial: typeof open = (first, headers) => {
      const link = open(first, headers);
      this.links.push(link);
      return link;
    };
    this.session = new Session({
      user,
      token: options.token ?? (() => `dev:${user}`),
      env: tab,
      dials: { stream: dial, unary: dial },
      client: server.client(),
      history: options.history ?? 50,
    });
    this.session.subscribe((change) => {
      this.changes.push(change);
      if (change.what === "state") this.states.push(this.session.state.name);
    });
  }

  get state(): string {
    return this.session.state.name;
  }

  async connect(): Promise<this> {
    this.session.connect();
    await settle();
    return this;
  }

  /** Loads the page again in the same tab. `crash`: with no time to say so. */
  async reload({ crash = false } = {}): Promise<Page> {
    if (!crash) this.session.suspend();
    // The old page's objects live on here; what they write goes nowhere.
    const storage = this.tab.storage.copy();
    this.tab.close();
    for (const link of this.links) link.lose();
    return await new Page(this.tab.world.tab(storage), this.server, this.user).connect();
  }

  room(name = "lobby"): RoomLog {
    const log = this.session.room(name);
    assert.ok(log, `no room ${name}`);
    return log;
  }

  /** The texts of a room's messages. */
  texts(name = "lobby"): string[] {
    return events(this.room(name)).filter((e) => e.kind === "message").map((e) => e.text);
  }

  notices(): string[] {
    return this.changes.flatMap((change) => (change.what === "notice" ? [change.text] : []));
  }
}

/** A server with room lobby, of which alice and bob are members. */
export function world(random?: () => number): { world: FakeWorld; server: FakeServer; page: () => Page } {
  const w = new FakeWorld(random);
  const server = new FakeServer(() => w.time);
  for (const user of ["alice", "bob"]) server.room("lobby").members.add(user);
  return { world: w, server, page: () => new Page(w.tab(new FakeStorage()), server, "alice") };
}

export function events(log: RoomLog): EventEntry[] {
  return log.entries.filter((entry): entry is EventEntry => entry.kind !== "gap" && entry.kind !== "rewind");
}

/** Fails unless each line follows the one before, up to the place. */
export function checkContinuous(log: RoomLog): void {
  let last: bigint | undefined;
  for (const entry of log.entries) {
    if (entry.kind === "rewind") continue;
    if (entry.kind === "gap") {
      if (last !== undefined) assert.equal(entry.first, last + 1n, "a gap that does not follow");
      last = entry.last;
    } else {
      if (last !== undefined) assert.equal(entry.after, last, `a hole or a repeat before offset ${entry.offset}`);
      last = entry.offset;
    }
  }
  if (last !== undefined) assert.equal(last, log.place.offset, "the lines do not reach the place");
}

/** The frames of one kind that a link was sent. */
export function sent(frames: readonly ClientFrame[], kind: ClientFrame["frame"]["case"]): ClientFrame[] {
  return frames.filter((frame) => frame.frame.case === kind);
}

/** Makes a link answer some messages with a Fault. */
export function refuseSends(
  link: FakeLink,
  which: (text: string) => boolean,
  fault: { code: Code; reason: string; message: string; retryAfter?: { seconds: bigint } },
): void {
  const send = link.send.bind(link);
  link.send = (init) => {
    const { requestId, frame } = create(ClientFrameSchema, init);
    if (frame.case !== "sendMessage" || !which(frame.value.text)) return send(init);
    link.push({ case: "fault", value: { requestId, ...fault } });
  };
}
