package peers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/peers"
	"github.com/reprise-chat/reprise/bench/internal/proc"
)

// TestMain is the server of a peer when a test has started it as one.
func TestMain(m *testing.M) {
	if os.Getenv(proc.ChildEnv) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := peers.Serve(ctx, os.Stdout, os.Args[2], os.Args[3])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// servers are all peers that can be started here.
func servers(t *testing.T, each func(t *testing.T, target load.Target)) {
	for _, target := range []load.Target{peers.Centrifuge{}, peers.Centrifuge{Batching: true}, peers.NATS{}} {
		t.Run(target.Name(), func(t *testing.T) { each(t, target) })
	}
	t.Run("Socket.IO", func(t *testing.T) {
		target, err := peers.FindSocketIO()
		if errors.Is(err, peers.ErrNotInstalled) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		each(t, target)
	})
}

// room is a server with subscribers and a publisher, all attached.
type room struct {
	srv       *proc.Server
	loop      *lean.Loop
	publisher load.Client
	events    chan event
	receipts  chan receipt
	lost      chan error
}

type event struct {
	subscriber, room int
	body             string
}

type receipt struct {
	number uint64
	err    error
}

// open starts a server; its subscribers and its publisher know the rooms.
func open(t *testing.T, target load.Target, subscribers int, rooms ...string) *room {
	srv, err := target.Start(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Kill)
	loop, err := lean.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loop.Close)
	r := &room{
		srv: srv, loop: loop, events: make(chan event, 10_000), receipts: make(chan receipt, 10_000),
		lost: make(chan error, subscribers+1),
	}
	ready := make(chan struct{}, subscribers+1)
	on := load.On{
		Ready: func(load.Place) { ready <- struct{}{} },
		Lost: func(err error) {
			if !errors.Is(err, lean.ErrClosed) {
				r.lost <- err
			}
		},
	}
	loop.Call(func() {
		for i := range subscribers {
			on := on
			on.Event = func(room int, body []byte) error {
				r.events <- event{i, room, string(body)}
				return nil
			}
			target.Dial(loop, srv.Addr, load.Config{User: fmt.Sprint("u", i), Rooms: rooms, ReadOnly: true}, on)
		}
		on.Receipt = func(number uint64, err error) { r.receipts <- receipt{number, err} }
		on.Event = func(int, []byte) error { return errors.New("a deaf client got an event") }
		r.publisher = target.Dial(loop, srv.Addr, load.Config{User: "publisher", Rooms: rooms, Deaf: true}, on)
	})
	for range subscribers + 1 {
		next(t, r, ready)
	}
	return r
}

// patience is how long a test waits for what comes at once.
const patience = 30 * time.Second

// next takes what comes next from c.
func next[T any](t *testing.T, r *room, c <-chan T) T {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case v := <-c:
		return v
	case err := <-r.lost:
		t.Fatal("a client was lost: ", err)
	case <-limit.C:
		t.Fatalf("nothing came in %v", patience)
	}
	panic("unreachable")
}

func TestEachSubscriberGetsEveryEventOnceInOrderAndThePublisherAReceipt(t *testing.T) {
	servers(t, func(t *testing.T, target load.Target) {
		const subscribers, events, size = 3, 500, 128
		rooms := []string{"one", "two"}
		r := open(t, target, subscribers, rooms...)
		r.loop.Call(func() {
			for n := range uint64(events) {
				for i := range rooms {
					// The body of the two rooms differs, so that a mistaken room is seen.
					body := load.AppendBody(nil, size+i, n+1, time.Now())
					r.publisher.Publish(i, n*2+uint64(i), "", body)
				}
			}
		})
		counters := make([]*load.Counter, subscribers)
		for i := range counters {
			counters[i] = load.NewCounter(len(rooms))
		}
		for range subscribers * events * len(rooms) {
			e := next(t, r, r.events)
			number, _, err := load.ParseBody([]byte(e.body))
			if err != nil || len(e.body) != size+e.room {
				t.Fatalf("event of room %d with %d bytes: %v", e.room, len(e.body), err)
			}
			if err := counters[e.subscriber].Add(e.room, number); err != nil {
				t.Fatal(err)
			}
		}
		for n := range uint64(events * len(rooms)) {
			if got := next(t, r, r.receipts); got != (receipt{n, nil}) {
				t.Fatalf("receipt %+v, want of %d", got, n)
			}
		}
	})
}

func TestLossOfTheServerIsNoticed(t *testing.T) {
	servers(t, func(t *testing.T, target load.Target) {
		r := open(t, target, 1, "room")
		r.srv.Kill()
		for range 2 { // the subscriber, and the publisher
			select {
			case <-r.lost:
			case <-time.After(patience):
				t.Fatal("a client does not notice that its server has gone")
			}
		}
	})
}

func TestServersEndWhenAsked(t *testing.T) {
	servers(t, func(t *testing.T, target load.Target) {
		r := open(t, target, 1, "room") // somebody being connected keeps none of them
		if u, err := r.srv.Usage(); err != nil || u.RSS == 0 {
			t.Errorf("usage %+v, %v", u, err)
		}
		if err := r.srv.Stop(); err != nil {
			t.Error(err)
		}
	})
}
