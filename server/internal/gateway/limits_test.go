package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/forwarded"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

func TestConnectionsAreBounded(t *testing.T) {
	const most = 5
	for name, change := range map[string]func(*Options){
		"by address": func(o *Options) { o.MaxConnsPerAddress = most },
		"in all":     func(o *Options) { o.MaxConns = most },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &chat{}, change)
			var open []net.Conn
			for range most {
				c, err := net.Dial("tcp", f.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				open = append(open, c)
			}
			eventually(t, "all are accepted", func() bool { return f.conns.tally.count() == most })
			c, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("one more: %v, want it closed", err)
			}
			open[0].Close()
			eventually(t, "one is free again", func() bool { return f.conns.tally.count() < most })
			if got := rawStatus(t, f.addr, "GET / HTTP/1.1\r\nHost: "+f.addr+"\r\n\r\n"); got != http.StatusOK {
				t.Errorf("then: %d, want 200", got)
			}
		})
	}
}

func TestCallsAreBounded(t *testing.T) {
	const most = 3
	for name, change := range map[string]func(*Options){
		"by address": func(o *Options) { o.MaxCallsPerAddress = most },
		"in all":     func(o *Options) { o.MaxCalls = most },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &chat{}, change)
			var open []*webtest.Websocket
			for range most {
				w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				open = append(open, w)
			}
			w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			wantReason(t, "one more websocket", w.Recv(&reprisev1.ServerFrame{}), reason.TooManyCalls)
			w.Close()
			p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{}, &reprisev1.GetRoomRequest{})
			if err != nil {
				t.Fatal(err)
			}
			wantReason(t, "one more call", p.Recv(&reprisev1.GetRoomResponse{}), reason.TooManyCalls)
			if rest, err := io.ReadAll(p.Response.Body); len(rest) > 0 || err != nil {
				t.Errorf("behind the status in the headers: %q, %v", rest, err) // an empty trailer frame, which hides the status
			}
			p.Close()
			if got := rawStatus(t, f.addr, "GET / HTTP/1.1\r\nHost: "+f.addr+"\r\n\r\n"); got != http.StatusOK {
				t.Errorf("the page: %d, want 200", got)
			}
			open[0].Close()
			eventually(t, "one is free again", func() bool { return f.calls.count() < most })
			p, err = webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{}, &reprisev1.GetRoomRequest{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.Recv(&reprisev1.GetRoomResponse{}); err != nil {
				t.Errorf("then: %v", err)
			}
		})
	}
}

// A response that begins before its request has ended: the rest of the
// request must not be taken for the next one.
func TestRestOfARequestIsNotTheNext(t *testing.T) {
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		if _, err := s.Recv(); err != nil {
			return err
		}
		return status.Error(codes.PermissionDenied, "no")
	}}, nil)
	r, err := webtest.DialRaw(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := string(webtest.Prefixed(frame("r1")))
	smuggled := "GET /healthz HTTP/1.1\r\nHost: " + f.addr + "\r\n\r\n"
	_, err = io.WriteString(r, "POST "+connect+" HTTP/1.1\r\nHost: "+f.addr+
		"\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 5000\r\n\r\n"+first)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r.R, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !resp.Close {
		t.Error("the response does not say that the connection ends")
	}
	_, _ = io.WriteString(r, smuggled)
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.ReadAll(resp.Body)
	if next, err := http.ReadResponse(r.R, nil); err == nil {
		t.Errorf("the rest of the request got an answer: %s", next.Status)
	}
}

// A browser reuses its connections.
func TestConnectionIsUsedAgain(t *testing.T) {
	f := start(t, &chat{}, nil)
	for range 20 {
		p, err := webtest.Post(ctxOf(t), f.client, f.base, open, webtest.Options{}, &reprisev1.OpenRequest{History: 3})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := p.Recv(&reprisev1.ServerFrame{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Recv(&reprisev1.ServerFrame{}); err != io.EOF {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, p.Response.Body)
		p.Close()
	}
	if n := f.conns.tally.count(); n != 1 {
		t.Errorf("%d connections for 20 calls, want 1", n)
	}
}

// lines collects log lines.
type lines struct {
	mu  sync.Mutex
	got []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, string(p))
	return len(p), nil
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.got...)
}

func TestBadClientsDoNotFillTheLog(t *testing.T) {
	var out lines
	f := start(t, &chat{}, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
	for range 200 {
		rawStatus(t, f.addr, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
		rawStatus(t, f.addr, "GET / HTTP/1.1\r\nHost: "+f.addr+"\r\nOrigin: http://evil.example\r\n\r\n")
		if err := untilClosed(f.addr, connect, webtest.Frame(webtest.OpText, nil)); err != nil {
			t.Fatal(err)
		}
	}
	got := out.all()
	if len(got) == 0 || len(got) > 20 {
		t.Fatalf("%d lines for 600 bad requests, want a few", len(got))
	}
	if !strings.Contains(got[0], "evil.example") {
		t.Errorf("the first line does not name the host: %s", got[0])
	}
	var limit lines
	l := newLimited(slog.New(slog.NewTextHandler(&limit, nil)))
	for range 100 {
		_, _ = l.Write([]byte("ERROR: a bad client\n"))
	}
	l.rate.SetLimit(1e9)
	l.rate.SetBurst(100)
	eventually(t, "a line says what was left out", func() bool {
		l.warn("last")
		return strings.Contains(strings.Join(limit.all(), ""), "suppressed=")
	})
}

// TestTrustedProxies: behind a proxy that is believed, bounds by address are by
// client, and handlers see the client; nobody else is believed.
func TestTrustedProxies(t *testing.T) {
	const most = 2
	for _, trusted := range []bool{true, false} {
		t.Run(fmt.Sprint("trusted ", trusted), func(t *testing.T) {
			var peers sync.Map
			f := start(t, &chat{onGetRoom: func(ctx context.Context, _ *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error) {
				p, _ := peer.FromContext(ctx)
				host, _, _ := net.SplitHostPort(p.Addr.String())
				peers.Store(host, true)
				return &reprisev1.GetRoomResponse{}, nil
			}}, func(o *Options) {
				o.MaxCallsPerAddress, o.MaxConnsPerAddress = most, 2*most+2
				if trusted {
					o.TrustedProxies, _ = forwarded.Parse([]string{"127.0.0.1", "10.0.0.0/8"})
				}
			})
			through := func(client string) http.Header {
				return http.Header{"X-Forwarded-For": {"203.0.113.66, " + client + ", 10.1.2.3"}}
			}
			call := func(client string) error {
				p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{Metadata: through(client)}, &reprisev1.GetRoomRequest{})
				if err != nil {
					return err
				}
				defer p.Close()
				return p.Recv(&reprisev1.GetRoomResponse{})
			}
			for range most {
				w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{Upgrade: through("198.51.100.1")})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				if err := errors.Join(w.SendMessage(frame("r")), w.Recv(&reprisev1.ServerFrame{})); err != nil {
					t.Fatal(err)
				}
			}
			wantReason(t, "one more of the same", call("198.51.100.1"), reason.TooManyCalls)
			if !trusted {
				wantReason(t, "one who is not believed", call("198.51.100.2"), reason.TooManyCalls)
				return
			}
			if err := call("198.51.100.2"); err != nil {
				t.Errorf("another client of the proxy: %v", err)
			}
			if _, ok := peers.Load("198.51.100.2"); !ok {
				t.Error("the handler does not see the client as its peer")
			}
			var open []net.Conn // more than one address may have
			for range 4 * most {
				c, err := net.Dial("tcp", f.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				open = append(open, c)
			}
			eventually(t, "a proxy may have them all", func() bool { return f.conns.tally.count() >= len(open)+most })
		})
	}
}
