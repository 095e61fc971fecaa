/**
 * A queue that one side pushes to and the other iterates over, once. Pushing
 * after the end does nothing, so that a late callback is harmless.
 */
export class Queue<T> implements AsyncIterable<T>, AsyncIterator<T, undefined> {
  #items: T[] = [];
  #ended = false;
  #error: unknown;
  #waiting: ((settle: void) => void) | undefined;

  push(item: T): void {
    if (this.#ended) return;
    this.#items.push(item);
    this.#wake();
  }

  /** Ends the iteration after what has been pushed. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Ends the iteration, after what has been pushed, by throwing error. */
  fail(error: unknown): void {
    if (this.#ended) return;
    this.#error = error;
    this.end();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.#items.length === 0) {
      if (this.#ended) {
        if (this.#error === undefined) return { done: true, value: undefined };
        const error = this.#error;
        this.#error = undefined;
        throw error;
      }
      await new Promise<void>((resolve) => (this.#waiting = resolve));
    }
    return { done: false, value: this.#items.shift()! };
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#items = [];
    this.end();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #wake(): void {
    this.#waiting?.();
    this.#waiting = undefined;
  }
}
