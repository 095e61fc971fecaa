package gosdk

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/server"
)

// patience bounds every wait of these tests: reaching it is a failure.
const patience = 2 * time.Minute

// node is a real server over a directory that outlives it.
type node struct {
	t    testing.TB
	opts server.Options
	addr string
	stop func()
}

func serve(t testing.TB, change ...func(*server.Options)) *node {
	t.Helper()
	n := &node{t: t, opts: server.Options{
		Dir: filepath.Join(t.TempDir(), "data"), DiskReserve: -1, Logger: slog.New(slog.DiscardHandler),
		Limits: server.Limits{UserPublishes: -1, RoomPublishes: -1, UserCreates: -1, Attaches: -1},
	}}
	for _, f := range change {
		f(&n.opts)
	}
	n.start("127.0.0.1:0")
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start(addr string) {
	n.t.Helper()
	s, err := server.New(n.opts)
	if err != nil {
		n.t.Fatal(err)
	}
	var listeners [2]net.Listener
	for i, a := range []string{addr, "127.0.0.1:0"} {
		if listeners[i], err = net.Listen("tcp", a); err != nil {
			n.t.Fatal(err)
		}
	}
	n.addr = listeners[0].Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(listeners[0], listeners[1]) }()
	n.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no drain
		_ = s.Shutdown(ctx)
		<-served
	})
}

// config is for a client that tries again soon.
func config(addr, user string) reprise.Config {
	return reprise.Config{
		Addresses:  []string{addr},
		Token:      func(context.Context) (string, error) { return reprise.DevelopmentToken(user) },
		Logger:     slog.New(slog.DiscardHandler),
		BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	}
}

func newClient(t testing.TB, cfg reprise.Config) *reprise.Client {
	t.Helper()
	c, err := reprise.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// listener is a Handler that tells what it is given.
type listener struct {
	events chan reprise.Event
	gaps   chan reprise.Gap
}

func newListener() *listener {
	return &listener{events: make(chan reprise.Event, 1<<16), gaps: make(chan reprise.Gap, 1<<16)}
}

func (l *listener) HandleEvent(_ context.Context, e reprise.Event) error   { l.events <- e; return nil }
func (l *listener) HandleGap(_ context.Context, g reprise.Gap) error       { l.gaps <- g; return nil }
func (l *listener) HandleRewind(_ context.Context, _ reprise.Rewind) error { return nil }

// expect waits for a message with a text.
func (l *listener) expect(t *testing.T, text string) {
	t.Helper()
	for end := time.After(patience); ; {
		select {
		case e := <-l.events:
			if e.Text() == text {
				return
			}
		case <-end:
			t.Fatalf("%q does not come", text)
		}
	}
}

// run runs a client until the test ends. Ended gets what Run returned.
func run(t testing.TB, c *reprise.Client, h reprise.Handler) (ended chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended = make(chan error, 1)
	done := make(chan struct{})
	go func() { defer close(done); ended <- c.Run(ctx, h) }()
	t.Cleanup(func() { cancel(); <-done })
	return ended
}

// until waits for a condition that has no event.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within patience: ", what)
		}
	}
}
