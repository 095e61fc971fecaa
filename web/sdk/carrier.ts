import type { RepriseError } from "./errors";
import { WebSocketNotOpened } from "./grpc-websocket";
import type { Dial } from "./link";

/** Failed opens before we suspect the websocket rather than the server. */
const suspicious = 2;
/** How long to do without a websocket before trying one again. */
const fallbackMs = 10 * 60_000;

/** The two ways to reach a server. */
export interface Dials {
  readonly stream: Dial;
  readonly unary: Dial;
}

/**
 * Chooses what carries the next attachment: a websocket, unless something on
 * the way does not let them through. A refused websocket looks like a server
 * that is down, and streams by fetch are dear (a browser has six connections
 * to a host), so a call by fetch has to prove first that the server is up.
 */
export class Carrier {
  #refused = 0;
  #fallbackUntil = 0;

  constructor(
    readonly dials: Dials,
    /** Any unary call; rejects if the server cannot be reached. */
    readonly probe: () => Promise<unknown>,
    readonly now: () => number,
  ) {}

  /** Rejects with the reason if the server cannot be reached at all. */
  async pick(): Promise<Dial> {
    if (this.now() < this.#fallbackUntil) return this.dials.unary;
    if (this.#refused > suspicious) {
      this.#fallbackUntil = this.now() + fallbackMs;
      return this.dials.unary;
    }
    if (this.#refused === suspicious) await this.probe();
    return this.dials.stream;
  }

  /** The picked link was welcomed. */
  welcomed(dial: Dial): void {
    if (dial === this.dials.stream) this.#refused = 0;
  }

  /** The picked link failed before it was welcomed. */
  failed(dial: Dial, error: RepriseError): void {
    if (dial === this.dials.unary) {
      this.#refused = 0;
      this.#fallbackUntil = 0;
    } else if (error.cause instanceof WebSocketNotOpened) {
      this.#refused++;
    }
  }
}
