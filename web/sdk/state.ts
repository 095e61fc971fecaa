import type { Code } from "@connectrpc/connect";

/** Where the connection is. */
export type State =
  /** Nothing is wanted: not started, disconnected by hand, page put away. */
  | { readonly name: "idle" }
  /** A stream is being opened. */
  | { readonly name: "connecting" }
  /** Attached; `toReplay` events missed meanwhile are on their way. */
  | { readonly name: "replaying"; readonly toReplay: number }
  /** Caught up, after `replayed` events. */
  | { readonly name: "live"; readonly replayed: number }
  /**
   * The next attempt is at `retryAt` (milliseconds since 1970), after so many
   * `failures` in a row. With a `reason`, the server said the `error`; without
   * one, it is the network's (a proxy, a portal, nobody there).
   */
  | {
      readonly name: "waiting";
      readonly retryAt: number;
      readonly failures: number;
      readonly error: string;
      readonly reason: string;
    }
  /** Given up, since the server said so: only connect() or end() goes on. */
  | { readonly name: "closed"; readonly code: Code; readonly reason: string; readonly message: string };

export type StateName = State["name"];

/** Every change of state there is. */
const changes: Readonly<Record<StateName, readonly StateName[]>> = {
  idle: ["connecting"],
  connecting: ["replaying", "waiting", "idle", "closed"],
  replaying: ["live", "connecting", "waiting", "idle", "closed"],
  live: ["connecting", "waiting", "idle", "closed"],
  waiting: ["connecting", "idle", "closed"],
  closed: ["connecting", "idle"],
};

/** Throws if the table has no such change. */
export function checkChange(from: StateName, to: StateName): void {
  if (from !== to && !changes[from].includes(to)) throw new Error(`no change of state from ${from} to ${to}`);
}
