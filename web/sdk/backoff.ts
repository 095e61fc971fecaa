/** Bounds of the wait between attempts, in milliseconds. */
export const backoffBounds = { first: 500, longest: 20_000 } as const;

/**
 * Full jitter: a random time up to a bound that doubles with each attempt. It
 * starts again once a stream has brought something: a link that flaps is not
 * punished, and a server which accepts and drops is not hammered.
 */
export class Backoff {
  #attempts = 0;

  constructor(readonly random: () => number) {}

  /** Failed attempts since the last proven stream. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Returns how long to wait before the next attempt, and counts it. */
  next(): number {
    const bound = Math.min(backoffBounds.longest, backoffBounds.first * 2 ** this.#attempts);
    this.#attempts = Math.min(this.#attempts + 1, 30);
    return this.random() * bound;
  }

  reset(): void {
    this.#attempts = 0;
  }
}
