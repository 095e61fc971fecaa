import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import type { Fault } from "#gen/frame_pb";

/** ErrorInfo.domain of every answer that is this service's own. */
const domain = "reprise.chat";

/** Names one bad field of a request. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** What else is known of a failure. */
export interface ErrorOptions {
  readonly reason?: string;
  readonly fields?: readonly FieldViolation[];
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/**
 * Why something was not done. With a `reason` it is this service's own answer,
 * or this SDK's for what it does not even send. Without one it is the
 * network's: a proxy, a portal, a server that is away. That is never a verdict
 * about what was asked.
 */
export class RepriseError extends Error {
  override readonly name = "RepriseError";
  /** Stable and in capitals, as "ROOM_NOT_FOUND"; empty for the network's. */
  readonly reason: string;
  /** What is wrong with the request, for code INVALID_ARGUMENT. */
  readonly fields: readonly FieldViolation[];
  /** When the server wants to be asked again, in milliseconds, if it says. */
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    readonly code: Code,
    { reason = "", fields = [], retryAfterMs, cause }: ErrorOptions = {},
  ) {
    super(message, { cause });
    this.reason = reason;
    this.fields = fields;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same again cannot succeed either. */
  get final(): boolean {
    if (this.reason === "") return false;
    if (this.code === Code.ResourceExhausted) return this.retryAfterMs === undefined;
    return finalCodes.has(this.code);
  }

  /** Reads any error; one without our ErrorInfo is the network's. */
  static from(error: unknown): RepriseError {
    if (error instanceof RepriseError) return error;
    const from = ConnectError.from(error);
    const { rawMessage, code, cause } = from;
    const reason = reasonOf(from);
    if (!reason) return new RepriseError(rawMessage || `an answer with code ${Code[code]}, without a message`, code, { cause });
    return new RepriseError(rawMessage, code, { reason, retryAfterMs: retryDelayOf(from), fields: violationsOf(from), cause });
  }

  /** Reads the refusal of a frame. */
  static fromFault({ code, reason, message, fields, retryAfter }: Fault): RepriseError {
    const retryAfterMs = retryAfter && millis(retryAfter);
    return new RepriseError(message, code, { reason, retryAfterMs, fields });
  }
}

/** Codes of this service that mean: do not ask for the same again. */
const finalCodes: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
  Code.Unauthenticated,
]);

/** The error for a field that cannot be sent as it is. */
export function invalid(field: string, description: string): RepriseError {
  const fields = [{ field, description }];
  return new RepriseError(`${field} ${description}`, Code.InvalidArgument, { reason: "INVALID_FIELD", fields });
}

/** The stable reason of this service's answer; empty for anybody else's. */
export function reasonOf(error: ConnectError): string {
  const info = detail(error, "google.rpc.ErrorInfo");
  return info && textOf(info, 2) === domain ? textOf(info, 1) : "";
}

/** How long the server asks to wait, in milliseconds, if it says. */
export function retryDelayOf(error: ConnectError): number | undefined {
  const info = detail(error, "google.rpc.RetryInfo");
  if (!info) return undefined;
  const duration = fields(bytesOf(info, 1)[0] ?? new Uint8Array());
  const part = (no: number) => Number(duration.findLast(([n]) => n === no)?.[1] ?? 0);
  return part(1) * 1000 + part(2) / 1e6;
}

function violationsOf(error: ConnectError): FieldViolation[] {
  const bad = detail(error, "google.rpc.BadRequest") ?? [];
  return bytesOf(bad, 1).map((bytes) => {
    const violation = fields(bytes);
    return { field: textOf(violation, 1), description: textOf(violation, 2) };
  });
}

/** A protobuf duration in milliseconds; 0 if absent. */
export function millis(duration: Duration | undefined): number {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : 0;
}

/** The fields of an error's detail, if it has such a detail. */
function detail(error: ConnectError, type: string): Fields | undefined {
  for (const d of error.details) {
    if ("type" in d && d.type === type) return fields(d.value);
  }
  return undefined;
}

type Fields = readonly (readonly [number, Uint8Array | bigint])[];

function bytesOf(message: Fields, no: number): Uint8Array[] {
  return message.flatMap(([n, value]) => (n === no && value instanceof Uint8Array ? [value] : []));
}

function textOf(message: Fields, no: number): string {
  return new TextDecoder().decode(bytesOf(message, no).at(-1));
}

/**
 * The fields of a message with their numbers: those of length-delimited and
 * varint type, which is all that these details need. Four messages do not
 * deserve a schema. What is malformed reads as empty: it is advice, and must
 * not turn one error into another.
 */
function fields(message: Uint8Array): Fields {
  const found: [number, Uint8Array | bigint][] = [];
  try {
    const reader = new BinaryReader(message);
    while (reader.pos < reader.len) {
      const [no, wire] = reader.tag();
      if (wire === WireType.LengthDelimited) found.push([no, reader.bytes()]);
      else if (wire === WireType.Varint) found.push([no, BigInt(reader.int64())]);
      else reader.skip(wire);
    }
    return found;
  } catch {
    return [];
  }
}
