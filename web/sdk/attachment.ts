import type { Welcome } from "#gen/session_pb";
import { Outcome } from "#gen/session_pb";
import { millis } from "./errors";
import type { Dial, Link } from "./link";

/**
 * One attempt at an attachment, with its own link. Its role tells what its
 * frames mean:
 *
 * - `opening`: waits for the Welcome.
 * - `current`: speaks for the session.
 * - `retired`: a newer one has been welcomed; only receipts are still read.
 * - `dead`: nothing that comes from it counts any more.
 */
export class Attachment {
  role: "opening" | "current" | "retired" | "dead" = "opening";
  /** When the last frame came, or the attempt began. */
  lastFrame: number;
  heartbeatMs = 20_000;
  /** What the server would have a client wait at most when the stream is lost. */
  resumeHintMs = 0;
  /** Until the CaughtUp for all rooms. */
  replaying = true;
  /** Whether events of the replay were missed; false for a new session. */
  resumed = false;
  /** Events of the replay taken so far. */
  replayed = 0;
  /** Rooms whose replay has ended. */
  readonly caughtUp = new Set<string>();
  /** When the Welcome came. */
  welcomedAt = 0;
  /** Whether anything came after it. */
  heard = false;
  /** Whether it brought anything that was not held before. */
  progressed = false;

  constructor(
    readonly link: Link,
    readonly dial: Dial,
    /** Whether the resume relied on a checkpoint. */
    readonly withCheckpoint: boolean,
    now: number,
  ) {
    this.lastFrame = now;
  }

  welcome(welcome: Welcome, now: number): void {
    this.role = "current";
    this.welcomedAt = now;
    this.heartbeatMs = millis(welcome.heartbeat) || this.heartbeatMs;
    this.resumeHintMs = millis(welcome.resumeHint);
    this.resumed = welcome.outcome !== Outcome.NEW;
  }

  /** Whether an event of the room that comes now was missed. */
  missed(room: string): boolean {
    return this.resumed && this.replaying && !this.caughtUp.has(room);
  }

  /** Drops the link and silences whatever it still has to say. */
  kill(): void {
    this.role = "dead";
    this.link.close();
  }
}
