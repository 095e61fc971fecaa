// Package peers is what a user would pick instead of Reprise, measured by the
// same load client in the same run:
//
//   - [Centrifuge]: a server on github.com/centrifugal/centrifuge, with its
//     memory engine, history and recovery, WebSocket and Protobuf;
//   - [SocketIO]: Socket.IO 4 on Node, with connection state recovery, in
//     bench/peers/socketio;
//   - [NATS]: core NATS, which keeps nothing: a floor for what recovery costs.
//
// None of them stores an event on a disk. Each is a process of its own and is
// configured as its documentation advises, with the place noted beside the
// setting. Clients publish over their own connections, as Reprise's do.
//
// The clients speak each protocol as far as these servers use it, on package
// lean's loops: a client library would cost more than the server. All of them
// are [load.Target]s, so every event is counted, and a wrong order fails.
package peers
