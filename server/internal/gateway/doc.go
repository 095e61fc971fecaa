// Package gateway is everything the HTTP port serves: grpc-web for browsers,
// over fetch and over websockets, the page, health and metrics.
//
// The translation from grpc-web to gRPC is done by
// github.com/improbable-eng/grpc-web, the wrapper. It trusts its peer: it
// checks no origin before it executes, puts no bound on what a peer sends,
// waits for ever for a peer that takes nothing, and leaves connections open
// after most kinds of bad input. So it is used with our own code on both
// sides:
//
//	net.Listener
//	  listener    connections in all and by address
//	  conn        a write that makes no progress ends the connection
//	http.Server   header size and time, idle time, no write timeout
//	  guard       Host, then Origin, before anything is looked at
//	  route       page, health, metrics; only grpc-web goes on
//	  call        calls in all and by address; the context that ends a call
//	  upgrade     (websocket) the header block, checked and bounded; always closed
//	    wrapper   grpc-web to gRPC
//	  metadata    only known names get through, nothing a peer can forge
//	  inbound     bytes of the body that gRPC has not consumed, bounded
//	  outbound    responses, batched, bounded
//	grpc.Server   the gateway's own, apart from the native one
//
// What a call's layers share lives in one value, call, carried by the
// request's context through the wrapper.
//
// # Slow is safe
//
// A peer that reads slowly is not cut: only one that acknowledges nothing at
// all for Options.WriteTimeout counts as dead. Meanwhile it costs at most one
// outbound batch and what the kernel's send buffer holds, and nobody else
// waits for it. A peer that sends faster than its handler receives is slowed
// by TCP itself, because the body is not read further.
//
// # Identity
//
// peer.FromContext in a handler is the TCP peer, or whom a trusted proxy forwards
// for, and [Origin] the checked
// origin; both come from the connection. Metadata never says who somebody is,
// except through the authorization token.
package gateway
