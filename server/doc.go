// Package server is the Reprise server: rooms with durable, ordered logs, and
// sessions that never lose their place in them. The command serves it; embed
// it in your own program with New, Serve and Shutdown.
//
//	srv, err := server.New(server.Options{Dir: "reprise-data"})
//	if err != nil {
//		return err
//	}
//	go srv.Serve(grpcListener, httpListener)
//	<-ctx.Done()
//	return srv.Shutdown(drain)
//
// # Layers
//
//	           gRPC listener          HTTP listener
//	                │                       │
//	                │                internal/gateway   hosts, origins, limits,
//	                │                       │           grpc-web, the page
//	                └──── internal/rpc ─────┘           frames and calls
//	                           │
//	       ┌───────────────────┼─────────────────┐
//	internal/attach     internal/session   internal/room
//	one live stream     durable sessions   order, members, tail
//	       └───────────────────┼─────────────────┘
//	                    internal/store                  pebble: one committer
package server
