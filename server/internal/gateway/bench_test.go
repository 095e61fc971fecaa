package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// BenchmarkEvents compares events of 128 bytes to one client through the
// gateway with the wrapper alone.
func BenchmarkEvents(b *testing.B) {
	bare := func(b *testing.B) string {
		s := grpc.NewServer()
		reprisev1.RegisterChatServiceServer(s, &chat{})
		h := httptest.NewServer(grpcweb.WrapServer(s, grpcweb.WithWebsockets(true),
			grpcweb.WithWebsocketOriginFunc(func(*http.Request) bool { return true })))
		b.Cleanup(func() { h.CloseClientConnections(); s.Stop(); h.Close() })
		return h.URL
	}
	gateway := func(b *testing.B) string { return start(b, &chat{}, nil).base }
	for _, server := range []struct {
		name  string
		start func(*testing.B) string
	}{{"gateway", gateway}, {"bare", bare}} {
		b.Run("websocket/"+server.name, func(b *testing.B) {
			base := server.start(b)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			w, err := webtest.DialWebsocket(ctx, base, open, webtest.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			if err := errors.Join(w.SendMessage(&reprisev1.OpenRequest{History: uint32(b.N)}), w.CloseSend()); err != nil {
				b.Fatal(err)
			}
			receive(b, func() error { return w.Recv(&reprisev1.ServerFrame{}) })
		})
		b.Run("fetch/"+server.name, func(b *testing.B) {
			base := server.start(b)
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			p, err := webtest.Post(context.Background(), client, base, open, webtest.Options{}, &reprisev1.OpenRequest{History: uint32(b.N)})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			receive(b, func() error { return p.Recv(&reprisev1.ServerFrame{}) })
		})
	}
}

func receive(b *testing.B, recv func() error) {
	for range b.N {
		if err := recv(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
