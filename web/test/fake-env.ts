import type { Env, TabStorage } from "../sdk/env";

/** Lets everything that is ready to run, run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** A small seeded generator of numbers in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** sessionStorage of one tab; quota in characters. */
export class FakeStorage implements TabStorage {
  quota = Infinity;
  constructor(readonly items = new Map<string, string>()) {}

  get length(): number {
    return this.items.size;
  }

  key(index: number): string | null {
    return [...this.items.keys()][index] ?? null;
  }

  getItem(key: string): string | null {
    return this.items.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    let used = key.length + value.length;
    for (const [k, v] of this.items) if (k !== key) used += k.length + v.length;
    if (used > this.quota) throw new DOMException("full", "QuotaExceededError");
    this.items.set(key, value);
  }

  removeItem(key: string): void {
    this.items.delete(key);
  }

  /** What another tab gets when this one is copied. */
  copy(): FakeStorage {
    const copy = new FakeStorage(new Map(this.items));
    copy.quota = this.quota;
    return copy;
  }
}

/** The clock and the locks that all tabs share. */
export class FakeWorld {
  time = 1_700_000_000_000;
  readonly locks = new Set<string>();
  #timers: { at: number; fn: () => void }[] = [];
  #ids = 0;

  constructor(readonly random = () => 0.5) {}

  /** A tab: its own storage, the world's clock and locks. */
  tab(storage = new FakeStorage()): FakeTab {
    return new FakeTab(this, storage);
  }

  after(ms: number, fn: () => void): () => void {
    const timer = { at: this.time + ms, fn };
    this.#timers.push(timer);
    return () => (this.#timers = this.#timers.filter((t) => t !== timer));
  }

  /** Moves the clock, running what is due in order. */
  async advance(ms: number): Promise<void> {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const next = this.#timers.reduce<{ at: number; fn: () => void } | undefined>(
        (best, t) => (t.at <= end && (!best || t.at < best.at) ? t : best),
        undefined,
      );
      if (!next) break;
      this.#timers = this.#timers.filter((t) => t !== next);
      this.time = Math.max(this.time, next.at);
      next.fn();
      await settle();
    }
    this.time = end;
  }

  /** The clock jumps, and no timer has run: a frozen tab, a closed lid. */
  jump(ms: number): void {
    this.time += ms;
  }

  id(): string {
    return (++this.#ids).toString(16).padStart(32, "0");
  }
}

/** One tab's environment. Its timers and callbacks stop when it is closed. */
export class FakeTab implements Env {
  #held = new Set<string>();
  #closed = false;

  constructor(
    readonly world: FakeWorld,
    readonly storage: FakeStorage,
  ) {}

  now = () => this.world.time;
  random = () => this.world.random();
  id = () => this.world.id();
  after = (ms: number, fn: () => void) => this.world.after(ms, () => this.#closed || fn());

  async lock(name: string): Promise<(() => void) | undefined> {
    if (this.world.locks.has(name)) return undefined;
    this.world.locks.add(name);
    this.#held.add(name);
    return () => {
      this.world.locks.delete(name);
      this.#held.delete(name);
    };
  }

  /** The document is gone; the browser frees its locks. */
  close(): void {
    this.#closed = true;
    for (const name of this.#held) this.world.locks.delete(name);
  }
}
