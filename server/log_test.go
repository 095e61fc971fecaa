package server_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// lines is a log that is written and read at the same time.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// find returns the first line that says msg and has the values.
func (l *lines) find(t *testing.T, msg string, values map[string]any) map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.buf.String()) {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if got["msg"] != msg {
			continue
		}
		for k, v := range values {
			if got[k] != v {
				continue next
			}
		}
		return got
	}
	return nil
}

// TestDebugLog is what an operator sees who looks for a client that does not
// get through, and that no token is in it.
func TestDebugLog(t *testing.T) {
	var log lines
	n := serve(t, func(o *server.Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	n.join("alice", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.hangUp()
	if _, err := n.SendMessage(as(t, "bob"), &reprisev1.SendMessageRequest{Room: "lobby", Text: "let me in"}); err == nil {
		t.Error("a stranger publishes")
	}
	secret := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer hunter2")
	if _, err := n.ListRooms(secret, &reprisev1.ListRoomsRequest{}); err == nil {
		t.Error("a token that is nobody's is taken")
	}
	if _, err := n.ListRooms(t.Context(), &reprisev1.ListRoomsRequest{}); err == nil {
		t.Error("no token is taken")
	}
	method := func(name string) string { return "/" + reprisev1.ChatService_ServiceDesc.ServiceName + "/" + name }
	for _, want := range []struct {
		msg    string
		values map[string]any
	}{
		{"attached", map[string]any{"user": "alice", "outcome": "OUTCOME_NEW", "rooms": 1.0, "attach": 1.0}},
		{"detached", map[string]any{"user": "alice", "attach": 1.0}},
		{"refused", map[string]any{"user": "bob", "method": method("SendMessage"), "reason": "ROOM_NOT_FOUND"}},
		{"refused", map[string]any{"user": "", "method": method("ListRooms"), "reason": "TOKEN_INVALID"}},
		{"refused", map[string]any{"user": "", "method": method("ListRooms"), "reason": "TOKEN_MISSING"}},
	} {
		deadline := time.Now().Add(20 * time.Second)
		for log.find(t, want.msg, want.values) == nil { // a stream's end is noticed later
			if time.Now().After(deadline) {
				t.Errorf("no line says %s with %v", want.msg, want.values)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if text := log.buf.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "dev:alice") || strings.Contains(text, "let me in") {
		t.Errorf("the log has what it must not have:\n%s", text)
	}
}
