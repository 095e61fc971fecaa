package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// seen is what a handler can know about its caller.
type seen struct {
	md           metadata.MD
	peer, origin string
}

func look(ctx context.Context) seen {
	md, _ := metadata.FromIncomingContext(ctx)
	p, _ := peer.FromContext(ctx)
	return seen{md: md, peer: p.Addr.String(), origin: Origin(ctx)}
}

// The first frame of a websocket is the peer's own text: whatever a server
// might trust can be forged in it. Over fetch every header gets through.
func TestForgedMetadataIsDropped(t *testing.T) {
	got := make(chan seen, 1)
	f := start(t, &chat{
		onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
			got <- look(s.Context())
			return nil
		},
		onGetRoom: func(ctx context.Context, _ *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error) {
			got <- look(ctx)
			return &reprisev1.GetRoomResponse{}, nil
		},
	}, func(o *Options) { o.Metadata = []string{"X-Tenant"} })
	origin := "http://" + f.addr
	forged := http.Header{
		"Cookie":          {"session=stolen"},
		"Forwarded":       {"for=10.0.0.1"},
		"X-Forwarded-For": {"10.0.0.1"},
		"X-Real-Ip":       {"10.0.0.1"},
		"X-User":          {"admin"},
		"Referer":         {"http://evil.example/"},
		"Authorization":   {"Bearer dev:alice"},
		"X-Tenant":        {"blue"},
		"Grpc-Timeout":    {"10S"},
	}
	check := func(how string, s seen, local string) {
		t.Helper()
		var names []string
		for name := range s.md {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if !slices.Contains([]string{":authority", "authorization", "content-type", "user-agent", "x-grpc-web", "x-tenant"}, name) {
				t.Errorf("%s: metadata %s: %q got through", how, name, s.md[name])
			}
		}
		if a := s.md.Get(":authority"); len(a) != 1 || a[0] != f.addr {
			t.Errorf("%s: authority %q, want that of the connection", how, a)
		}
		if a := s.md.Get("authorization"); len(a) != 1 || a[0] != "Bearer dev:alice" {
			t.Errorf("%s: authorization %q", how, a)
		}
		if a := s.md.Get("x-tenant"); len(a) != 1 || a[0] != "blue" {
			t.Errorf("%s: x-tenant %q", how, a)
		}
		if s.origin != origin || (local != "" && s.peer != local) || s.peer[:10] != "127.0.0.1:" {
			t.Errorf("%s: origin %q and peer %q, want %q and %q", how, s.origin, s.peer, origin, local)
		}
	}

	upgrade := forged.Clone()
	upgrade.Set("Origin", origin)
	block := forged.Clone()
	block.Set("Origin", "http://evil.example")
	block.Set("Host", "evil.example")
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{Metadata: block, Upgrade: upgrade})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	check("websocket", <-got, "")

	p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{Metadata: upgrade}, &reprisev1.GetRoomRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	check("fetch", <-got, "")

	r, err := webtest.DialRaw(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const pseudo = ":authority: evil.example\r\n" // as gRPC over HTTP/2 has it
	if err := errors.Join(r.Upgrade(connect), r.WriteFrame(webtest.OpBinary, []byte(pseudo+webtest.HeaderBlock(forged)))); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-got:
		s.origin = origin
		check("raw", s, r.LocalAddr().String())
	case <-closed(r):
	}
}

// closed is closed when the server has closed the connection.
func closed(r *webtest.Raw) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		var b [512]byte
		for {
			if _, err := r.Read(b[:]); err != nil {
				return
			}
		}
	}()
	return c
}
