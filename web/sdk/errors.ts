import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

/**
 * The stable reason of an error, from its google.rpc.ErrorInfo; empty if it
 * has none.
 */
export function reasonOf(error: ConnectError): string {
  const reason = detail(error, "google.rpc.ErrorInfo").get(1);
  return reason instanceof Uint8Array ? new TextDecoder().decode(reason) : "";
}

/** How long the server asks to wait, in milliseconds, if it says. */
export function retryDelayOf(error: ConnectError): number | undefined {
  const delay = detail(error, "google.rpc.RetryInfo").get(1);
  if (!(delay instanceof Uint8Array)) return undefined;
  const duration = fields(delay);
  const part = (no: number) => Number(duration.get(no) ?? 0);
  return part(1) * 1000 + part(2) / 1e6;
}

/** A protobuf duration in milliseconds; 0 if absent. */
export function millis(duration: Duration | undefined): number {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : 0;
}

/** Whether an attach or a request that failed with code may be tried again. */
export function isRetryable(code: Code): boolean {
  switch (code) {
    case Code.InvalidArgument:
    case Code.NotFound:
    case Code.AlreadyExists:
    case Code.PermissionDenied:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
    case Code.Unimplemented:
    case Code.Unauthenticated:
      return false;
    default:
      return true;
  }
}

/** The fields of an error's detail; none if it has no such detail. */
function detail(error: ConnectError, type: string): Fields {
  for (const d of error.details) {
    if ("type" in d && d.type === type) return fields(d.value);
  }
  return new Map();
}

type Fields = ReadonlyMap<number, Uint8Array | bigint>;

/**
 * The fields of a message by number: those of length-delimited and varint
 * type, which is all that these details need. Two messages do not deserve a
 * schema. What is malformed reads as empty: it is advice, and must not turn
 * one error into another.
 */
function fields(message: Uint8Array): Fields {
  const found = new Map<number, Uint8Array | bigint>();
  try {
    const reader = new BinaryReader(message);
    while (reader.pos < reader.len) {
      const [no, wire] = reader.tag();
      if (wire === WireType.LengthDelimited) found.set(no, reader.bytes());
      else if (wire === WireType.Varint) found.set(no, BigInt(reader.int64()));
      else reader.skip(wire);
    }
    return found;
  } catch {
    return new Map();
  }
}
