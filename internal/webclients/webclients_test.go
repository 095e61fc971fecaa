package webclients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/reprise-chat/reprise/server"
)

// request is what clients.mjs is told to do.
type request struct {
	Base     string            `json:"base"`
	Metadata map[string]string `json:"metadata"`
	Method   string            `json:"method"`
	Size     int               `json:"size"`
	JSON     bool              `json:"json"`
}

// ended is how a call ended, as a library tells it.
type ended struct {
	Code    codes.Code
	Message string
	Reason  string
	Retry   bool
}

func TestRefusalsReachEveryClient(t *testing.T) {
	if os.Getenv("REPRISE_WEBCLIENTS") == "" {
		t.Skip("set REPRISE_WEBCLIENTS=1, after npm ci here: make test-webclients")
	}
	base := serve(t, server.Limits{})
	busy := serve(t, server.Limits{AddressWebCalls: 1})
	occupy(t, busy)
	alice := map[string]string{"authorization": "Bearer dev:alice"}
	for _, tt := range []struct {
		name string
		request
		want ended
	}{
		{"no token", request{Base: base, Method: "GetRoom"}, ended{codes.Unauthenticated, "", "TOKEN_MISSING", false}},
		{"not found", request{Base: base, Metadata: alice, Method: "GetRoom"}, ended{codes.NotFound, "", "ROOM_NOT_FOUND", false}},
		{"unknown method", request{Base: base, Metadata: alice, Method: "Nothing"}, ended{codes.Unimplemented, "", "METHOD_UNKNOWN", false}},
		{"too large", request{Base: base, Metadata: alice, Method: "GetRoom", Size: 100_000}, ended{codes.ResourceExhausted, "", "FRAME_TOO_LARGE", false}},
		{"far too large", request{Base: base, Metadata: alice, Method: "GetRoom", Size: 8_000_000}, ended{codes.ResourceExhausted, "", "FRAME_TOO_LARGE", false}},
		{"json", request{Base: base, Metadata: alice, Method: "GetRoom", JSON: true}, ended{codes.InvalidArgument, "", "CONTENT_TYPE", false}},
		{"bad timeout", request{Base: base, Metadata: map[string]string{"grpc-timeout": "soon"}, Method: "GetRoom"}, ended{codes.InvalidArgument, "", "MALFORMED", false}},
		{"unknown encoding", request{Base: base, Metadata: map[string]string{"grpc-encoding": "br"}, Method: "GetRoom"}, ended{codes.Unimplemented, "", "ENCODING_UNKNOWN", false}},
		{"too many calls", request{Base: busy, Metadata: alice, Method: "GetRoom"}, ended{codes.ResourceExhausted, "", "TOO_MANY_CALLS", true}},
		{"another host", request{Base: forward(t, base), Metadata: alice, Method: "GetRoom"}, ended{codes.PermissionDenied, "", "HOST_NOT_SERVED", false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := call(t, tt.request)
			if want := 5; len(got) != want && !tt.JSON {
				t.Fatalf("%d clients called, want %d", len(got), want)
			}
			for client, end := range got {
				if end.Message == "" {
					t.Errorf("%s: no message", client)
				}
				if end.Message = ""; end != tt.want {
					t.Errorf("%s: ended with %+v, want %+v", client, end, tt.want)
				}
			}
		})
	}
}

// call has every library make a call.
func call(t *testing.T, r request) map[string]ended {
	t.Helper()
	if r.Metadata == nil {
		r.Metadata = map[string]string{}
	}
	arg, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "clients.mjs", string(arg))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]ended
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

// serve serves until the test ends, and returns where for browsers.
func serve(t *testing.T, l server.Limits) string {
	t.Helper()
	srv, err := server.New(server.Options{Dir: t.TempDir(), NoSync: true, DiskReserve: -1, Limits: l, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	native, web := listen(t), listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(native, web) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := errors.Join(srv.Shutdown(ctx), <-served); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	return "http://" + web.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// occupy keeps a stream open until the test ends.
func occupy(t *testing.T, base string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/reprise.v1.ChatService/Open", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc-web+proto")
	req.Header.Set("Authorization", "Bearer dev:bob")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil { // of the Welcome
		t.Fatal(err)
	}
}

// forward passes connections on to base, and returns a base of another name for
// it: one that the server does not know.
func forward(t *testing.T, base string) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", base[len("http://"):])
			if err != nil {
				in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
	return "http://" + l.Addr().String()
}
