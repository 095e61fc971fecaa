import { tabStorage } from "../sdk";

/** What the page remembers by name: in the tab, or in the browser. Where that is not possible it forgets. */
class Memory {
  readonly #storage;

  constructor(look: () => Storage) {
    this.#storage = tabStorage(look);
  }

  get(key: string): string | null {
    return this.#storage.getItem(key);
  }

  set(key: string, value: string): void {
    try {
      this.#storage.setItem(key, value);
    } catch {
      // The status line says that nothing can be stored.
    }
  }

  remove(key: string): void {
    this.#storage.removeItem(key);
  }
}

export const tabMemory = new Memory(() => window.sessionStorage);
export const browserMemory = new Memory(() => window.localStorage);
