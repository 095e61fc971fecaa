import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { ChatService } from "#gen/chat_service_pb";
import { browserEnv } from "./env";
import { createGrpcWebSocketTransport } from "./grpc-websocket";
import { connectLink, unaryLink } from "./link";
import { Session } from "./session";

export { GapReason } from "#gen/position_pb";
export { tabStorage } from "./env";
export { RepriseError } from "./errors";
export type { FieldViolation } from "./errors";
export { followPage } from "./lifecycle";
export type { Entry, EventEntry, GapEntry, RewindEntry, RoomLog } from "./room-log";
export type { Change, Session } from "./session";
export type { State } from "./state";
export type { StoredSend } from "./storage";
export { checkName } from "./validate";

/** How to make a session in a browser tab. */
export interface BrowserOptions {
  /** Where the server is; the page's own origin unless given. */
  readonly baseUrl?: string;
  /** Who the token is for. */
  readonly user: string;
  /** Called at each attempt; never stored. */
  readonly token: () => string | Promise<string>;
  /** Newest events of each room that a new session begins with; at most 1000. */
  readonly history?: number;
}

/** Makes this tab's session, or takes up the one it had before a reload. */
export function createSession({ baseUrl = location.origin, ...options }: BrowserOptions): Session {
  const web = createGrpcWebTransport({ baseUrl });
  const dials = { stream: connectLink(createGrpcWebSocketTransport({ baseUrl })), unary: unaryLink(web) };
  return new Session({ ...options, env: browserEnv(), dials, client: createClient(ChatService, web) });
}
