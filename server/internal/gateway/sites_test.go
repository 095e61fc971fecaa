package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// A page of another site whose name was made to resolve to this machine sends
// its own name as Host, and an Origin that agrees with it.
func TestRebindingIsRefused(t *testing.T) {
	f := start(t, &chat{}, nil)
	_, port, _ := net.SplitHostPort(f.addr)
	for _, host := range []string{
		"evil.example", "evil.example:" + port, "localhost", "localhost:1", "127.0.0.1",
		"localhost." + ":" + port, "localhost:" + port + ".evil.example", "0.0.0.0:" + port, "[::]:" + port,
	} {
		origin := http.Header{"Origin": {"http://" + host}}
		p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{Host: host, Metadata: origin}, &reprisev1.GetRoomRequest{})
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, "POST for "+host, p.Recv(&reprisev1.GetRoomResponse{}), reason.HostNotServed)
		p.Close()
		w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{Host: host, Upgrade: origin})
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, "websocket for "+host, w.Recv(&reprisev1.ServerFrame{}), reason.HostNotServed)
		w.Close()
		for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "*"} {
			if got := rawStatus(t, f.addr, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); got != http.StatusMisdirectedRequest {
				t.Errorf("GET %s for %s: %d, want 421", path, host, got)
			}
		}
	}
	for _, request := range []string{
		"GET http://evil.example/ HTTP/1.1\r\nHost: " + f.addr + "\r\n\r\n", // the target goes before Host
		"GET / HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n",
	} {
		if got := rawStatus(t, f.addr, request); got != http.StatusMisdirectedRequest {
			t.Errorf("%q: %d, want 421", request, got)
		}
	}
	if got := rawStatus(t, f.addr, "GET / HTTP/1.1\r\nHost: "+f.addr+"\r\nHost: evil.example\r\n\r\n"); got != http.StatusBadRequest {
		t.Errorf("two hosts: %d, want 400", got)
	}
	if n := f.chat.started.Load(); n != 0 {
		t.Errorf("%d calls were executed", n)
	}
}

func rawStatus(t *testing.T, addr, request string) int {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return resp.StatusCode
}

func TestLoopbackNamesAreServed(t *testing.T) {
	f := start(t, &chat{}, nil)
	_, port, _ := net.SplitHostPort(f.addr)
	for _, host := range []string{"localhost:" + port, "LOCALHOST:" + port, "127.0.0.1:" + port, "[::1]:" + port} {
		if got := rawStatus(t, f.addr, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); got != http.StatusOK {
			t.Errorf("%s: %d, want 200", host, got)
		}
	}
}

func TestListenerBeyondLoopbackNeedsHosts(t *testing.T) {
	g, err := New(Options{Register: func(grpc.ServiceRegistrar) {}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Serve(l); err == nil || !strings.Contains(err.Error(), "Options.Hosts") {
		t.Errorf("Serve: %v, want an error that names the option", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestForeignOriginIsNotExecuted(t *testing.T) {
	f := start(t, &chat{}, nil)
	_, port, _ := net.SplitHostPort(f.addr)
	for _, origins := range [][]string{
		{"http://evil.example"},
		{"http://evil.example:" + port},
		{"http://localhost"},        // another port is another origin
		{"http://localhost:" + "1"}, // another port
		{"ws://localhost:" + port},  // another scheme
		{"null"},                    // a sandboxed frame, a file
		{""},
		{"http://localhost:" + port + "/"},
		{"http://localhost:" + port + ".evil.example"},
		{"http://localhost:" + port, "http://evil.example"},
		{"http://localhost:" + port + " http://evil.example"},
	} {
		p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom,
			webtest.Options{Metadata: http.Header{"Origin": origins}}, &reprisev1.GetRoomRequest{})
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, fmt.Sprintf("POST from %q", origins), p.Recv(&reprisev1.GetRoomResponse{}), reason.OriginRefused)
		if p.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("POST from %q: the page may read the answer", origins)
		}
		p.Close()
		w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{Upgrade: http.Header{"Origin": origins}})
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, fmt.Sprintf("websocket from %q", origins), w.Recv(&reprisev1.ServerFrame{}), reason.OriginRefused)
		w.Close()
	}
	if n := f.chat.started.Load(); n != 0 {
		t.Errorf("%d calls were executed", n)
	}
}

func TestOwnOriginAndNoneMayCall(t *testing.T) {
	// That further origins may call takes nothing from the server's own page.
	f := start(t, &chat{}, func(o *Options) { o.Origins = []string{"https://app.example"} })
	_, port, _ := net.SplitHostPort(f.addr)
	for _, origin := range []string{"", "https://app.example", "http://localhost:" + port, "http://127.0.0.1:" + port, "https://localhost:" + port} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{Metadata: h}, &reprisev1.GetRoomRequest{})
		if err != nil {
			t.Fatalf("POST from %q: %v", origin, err)
		}
		if err := p.Recv(&reprisev1.GetRoomResponse{}); err != nil {
			t.Errorf("POST from %q: %v", origin, err)
		}
		p.Close()
		w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{Upgrade: h})
		if err != nil {
			t.Fatalf("websocket from %q: %v", origin, err)
		}
		if err := errors.Join(w.SendMessage(frame("r1")), w.Recv(&reprisev1.ServerFrame{})); err != nil {
			t.Errorf("websocket from %q: %v", origin, err)
		}
		w.Close()
	}
}

func TestPreflight(t *testing.T) {
	const app = "https://app.example"
	f := start(t, &chat{}, func(o *Options) { o.Origins = []string{app}; o.Metadata = []string{"x-tenant"} })
	tests := []struct {
		name, path, origin, headers string
		code                        int
		allowed                     bool
	}{
		{"allowed", getRoom, app, "authorization,content-type,x-grpc-web,x-tenant,x-user-agent", 204, true},
		{"foreign", getRoom, "https://evil.example", "content-type,x-grpc-web", 403, false},
		{"unknown method", "/reprise.v1.ChatService/Nothing", app, "content-type,x-grpc-web", 405, false},
		{"not grpc-web", getRoom, app, "content-type", 405, false},
		{"unknown header", getRoom, app, "content-type,x-forwarded-for,x-grpc-web", 204, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, _ := http.NewRequest(http.MethodOptions, f.base+tt.path, nil)
			req.Header.Set("Origin", tt.origin)
			req.Header.Set("Access-Control-Request-Method", "POST")
			req.Header.Set("Access-Control-Request-Headers", tt.headers)
			resp, err := f.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.code {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.code)
			}
			if got := resp.Header.Get("Access-Control-Allow-Origin"); (got == app) != tt.allowed || got == "*" {
				t.Errorf("allowed origin %q, want allowed: %v", got, tt.allowed)
			}
			checkSecurityHeaders(t, resp)
		})
	}
	p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom,
		webtest.Options{Metadata: http.Header{"Origin": {app}}}, &reprisev1.GetRoomRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := p.Header.Get("Access-Control-Allow-Origin"); got != app {
		t.Errorf("the call itself: allowed origin %q, want %q", got, app)
	}
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:80":            "127.0.0.1",
		"[::ffff:10.0.0.1]:80":    "10.0.0.1",
		"[2001:db8:1:2:3::4]:80":  "2001:db8:1:2::/64",
		"[2001:db8:1:2:ff::1]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":       "fe80::/64",
		"@":                       "@",
	} {
		if got := limit.Address(in); got != want {
			t.Errorf("Address(%q) = %q, want %q", in, got, want)
		}
	}
}
