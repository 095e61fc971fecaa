/** What the session core needs of the world; tests bring their own. */
export interface Env {
  /** Milliseconds since 1970. It may jump: a tab can be frozen for days. */
  now(): number;
  /** Calls fn once after ms; the returned function cancels it. */
  after(ms: number, fn: () => void): () => void;
  /** In [0, 1). */
  random(): number;
  /** A fresh random name of at least 96 bits, out of 0-9 a-f. */
  id(): string;
  /** Lives as long as the tab. */
  readonly storage: TabStorage;
  /**
   * Takes the lock called name if it becomes free within waitMs, and returns
   * what releases it; undefined if another tab keeps it, or if there are no
   * locks here.
   */
  lock(name: string, waitMs: number): Promise<(() => void) | undefined>;
}

/** The part of the browser's Storage that is used. */
export type TabStorage = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

/** The environment of a browser tab. */
export function browserEnv(): Env {
  return {
    now: () => Date.now(),
    after(ms, fn) {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
    random: () => Math.random(),
    id: randomId,
    storage: tabStorage(() => window.sessionStorage),
    lock: webLock,
  };
}

/** A browser's storage, or, where its settings block even the look at it, one that takes nothing. */
export function tabStorage(look: () => Storage): TabStorage {
  try {
    return look();
  } catch {
    return {
      length: 0,
      key: () => null,
      getItem: () => null,
      setItem() {
        throw new Error("this browser stores nothing for this page");
      },
      removeItem() {},
    };
  }
}

/** crypto.randomUUID is missing on plain http; this is not. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function webLock(name: string, waitMs: number): Promise<(() => void) | undefined> {
  // Typed as always there, but absent on plain http.
  const locks = navigator.locks as LockManager | undefined;
  if (!locks) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const held = () => new Promise<void>((release) => resolve(() => release()));
    locks.request(name, { signal: AbortSignal.timeout(waitMs) }, held).catch(() => resolve(undefined));
  });
}
