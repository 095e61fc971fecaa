package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/bare"
)

// Command is the name of the hidden command that is a server of a peer. Its
// arguments are those of Serve: a kind, and an address.
const Command = "peer"

// The kinds of servers that this program can be.
const (
	kindCentrifuge         = "centrifuge"
	kindCentrifugeBatching = "centrifuge-batching"
	kindNATS               = "nats"
)

// Serve is the server of a peer, until ctx ends. It says on out where it
// listens.
func Serve(ctx context.Context, out io.Writer, kind, addr string) error {
	switch kind {
	case kindCentrifuge:
		return serveCentrifuge(ctx, out, addr, false)
	case kindCentrifugeBatching:
		return serveCentrifuge(ctx, out, addr, true)
	case kindNATS:
		return serveNATS(ctx, out, addr)
	}
	return fmt.Errorf("peers: no server of kind %q", kind)
}

// say writes where a server listens, as proc.Start expects it.
func say(out io.Writer, addr, metrics net.Addr) error {
	return json.NewEncoder(out).Encode(map[string]string{
		"grpc": addr.String(), "http": "http://" + metrics.String(),
	})
}

// withMetrics serves what the load generator asks for beside the server, and
// returns where and how to end it.
func withMetrics(ctx context.Context) (net.Addr, func(), error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(0))
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", bare.Metrics)
	return l.Addr(), serveHTTP(l, mux), nil
}

// serveHTTP serves in a goroutine that the returned function ends.
func serveHTTP(l net.Listener, h http.Handler) (end func()) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			panic(err) // a listener of ours failed, and so does the benchmark
		}
	}
}
