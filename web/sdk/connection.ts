import { Code } from "@connectrpc/connect";

import type { ServerFrame } from "#gen/frame_pb";
import type { Welcome } from "#gen/session_pb";
import { Attachment } from "./attachment";
import { Backoff, backoffBounds } from "./backoff";
import { Carrier } from "./carrier";
import type { Dials } from "./carrier";
import type { Env } from "./env";
import { millis, RepriseError } from "./errors";
import type { FirstFrame, OutFrame } from "./link";
import { checkChange } from "./state";
import type { State } from "./state";

/** How long an attempt may take until the Welcome. */
const openMs = 15_000;
/** A stream is dead after a heartbeat interval and this without a frame. */
const graceMs = 10_000;
/** How often the above is looked at. */
const watchMs = 5_000;
/** A stream that lived this long, and brought anything, was more than another failed attempt. */
const provenMs = backoffBounds.first;
/**
 * The wait after a stream is at most this part of how long it lived, so that a
 * client whose link comes and goes is there most of the time. The spread that a
 * server asks for (Welcome.resume_hint) is for the clients that lost it all at
 * once: their streams have lived long.
 */
const awayShare = 10;
/** Longest wait that a server's word brings about. */
const maxHintMs = 5 * 60_000;
/** How long a stream may take to end after goodbye. */
const byeMs = 1_000;

const fenced = new RepriseError("Another tab or program has taken this session over.", Code.FailedPrecondition, {
  reason: "FENCED",
});

/** How to attach. */
export interface Attach {
  readonly frame: FirstFrame;
  /** Whether it relies on a checkpoint that the server may not know. */
  readonly withCheckpoint: boolean;
}

/** What a connection asks of the session it serves. */
export interface Owner {
  /** Called before each attempt. */
  prepare(): Promise<void>;
  /** The credentials for an attempt. */
  headers(): Promise<HeadersInit>;
  first(): Attach;
  /** The server does not know the checkpoint. */
  forgetCheckpoint(): void;
  welcomed(welcome: Welcome): void;
  /**
   * A frame of the current attachment, or a Receipt or Fault of a retired
   * one. Returns what is wrong with it, if it breaks the protocol.
   */
  frame(attachment: Attachment, frame: ServerFrame["frame"]): string | undefined;
  /**
   * The current attachment is gone; what it had under way is unknown. With a
   * verdict if the server ended it for what this client had sent.
   */
  detached(verdict?: RepriseError): void;
  stateChanged(): void;
}

/** Gets a session attached, and keeps it so. */
export class Connection {
  readonly #env: Env;
  readonly #owner: Owner;
  readonly #carrier: Carrier;
  readonly #backoff: Backoff;

  #state: State = { name: "idle" };
  #opening: Attachment | undefined;
  #current: Attachment | undefined;
  /** Raised to silence whatever an earlier attempt has yet to report. */
  #generation = 0;
  /** Whether an attempt is under way, from preparation to Welcome. */
  #attempting = false;
  #retryAt = Infinity;
  #cancelRetry = () => {};
  #cancelWatch = () => {};
  /** Whether the present token was asked for after one was refused. */
  #refreshed = false;

  constructor(env: Env, owner: Owner, dials: Dials, probe: () => Promise<unknown>) {
    this.#env = env;
    this.#owner = owner;
    this.#carrier = new Carrier(dials, probe, () => env.now());
    this.#backoff = new Backoff(() => env.random());
  }

  get state(): State {
    return this.#state;
  }

  /** Whether frames can be sent now. */
  get attached(): boolean {
    return this.#current !== undefined;
  }

  /** Throws a RepriseError if the frame cannot be encoded. */
  send(frame: OutFrame): void {
    this.#current?.link.send(frame);
  }

  /** Attaches, and stays attached until disconnect or a fatal error. */
  connect(): void {
    if (this.#attempting || this.#current) return;
    this.#refreshed = false;
    this.#attempt();
  }

  /** Detaches with a goodbye. */
  disconnect(endSession: boolean): void {
    const current = this.#current;
    if (current) {
      current.link.bye(endSession);
      current.role = "dead";
      this.#current = undefined;
      this.#owner.detached();
      this.#env.after(byeMs, () => current.link.close());
    }
    this.#stop({ name: "idle" });
  }

  /** Detaches at once, for a page that may not run again. */
  suspend(): void {
    this.#stop({ name: "idle" });
  }

  /** The network is back: do not wait any longer. */
  online(): void {
    if (!this.#current && this.#retryAt !== Infinity) this.#attempt();
    this.check();
  }

  /** Looks at the clock, which may have jumped since a timer last ran. */
  check(): void {
    const now = this.#env.now();
    const { heartbeatMs, lastFrame } = this.#current ?? { heartbeatMs: Infinity, lastFrame: 0 };
    if (this.#current && now - lastFrame > heartbeatMs + graceMs) {
      this.fail(this.#current, new RepriseError("nothing heard from the server", Code.Unavailable));
    }
    if (this.#opening && now - this.#opening.lastFrame > openMs) {
      this.fail(this.#opening, new RepriseError("no answer from the server", Code.Unavailable));
    }
    if (now >= this.#retryAt) this.#attempt();
  }

  /** Gives an attachment up, as if its stream had ended with the error. */
  fail(attachment: Attachment, error: unknown): void {
    const { role } = attachment;
    attachment.kill();
    this.#ended(attachment, role, error);
  }

  #attempt(): void {
    this.#cancelRetry();
    this.#retryAt = Infinity;
    this.#attempting = true;
    if (!this.#current) this.#change({ name: "connecting" });
    void this.#open(++this.#generation);
  }

  async #open(generation: number): Promise<void> {
    try {
      await this.#owner.prepare();
      const headers = await this.#owner.headers();
      const dial = await this.#carrier.pick();
      if (generation !== this.#generation) return;
      const { frame, withCheckpoint } = this.#owner.first();
      const attachment = new Attachment(dial(frame, headers), dial, withCheckpoint, this.#env.now());
      this.#opening = attachment;
      this.#watch();
      void this.#read(attachment);
    } catch (error) {
      if (generation === this.#generation) this.#attemptFailed(RepriseError.from(error), false);
    }
  }

  async #read(attachment: Attachment): Promise<void> {
    let error: unknown;
    try {
      for await (const { frame } of attachment.link.frames) {
        if (attachment.role !== "dead") this.#frame(attachment, frame);
      }
    } catch (reason) {
      error = reason;
    }
    const { role } = attachment;
    if (role === "dead") return;
    attachment.kill();
    this.#ended(attachment, role, error ?? new RepriseError("the server ended the stream", Code.Unavailable));
  }

  #frame(attachment: Attachment, frame: ServerFrame["frame"]): void {
    attachment.lastFrame = this.#env.now();
    if (attachment.role === "opening") return this.#first(attachment, frame);
    attachment.heard = true;
    const retired = attachment.role === "retired";
    switch (frame.case) {
      case "heartbeat":
        // Here and not by a timer: a hidden tab's timers hardly run.
        if (!retired) attachment.link.send({ frame: { case: "ack", value: {} } });
        return;
      case "drain":
        if (!retired) this.#moveAfter(millis(frame.value.moveAfter));
        return;
      case "fenced":
        if (!retired) this.#close(fenced);
        return;
      case "moved":
        return; // The end of the stream follows.
      case "welcome":
        return this.fail(attachment, new RepriseError("a second Welcome", Code.Internal));
    }
    if (retired && frame.case !== "receipt" && frame.case !== "fault") return;
    const wrong = this.#owner.frame(attachment, frame);
    if (wrong) return this.fail(attachment, new RepriseError(wrong, Code.Internal));
    if (frame.case === "caughtUp" && frame.value.room === "") this.#caughtUp(attachment);
  }

  #first(attachment: Attachment, frame: ServerFrame["frame"]): void {
    if (frame.case !== "welcome") {
      return this.fail(attachment, new RepriseError(`stream began with ${frame.case}`, Code.Internal));
    }
    const moved = this.#current;
    if (moved) moved.role = "retired";
    attachment.welcome(frame.value, this.#env.now());
    this.#opening = undefined;
    this.#current = attachment;
    this.#attempting = false;
    this.#refreshed = false;
    this.#carrier.welcomed(attachment.dial);
    if (moved) this.#owner.detached();
    this.#owner.welcomed(frame.value);
    // A move is nobody's business: the state stays as it was.
    if (this.#state.name === "connecting") {
      this.#change({ name: "replaying", toReplay: Number(frame.value.eventsToReplay) });
    }
  }

  #caughtUp(attachment: Attachment): void {
    attachment.replaying = false;
    if (this.#state.name === "replaying") this.#change({ name: "live", replayed: attachment.replayed });
  }

  #ended(attachment: Attachment, role: Attachment["role"], reason: unknown): void {
    const error = RepriseError.from(reason);
    if (role === "opening") {
      this.#opening = undefined;
      this.#carrier.failed(attachment.dial, error);
      return this.#attemptFailed(error, attachment.withCheckpoint);
    }
    if (role !== "current") return;
    this.#current = undefined;
    this.#owner.detached(error.final && error.code !== Code.Unauthenticated ? error : undefined);
    const lived = this.#env.now() - attachment.welcomedAt;
    const proven = lived >= provenMs && attachment.heard;
    if (proven || attachment.progressed) this.#backoff.reset();
    if (this.#attempting) return this.#change({ name: "connecting" });
    if (error.reason === "FENCED") return this.#close(error);
    if (proven && error.final && error.code === Code.Unauthenticated) return this.#attempt(); // With a fresh token.
    // A stream that brings one event and ends, again and again, must not become
    // a busy loop: a tenth of next to nothing is no wait.
    this.#retry(error, proven ? this.#spread(attachment.resumeHintMs, lived) : undefined);
  }

  /** A random wait after a stream that lived so long, by the hint of its Welcome. */
  #spread(hintMs: number, lived: number): number {
    const asked = Math.max(Math.min(hintMs, maxHintMs), backoffBounds.first);
    return this.#env.random() * Math.min(asked, lived / awayShare);
  }

  #attemptFailed(error: RepriseError, withCheckpoint: boolean): void {
    this.#attempting = false;
    if (withCheckpoint && error.reason === "POSITIONS_NEEDED") {
      this.#owner.forgetCheckpoint();
      return this.#attempt();
    }
    if (!error.final) return this.#retry(error);
    if (error.code === Code.Unauthenticated && !this.#refreshed) {
      this.#refreshed = true;
      return this.#attempt();
    }
    // While an old stream can still be read, let it say what it has to.
    if (!this.#current) this.#close(error);
  }

  /** Tries again when the error says, or else after a time of its own: a random one that grows, unless given. */
  #retry({ message, reason, retryAfterMs = 0 }: RepriseError, ownMs = this.#backoff.next()): void {
    const asked = Math.min(retryAfterMs, maxHintMs);
    this.#schedule(asked > 0 ? asked : ownMs);
    if (this.#current) return;
    this.#change({ name: "waiting", retryAt: this.#retryAt, failures: this.#backoff.attempts, error: message, reason });
  }

  /** Attaches anew after the delay, while the current stream is still read. */
  #moveAfter(delayMs: number): void {
    if (!this.#attempting) this.#schedule(delayMs);
  }

  #schedule(delayMs: number): void {
    this.#cancelRetry();
    this.#retryAt = this.#env.now() + delayMs;
    this.#cancelRetry = this.#env.after(delayMs, () => this.#attempt());
  }

  #watch(): void {
    this.#cancelWatch();
    this.#cancelWatch = this.#env.after(watchMs, () => {
      this.#watch();
      this.check();
    });
  }

  #close({ code, reason, message }: RepriseError): void {
    this.#stop({ name: "closed", code, reason, message });
  }

  #stop(state: State): void {
    this.#generation++;
    this.#attempting = false;
    this.#cancelRetry();
    this.#cancelWatch();
    this.#retryAt = Infinity;
    this.#opening?.kill();
    this.#opening = undefined;
    if (this.#current) {
      this.#current.kill();
      this.#current = undefined;
      this.#owner.detached();
    }
    this.#change(state);
  }

  #change(state: State): void {
    checkChange(this.#state.name, state.name);
    this.#state = state;
    this.#owner.stateChanged();
  }
}
