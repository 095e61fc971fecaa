package attach_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// crowd is one room, one sender, and readers whose streams take everything at
// once: what is left is what the server itself does for each delivery.
type crowd struct {
	tb      testing.TB
	room    *room.Room
	readers []*attach.Attachment
	got     sync.WaitGroup // deliveries that are to come
}

// sink is a stream that takes everything.
type sink struct {
	c     *crowd
	ctx   context.Context
	ready chan struct{} // closed at CaughtUp of all rooms
}

func (s *sink) Context() context.Context { return s.ctx }

func (s *sink) Send(f *reprisev1.ServerFrame) error {
	if c := f.GetCaughtUp(); c != nil && c.GetRoom() == "" {
		close(s.ready)
	}
	return nil
}

func (s *sink) SendEncoded(_, elements, rest []byte) error {
	for _, b := range [][]byte{elements, rest} {
		for len(b) > 0 {
			b = b[1+1+int(b[1]):] // events of this file are shorter than 128 bytes
			s.c.got.Done()
		}
	}
	return nil
}

func newCrowd(tb testing.TB, readers int) *crowd {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	logger := slog.New(slog.DiscardHandler)
	st, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem(), Reserve: -1, Logger: logger})
	if err != nil {
		tb.Fatal(err)
	}
	pool := attach.NewPool()
	hub := room.NewHub(st, room.Options{CreateOnJoin: true, Busy: pool.Busy, Logger: logger})
	sessions := session.NewRegistry(st, session.Options{Logger: logger})
	m := attach.NewManager(st, hub, sessions, pool, attach.Options{})
	c := &crowd{tb: tb}
	if c.room, err = hub.Acquire(ctx, "lobby"); err != nil {
		tb.Fatal(err)
	}
	if _, err := c.room.Join(ctx, "alice", room.Checks{}); err != nil {
		tb.Fatal(err)
	}
	for range readers {
		s := &sink{c: c, ctx: ctx, ready: make(chan struct{})}
		a, err := m.Tail(ctx, s, attach.Tail{User: "alice", Room: "lobby", From: room.Position{Offset: 2}, Follow: true})
		if err != nil {
			tb.Fatal(err)
		}
		<-s.ready
		c.readers = append(c.readers, a)
	}
	tb.Cleanup(func() {
		cancel()
		for _, a := range c.readers {
			a.Close()
		}
		c.room.Release()
		pool.Close()
		sessions.Close(context.Background())
		hub.Close()
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// publish publishes n events and waits until each reader has been handed each.
func (c *crowd) publish(n int) {
	c.got.Add(n * len(c.readers))
	for range n {
		c.room.Publish(context.Background(), room.Publish{Event: &reprisev1.Event{
			Time: timestamppb.Now(), Sender: "alice",
			Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: "a message of the length that people write in a chat"}},
		}}, func(_ room.Receipt, err error) {
			if err != nil {
				c.tb.Error(err)
			}
		})
	}
	c.got.Wait()
}

// TestDeliveryAllocations bounds what one delivery of one event costs the
// garbage collector up to the stream; a frame of many events costs the same.
func TestDeliveryAllocations(t *testing.T) {
	const readers = 200
	c := newCrowd(t, readers)
	c.publish(1)
	perPublish := testing.AllocsPerRun(20, func() { c.publish(1) })
	const most = 1.3 // the header, and a share of the publish
	if got := perPublish / readers; got > most {
		t.Errorf("%.2f allocations a delivery, more than %v", got, most)
	} else {
		t.Logf("%.2f allocations a delivery", got)
	}
}

// BenchmarkDeliver is the server's part of a delivery: spaced, one event at a
// time; dense, a hundred at once.
func BenchmarkDeliver(b *testing.B) {
	for _, readers := range []int{100, 1000} {
		for _, events := range []int{1, 100} {
			b.Run(fmt.Sprintf("readers=%d/events=%d", readers, events), func(b *testing.B) {
				c := newCrowd(b, readers)
				b.ReportAllocs()
				deliveries := 0
				for b.Loop() {
					c.publish(events)
					deliveries += events * readers
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(deliveries), "ns/delivery")
			})
		}
	}
}
