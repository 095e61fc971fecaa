// The SDK outside a browser, for tests that need no page: Node's fetch and
// WebSocket, and a storage that lasts as long as the object.
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { ChatService } from "#gen/chat_service_pb";
import { createGrpcWebSocketTransport } from "../sdk/grpc-websocket";
import { connectLink, unaryLink } from "../sdk/link";
import { Session } from "../sdk/session";

export { RepriseError } from "../sdk/errors";

function memory() {
  const items = new Map<string, string>();
  return {
    get length() {
      return items.size;
    },
    key: (i: number) => [...items.keys()][i] ?? null,
    getItem: (key: string) => items.get(key) ?? null,
    setItem: (key: string, value: string) => void items.set(key, value),
    removeItem: (key: string) => void items.delete(key),
  };
}

/** A session of user at a server. `fetchOnly`: as where no websocket gets through. */
export function session(baseUrl: string, user: string, { fetchOnly = false, history = 50 } = {}): Session {
  const web = createGrpcWebTransport({ baseUrl });
  const unary = unaryLink(web);
  const stream = fetchOnly ? unary : connectLink(createGrpcWebSocketTransport({ baseUrl }));
  return new Session({
    user,
    token: () => `dev:${encodeURIComponent(user)}`,
    history,
    dials: { stream, unary },
    client: createClient(ChatService, web),
    env: {
      now: () => Date.now(),
      after(ms, fn) {
        const timer = setTimeout(fn, ms);
        return () => clearTimeout(timer);
      },
      random: () => Math.random(),
      id: () => crypto.randomUUID().replaceAll("-", ""),
      storage: memory(),
      lock: () => Promise.resolve(undefined),
    },
  });
}

/** Resolves once something is so; it is looked at whenever anything changes. */
export function until(session: Session, so: () => boolean, what: string, patienceMs = 60_000): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => done(() => reject(new Error(`${what}: not so, in state ${JSON.stringify(session.state)}`))), patienceMs);
    const stop = session.subscribe(() => so() && done(resolve));
    function done(settle: () => void) {
      clearTimeout(timer);
      stop();
      settle();
    }
    if (so()) done(resolve);
  });
}

/** The texts of a room's messages. */
export function texts(session: Session, room: string): string[] {
  return (session.room(room)?.entries ?? []).flatMap((e) => (e.kind === "message" ? [e.text] : []));
}
