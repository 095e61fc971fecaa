// Calls a server through the three grpc-web client libraries that people use,
// and says in one line of JSON how each call ended.
//
//   node clients.mjs '{"base":"http://127.0.0.1:8080","metadata":{},"method":"GetRoom","size":0,"json":false}'
import { createRequire } from "node:module";
import { create, toBinary } from "@bufbuild/protobuf";
import { EmptySchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const require = createRequire(import.meta.url);
globalThis.XMLHttpRequest = require("xhr2");
globalThis.WebSocket = require("ws");
const improbable = require("@improbable-eng/grpc-web").grpc;
const { NodeHttpTransport } = require("@improbable-eng/grpc-web-node-http-transport");
const google = require("grpc-web");

const { base, metadata, method, size, json } = JSON.parse(process.argv[2]);
const service = "reprise.v1.ChatService";
// A request of one string in field 1, as GetRoom's is; long if it is to be.
const request = create(StringValueSchema, { value: size ? "x".repeat(size) : "nowhere" });
const bytes = () => toBinary(StringValueSchema, request);

/** What is in grpc-status-details-bin: a google.rpc.Status. */
function details(base64) {
  const text = base64 ? Buffer.from(base64, "base64").toString("latin1") : "";
  const reason = /google\.rpc\.ErrorInfo\x12.\n.([A-Z_]+)\x12\x0creprise\.chat/s.exec(text);
  return { reason: reason?.[1] ?? "", retry: text.includes("google.rpc.RetryInfo") };
}

async function connectWeb() {
  const transport = createGrpcWebTransport({ baseUrl: base, useBinaryFormat: !json });
  const descriptor = {
    kind: "rpc", methodKind: "unary", name: method, localName: method, idempotency: undefined,
    input: StringValueSchema, output: EmptySchema, parent: { typeName: service },
  };
  try {
    await transport.unary(descriptor, undefined, undefined, metadata, request);
    return { code: 0 };
  } catch (e) {
    const error = ConnectError.from(e);
    const of = (type) => error.details.filter((d) => d.type === type);
    // The libraries differ in what they decode; here the details come one by one.
    const info = of("google.rpc.ErrorInfo").map((d) => Buffer.from(d.value).toString("latin1"))[0] ?? "";
    return {
      code: error.code, message: error.rawMessage,
      reason: /^\n.([A-Z_]+)\x12\x0creprise\.chat/s.exec(info)?.[1] ?? "", retry: of("google.rpc.RetryInfo").length > 0,
    };
  }
}

function googleWeb(format) {
  const client = new google.GrpcWebClientBase({ format });
  const descriptor = new google.MethodDescriptor(
    `/${service}/${method}`, google.MethodType.UNARY, Object, Object, bytes, () => ({}));
  return new Promise((resolve) => {
    client.rpcCall(`${base}/${service}/${method}`, {}, metadata, descriptor, (error) =>
      resolve(error ? { code: error.code, message: error.message, ...details(error.metadata?.["grpc-status-details-bin"]) } : { code: 0 }));
  });
}

function improbableWeb(transport) {
  return new Promise((resolve) => {
    improbable.invoke(
      {
        methodName: method, service: { serviceName: service }, requestStream: false, responseStream: false,
        requestType: Object, responseType: { deserializeBinary: () => ({}) },
      },
      {
        host: base, metadata, transport,
        request: { serializeBinary: bytes, toObject: () => ({}) },
        onEnd: (code, message, trailers) =>
          resolve({ code, message, ...details(trailers.get("grpc-status-details-bin")[0]) }),
      },
    );
  });
}

const ended = {
  "connect-web": await connectWeb(),
  ...(!json && {
    "grpc-web": await googleWeb("binary"),
    "grpc-web-text": await googleWeb("text"),
    "improbable": await improbableWeb(NodeHttpTransport()),
    "improbable-websocket": await improbableWeb(improbable.WebsocketTransport()),
  }),
};
console.log(JSON.stringify(ended));
process.exit(0);
