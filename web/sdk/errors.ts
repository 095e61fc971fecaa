import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

/**
 * The stable reason of an error, from its google.rpc.ErrorInfo; empty if it
 * has none.
 */
export function reasonOf(error: ConnectError): string {
  const info = detail(error, "google.rpc.ErrorInfo");
  return info ? new TextDecoder().decode(field(info, 1) ?? new Uint8Array()) : "";
}

/** How long the server asks to wait, in milliseconds, if it says. */
export function retryDelayOf(error: ConnectError): number | undefined {
  const info = detail(error, "google.rpc.RetryInfo");
  const delay = info && field(info, 1);
  if (!delay) return undefined;
  let seconds = 0;
  let nanos = 0;
  const reader = new BinaryReader(delay);
  while (reader.pos < reader.len) {
    const [no, wire] = reader.tag();
    if (no === 1) seconds = Number(reader.int64());
    else if (no === 2) nanos = reader.int32();
    else reader.skip(wire);
  }
  return seconds * 1000 + nanos / 1e6;
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

function detail(error: ConnectError, type: string): Uint8Array | undefined {
  for (const d of error.details) {
    if ("type" in d && d.type === type) return d.value;
  }
  return undefined;
}

/** Returns a length-delimited field. Two fields do not deserve a schema. */
function field(message: Uint8Array, wanted: number): Uint8Array | undefined {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [no, wire] = reader.tag();
    if (no === wanted && wire === 2) return reader.bytes();
    reader.skip(wire);
  }
  return undefined;
}
