// A real HTTP proxy in front of the server, which can answer by itself, as
// proxies, portals and load balancers do whose backend is away.
import { once } from "node:events";
import { createServer, request } from "node:http";
import net from "node:net";

const page = "<!doctype html><title>Welcome to the hotel</title><form action=/login>Accept the terms</form>";
const html = { "content-type": "text/html" };
const status = (code, headers = html, body = page) => ({ code, headers, body });

/** What stands between people and servers has been seen to say. */
export const answers = {
  ...Object.fromEntries(
    [400, 401, 403, 404, 405, 407, 408, 413, 415, 421, 425, 426, 429, 451, 500, 501, 502, 503, 504, 511].map((code) => [`${code}`, status(code)]),
  ),
  "401 that asks for a password": status(401, { ...html, "www-authenticate": 'Basic realm="proxy"' }),
  "503 without a body": status(503, {}, ""),
  "a portal's page, 200": status(200),
  "a redirect to the portal": status(302, { location: "/portal" }, ""),
  "an empty answer of the right type": status(200, { "content-type": "application/grpc-web+proto" }, ""),
  "an empty answer": status(200, {}, ""),
  "no content": status(204, {}, undefined),
  "JSON": status(200, { "content-type": "application/json" }, "{}"),
  "JSON with 403": status(403, { "content-type": "application/json" }, '{"code":7,"message":"denied"}'),
  "garbage of the right type": status(200, { "content-type": "application/grpc-web+proto" }, "garbage"),
  "another service's status": status(200, { "content-type": "application/grpc-web+proto", "grpc-status": "7", "grpc-message": "denied" }, ""),
  "another service's UNIMPLEMENTED": status(200, { "content-type": "application/grpc-web+proto", "grpc-status": "12" }, ""),
  "another service's UNAUTHENTICATED": status(200, { "content-type": "application/grpc-web+proto", "grpc-status": "16" }, ""),
  "hanging up": { raw: "" },
  "no HTTP at all": { raw: "220 smtp.example.com ESMTP\r\n" },
};

export class HttpProxy {
  /** What is answered to everything; the server's own answers if undefined. */
  answer;
  /** Requests that were answered here. */
  answered = 0;
  #server;
  #sockets = new Set();

  /** @param target () => "host:port" of the server */
  constructor(target) {
    this.target = target;
  }

  async start(port = 0, host = "127.0.0.1") {
    this.#server = createServer((incoming, response) => this.#request(incoming, response));
    this.#server.on("upgrade", (incoming, socket, head) => this.#upgrade(incoming, socket, head));
    this.#server.on("connection", (socket) => this.#keep(socket));
    this.#server.listen(port, host);
    await once(this.#server, "listening");
    this.origin = `http://${host}:${this.#server.address().port}`;
    return this;
  }

  /** Cuts all connections and goes on answering, or passing, as told. */
  cut(answer = this.answer) {
    this.answer = answer;
    for (const socket of this.#sockets) socket.destroy();
  }

  pass() {
    this.cut();
    this.answer = undefined;
  }

  stop() {
    this.cut();
    this.#server.close();
  }

  #keep(socket) {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #request(incoming, response) {
    if (this.answer) return this.#answer(incoming.socket, response);
    const { host, port, headers } = this.#forward(incoming);
    const outgoing = request({ host, port, headers, method: incoming.method, path: incoming.url }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.on("error", () => response.destroy());
      answer.pipe(response);
    });
    outgoing.on("error", () => response.destroy());
    response.on("close", () => outgoing.destroy());
    incoming.pipe(outgoing);
  }

  #answer(socket, response) {
    this.answered++;
    const { code, headers, body, raw } = this.answer;
    if (raw !== undefined) return socket.end(raw);
    response.writeHead(code, { ...headers, connection: "close" }).end(body);
  }

  #upgrade(incoming, socket, head) {
    if (this.answer) {
      this.answered++;
      const { code, headers, body = "", raw } = this.answer;
      if (raw !== undefined) return socket.end(raw);
      const lines = Object.entries({ ...headers, connection: "close", "content-length": body.length }).map(([k, v]) => `${k}: ${v}`);
      return socket.end(`HTTP/1.1 ${code} Answer\r\n${lines.join("\r\n")}\r\n\r\n${body}`);
    }
    const { host, port, headers } = this.#forward(incoming);
    const server = net.connect(port, host, () => {
      const lines = Object.entries(headers).map(([k, v]) => `${k}: ${v}`);
      server.write(`GET ${incoming.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
      server.write(head);
      server.pipe(socket).pipe(server);
    });
    this.#keep(server);
    for (const [one, other] of [[server, socket], [socket, server]]) one.on("close", () => other.destroy());
  }

  #forward({ headers }) {
    const [host, port] = this.target().split(":");
    return { host, port: Number(port), headers: { ...headers, host: this.target() } };
  }
}
