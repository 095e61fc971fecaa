// Package lean is a load client that costs less than the servers it loads.
//
// A gRPC library spends several microseconds on each delivery, more than the
// server does, so a benchmark driven by it measures the client. This one reads
// raw sockets: a [Loop] is one OS thread with epoll, a [Conn] is a socket, and
// a [Wire] is what is spoken on it. [H2] is the wire of gRPC: just enough of
// HTTP/2 to open streams, send messages within the server's windows and take
// messages out of DATA frames without copying them.
//
// Everything that belongs to a Loop (its conns, wires, streams and whatever
// their callbacks touch) is used on the Loop's thread only; other goroutines
// get there with [Loop.Call].
package lean
