package gateway

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

func TestConnectOverWebsocket(t *testing.T) {
	f := start(t, &chat{}, nil)
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 100 {
		id := fmt.Sprint("r", i)
		if err := w.SendMessage(frame(id)); err != nil {
			t.Fatal(err)
		}
		var got reprisev1.ServerFrame
		if err := w.Recv(&got); err != nil {
			t.Fatal(err)
		}
		if got.GetReceipt().GetRequestId() != id {
			t.Fatalf("got %v, want a receipt for %s", &got, id)
		}
	}
	if err := w.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := w.Recv(&reprisev1.ServerFrame{}); err != io.EOF {
		t.Fatalf("after half-close: %v, want the end with OK", err)
	}
}

func TestOpenDeliversEverythingInOrder(t *testing.T) {
	const events = 5000
	f := start(t, &chat{}, nil)
	req := &reprisev1.OpenRequest{History: events}
	calls := map[string]func(t *testing.T) interface {
		Recv(*reprisev1.ServerFrame) error
		Close()
	}{
		"websocket": func(t *testing.T) interface {
			Recv(*reprisev1.ServerFrame) error
			Close()
		} {
			w, err := webtest.DialWebsocket(ctxOf(t), f.base, open, webtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.SendMessage(req), w.CloseSend()); err != nil {
				t.Fatal(err)
			}
			return wsReceiver{w}
		},
		"fetch": func(t *testing.T) interface {
			Recv(*reprisev1.ServerFrame) error
			Close()
		} {
			p, err := webtest.Post(ctxOf(t), f.client, f.base, open, webtest.Options{}, req)
			if err != nil {
				t.Fatal(err)
			}
			return fetchReceiver{p}
		},
		"text": func(t *testing.T) interface {
			Recv(*reprisev1.ServerFrame) error
			Close()
		} {
			body := base64.StdEncoding.EncodeToString(webtest.Prefixed(req))
			p, err := webtest.PostBody(ctxOf(t), f.client, f.base, open, webtest.Options{
				Metadata: http.Header{"Content-Type": {"application/grpc-web-text+proto"}},
			}, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			p.Text()
			return fetchReceiver{p}
		},
	}
	for name, begin := range calls {
		t.Run(name, func(t *testing.T) {
			c := begin(t)
			defer c.Close()
			for i := uint64(1); i <= events; i++ {
				var got reprisev1.ServerFrame
				if err := c.Recv(&got); err != nil {
					t.Fatalf("event %d: %v", i, err)
				}
				if o := got.GetEvents().GetEvents()[0].GetOffset(); o != i {
					t.Fatalf("got offset %d, want %d", o, i)
				}
			}
			if err := c.Recv(&reprisev1.ServerFrame{}); err != io.EOF {
				t.Fatalf("at the end: %v, want OK", err)
			}
		})
	}
}

type wsReceiver struct{ *webtest.Websocket }

func (r wsReceiver) Recv(f *reprisev1.ServerFrame) error { return r.Websocket.Recv(f) }

type fetchReceiver struct{ *webtest.Fetch }

func (r fetchReceiver) Recv(f *reprisev1.ServerFrame) error { return r.Fetch.Recv(f) }

// The first flush is synchronous: otherwise the status of a call that fails
// after its first message would be among the headers and missing at the end.
func TestStatusAfterMessages(t *testing.T) {
	fail := status.Error(codes.ResourceExhausted, "genug — später")
	f := start(t, &chat{onOpen: func(r *reprisev1.OpenRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
		s.SetTrailer(metadata.Pairs("why", "a trailer"))
		for i := range r.GetHistory() {
			if err := s.Send(event(uint64(i)+1, 8)); err != nil {
				return err
			}
		}
		return fail
	}}, nil)
	for history := range uint32(3) {
		for range 50 {
			w, err := webtest.DialWebsocket(ctxOf(t), f.base, open, webtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.SendMessage(&reprisev1.OpenRequest{History: history}), w.CloseSend()); err != nil {
				t.Fatal(err)
			}
			p, err := webtest.Post(ctxOf(t), f.client, f.base, open, webtest.Options{}, &reprisev1.OpenRequest{History: history})
			if err != nil {
				t.Fatal(err)
			}
			for range history {
				if err := errors.Join(w.Recv(&reprisev1.ServerFrame{}), p.Recv(&reprisev1.ServerFrame{})); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Recv(&reprisev1.ServerFrame{}); status.Code(err) != codes.ResourceExhausted {
				t.Fatalf("websocket, after %d messages: %v, want RESOURCE_EXHAUSTED", history, err)
			}
			if err := p.Recv(&reprisev1.ServerFrame{}); status.Code(err) != codes.ResourceExhausted {
				t.Fatalf("fetch, after %d messages: %v, want RESOURCE_EXHAUSTED", history, err)
			}
			if w.Trailer.Get("Why") == "" || p.Trailer.Get("Why") == "" {
				t.Fatalf("trailers %v and %v lack the handler's", w.Trailer, p.Trailer)
			}
			w.Close()
			p.Close()
		}
	}
}

func TestRoutes(t *testing.T) {
	notReady := errors.New("the store is recovering")
	var ready error
	f := start(t, &chat{}, func(o *Options) { o.Ready = func() error { return ready } })
	tests := []struct {
		method, path, contentType string
		ready                     error
		code                      int
		body                      string
	}{
		{"GET", "/", "", nil, 200, "the page"},
		{"GET", connect, "", nil, 200, "the page"},
		{"GET", "/healthz", "", notReady, 200, "ok"},
		{"GET", "/readyz", "", nil, 200, "ready"},
		{"GET", "/readyz", "", notReady, 503, "the store is recovering"},
		{"GET", "/metrics", "", nil, 404, ""},
		{"POST", "/", "", nil, 405, ""},
		{"OPTIONS", getRoom, "", nil, 405, ""},
		// Plain gRPC belongs on the native port: here it would have none of
		// gRPC's own limits.
		{"POST", getRoom, "application/grpc", nil, 415, "application/grpc-web+proto"},
		{"POST", getRoom, "application/grpc+proto", nil, 415, ""},
		{"POST", getRoom, "application/json", nil, 415, ""},
		{"POST", getRoom, "", nil, 415, ""},
		{"PUT", getRoom, "application/grpc-web+proto", nil, 405, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.method, tt.path, tt.contentType), func(t *testing.T) {
			ready = tt.ready
			req, _ := http.NewRequest(tt.method, f.base+tt.path, strings.NewReader(string(webtest.Prefixed(&reprisev1.GetRoomRequest{}))))
			if tt.method == "GET" {
				req.Body, req.ContentLength = nil, 0
			}
			if tt.contentType != "" {
				req.Header.Set("Content-Type", tt.contentType)
			}
			resp, err := f.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.code || !strings.Contains(string(b), tt.body) {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, b, tt.code, tt.body)
			}
			checkSecurityHeaders(t, resp)
		})
	}
	if n := f.chat.started.Load(); n != 0 {
		t.Errorf("%d calls were executed, want none", n)
	}
}

func checkSecurityHeaders(t *testing.T, resp *http.Response) {
	t.Helper()
	csp := resp.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%s: Content-Security-Policy %q lacks %s", resp.Status, csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s: headers %v", resp.Status, resp.Header)
	}
}

func TestSecurityHeadersOnCalls(t *testing.T) {
	f := start(t, &chat{}, nil)
	p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{}, &reprisev1.GetRoomRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	checkSecurityHeaders(t, p.Response)
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	checkSecurityHeaders(t, w.Response)
}

// Versions behind v1.8.7 crash on a duplicate pong, later ones leave a failed
// write unnoticed; none of them is better with this wrapper.
func TestWebsocketLibraryVersion(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*nhooyr\.io/websocket (\S+)`).FindSubmatch(mod)
	if m == nil || string(m[1]) != "v1.8.7" {
		t.Fatalf("go.mod has nhooyr.io/websocket %q, want exactly v1.8.7", m)
	}
	if strings.Contains(string(mod), "nhooyr.io/websocket =>") {
		t.Fatal("go.mod replaces nhooyr.io/websocket: programs that embed the server do not get that")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	register := func(grpc.ServiceRegistrar) {}
	for name, o := range map[string]Options{
		"no services":            {},
		"host with a scheme":     {Register: register, Hosts: []string{"http://chat.example"}},
		"host with a path":       {Register: register, Hosts: []string{"chat.example/x"}},
		"empty host":             {Register: register, Hosts: []string{""}},
		"origin with a path":     {Register: register, Origins: []string{"https://chat.example/"}},
		"origin without scheme":  {Register: register, Origins: []string{"chat.example"}},
		"origin wildcard":        {Register: register, Origins: []string{"*"}},
		"pending below messages": {Register: register, MaxPendingBytes: 1 << 20},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
