// The Socket.IO server that the benchmark measures beside Reprise. It is set
// up as the documentation advises; each setting says where.
//
//   node server.js HOST PORT
//
// Its first line of output says where it listens, as JSON.

import { createServer } from "node:http";
import { Server } from "socket.io";

const [host = "127.0.0.1", port = "0"] = process.argv.slice(2);

const http = createServer();
const io = new Server(http, {
  // What makes it comparable: clients that return get what they missed. These
  // are the values of the documentation's example.
  // https://socket.io/docs/v4/connection-state-recovery
  connectionStateRecovery: {
    maxDisconnectionDuration: 2 * 60 * 1000,
    skipMiddlewares: true,
  },
  // The load client speaks WebSocket only, so nobody is upgraded from polling.
  // https://socket.io/docs/v4/server-options/#transports
  transports: ["websocket"],
  // Off is the default, "because of its memory and CPU cost"; written down
  // because it would decide the comparison.
  // https://socket.io/docs/v4/server-options/#permessagedeflate
  perMessageDeflate: false,
  // Nobody asks for the browser's bundle.
  // https://socket.io/docs/v4/server-options/#serveclient
  serveClient: false,
});

// The first HTTP request of each client need not be kept.
// https://socket.io/docs/v4/memory-usage/
io.engine.on("connection", (raw) => {
  raw.request = null;
});

// The native add-ons bufferutil and utf-8-validate are optional dependencies
// in package.json: https://socket.io/docs/v4/performance-tuning

io.on("connection", (socket) => {
  socket.on("join", (rooms, done) => {
    socket.join(rooms);
    done();
  });
  // The room is told to the clients, which may be in several.
  socket.on("publish", (room, body, done) => {
    io.to(room).emit("event", room, body);
    done();
  });
});

http.listen(Number(port), host, () => {
  const at = http.address();
  console.log(JSON.stringify({ grpc: `${at.address}:${at.port}` }));
});

process.on("SIGTERM", () => {
  io.close(() => process.exit(0));
});
