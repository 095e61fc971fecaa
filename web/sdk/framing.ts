/** One frame of a gRPC-web byte stream: flag, length, bytes. */
export interface Frame {
  readonly flags: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** Flag of a frame that holds headers or trailers. */
export const trailerFlag = 0x80;
/** Flag of a compressed message. We never offer compression. */
export const compressedFlag = 0x01;

const prefixBytes = 5;

/** Thrown for a frame that announces more than the reader accepts. */
export class FrameTooLarge extends Error {}

/**
 * Cuts a byte stream into frames. Pieces may end anywhere, also within a
 * prefix: the server's writes and the websocket's messages do not keep to
 * frame borders.
 */
export class FrameReader {
  #pieces: Uint8Array[] = [];
  #size = 0;

  constructor(readonly maxBytes: number) {}

  /** Whether the stream ends in the middle of a frame. */
  get partial(): boolean {
    return this.#size > 0;
  }

  /** Takes one piece and returns the frames it completes. */
  push(piece: Uint8Array): Frame[] {
    this.#pieces.push(piece);
    this.#size += piece.length;
    const frames: Frame[] = [];
    for (;;) {
      if (this.#size < prefixBytes) return frames;
      const prefix = this.#peek(prefixBytes);
      const length = new DataView(prefix.buffer, prefix.byteOffset).getUint32(1);
      if (length > this.maxBytes) {
        throw new FrameTooLarge(`frame of ${length} bytes; the limit is ${this.maxBytes}`);
      }
      if (this.#size < prefixBytes + length) return frames;
      const whole = this.#take(prefixBytes + length);
      frames.push({ flags: whole[0]!, data: whole.slice(prefixBytes) });
    }
  }

  /** Returns the first n bytes, joined into the first piece. */
  #peek(n: number): Uint8Array {
    const first = this.#pieces[0]!;
    if (first.length >= n) return first;
    const joined = new Uint8Array(this.#size);
    let at = 0;
    for (const piece of this.#pieces) {
      joined.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [joined];
    return joined;
  }

  #take(n: number): Uint8Array {
    const first = this.#peek(n);
    this.#size -= n;
    if (first.length === n) this.#pieces.shift();
    else this.#pieces[0] = first.subarray(n);
    return first.subarray(0, n);
  }
}

/** Puts the frame's prefix before a message. */
export function envelope(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(prefixBytes + message.length);
  new DataView(out.buffer).setUint32(1, message.length);
  out.set(message, prefixBytes);
  return out;
}

/** Reads the `name: value` lines of a header or trailer frame. */
export function parseHeaders(data: Uint8Array): Headers {
  const headers = new Headers();
  for (const line of new TextDecoder().decode(data).split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.append(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  return headers;
}

/** Writes headers as `name: value` lines. */
export function formatHeaders(headers: Headers): Uint8Array<ArrayBuffer> {
  let text = "";
  headers.forEach((value, name) => (text += `${name}: ${value}\r\n`));
  return new TextEncoder().encode(text);
}
