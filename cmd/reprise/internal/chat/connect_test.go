package chat

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/server"
)

// serve runs a server for a test and returns its gRPC address.
func serve(t *testing.T) string {
	t.Helper()
	s, err := server.New(server.Options{Dir: filepath.Join(t.TempDir(), "data"), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listeners[0], listeners[1]) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	return listeners[0].Addr().String()
}

// TestSentBeforeRun sends to the chat's room before Run has begun, as a piped
// chat may: the event is shown, because it is sent when the session is open.
func TestSentBeforeRun(t *testing.T) {
	o := Options{
		Config: reprise.Config{
			Addresses: []string{serve(t)},
			Token:     func(context.Context) (string, error) { return reprise.DevelopmentToken("alice") },
		},
		Store:   reprise.NewMemoryStore(),
		Room:    "lobby",
		Timeout: 10 * time.Second,
	}
	client, err := connect(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	early, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if receipt, err := client.Send(early, o.Room, "early"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sent before the session was open: %+v, %v", receipt, err)
	}

	texts := make(chan string, 8)
	go func() {
		_, err := client.Send(t.Context(), o.Room, "first")
		if err != nil {
			t.Error(err)
		}
	}()
	ran := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ran <- client.Run(ctx, collector(texts)) }()
	select {
	case got := <-texts:
		if got != "first" {
			t.Errorf("the first text is %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("what was sent is not shown")
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// collector takes the texts of messages.
type collector chan<- string

func (c collector) HandleEvent(_ context.Context, e reprise.Event) error {
	if e.Text() != "" {
		c <- e.Text()
	}
	return nil
}

func (collector) HandleGap(context.Context, reprise.Gap) error       { return nil }
func (collector) HandleRewind(context.Context, reprise.Rewind) error { return nil }
