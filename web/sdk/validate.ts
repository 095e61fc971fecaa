import { invalid } from "./errors";
import type { RepriseError } from "./errors";

/** Bytes of a message's text that a server takes if it does not say. */
export const defaultTextBytes = 64 * 1024;
/** Bytes of a name in UTF-8. */
const nameBytes = 128;
/** Newest events that a room or a new session may begin with. */
const maxHistory = 1000;

/**
 * Returns what keeps a name (of a user or a room) from being sent, if anything
 * does. It is a light form of the server's rule, which decides: RFC 8265,
 * UsernameCasePreserved, unchanged.
 */
export function checkName(field: string, name: unknown): RepriseError | undefined {
  if (typeof name !== "string" || name === "") return invalid(field, "must not be empty");
  if (/\p{Cs}/u.test(name)) return invalid(field, "must be well-formed Unicode: it has half of a surrogate pair");
  if (/[\s\p{Cc}]/u.test(name)) return invalid(field, "must not have spaces or control characters");
  if (name !== name.normalize("NFC")) return invalid(field, 'must be in normal form C: use name.normalize("NFC")');
  const bytes = bytesOf(name);
  return bytes > nameBytes ? invalid(field, `must have at most ${nameBytes} bytes in UTF-8, has ${bytes}`) : undefined;
}

/** Returns what keeps a message's text from being sent, if anything does. */
export function checkText(text: unknown, limit: number): RepriseError | undefined {
  if (typeof text !== "string" || text === "") return invalid("text", "must not be empty");
  if (/\p{Cs}/u.test(text)) return invalid("text", "must be well-formed Unicode: it has half of a surrogate pair");
  const bytes = bytesOf(text);
  return bytes > limit ? invalid("text", `must have at most ${limit} bytes in UTF-8, has ${bytes}`) : undefined;
}

/** Returns what keeps a number of events to begin with from being asked for, if anything does. */
export function checkHistory(count: number): RepriseError | undefined {
  const fits = Number.isInteger(count) && count >= 0 && count <= maxHistory;
  return fits ? undefined : invalid("history", `must be a whole number from 0 to ${maxHistory}, is ${count}`);
}

/** Whether metadata can carry it: printable ASCII alone. */
export function isAscii(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text);
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}
