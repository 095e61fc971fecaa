package server_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/server"
)

// TestShutdownBesideServe stops a server at every moment of its start: a signal
// may come before it has begun to serve. Both calls return, and the listeners
// are closed. (The race detector is what looks at this one.)
func TestShutdownBesideServe(t *testing.T) {
	for i := range 24 {
		s, err := server.New(server.Options{Dir: filepath.Join(t.TempDir(), "data"), DiskReserve: -1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		grpcListener, httpListener := loopback(t), loopback(t)
		served := make(chan error, 1)
		serve := func() { served <- s.Serve(grpcListener, httpListener) }
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if i == 0 {
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			serve()
		} else {
			go serve()
			time.Sleep(time.Duration(i-1) * 20 * time.Microsecond)
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		for _, l := range []net.Listener{grpcListener, httpListener} {
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				c.Close()
				t.Error("a listener is open")
			}
		}
	}
}
