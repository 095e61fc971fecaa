package room_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/clock"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// machine is a machine whose clock a test sets, and on which time passes as the
// test says.
type machine struct {
	mu  sync.Mutex
	now clock.Reading
	out strings.Builder
}

func (m *machine) read() clock.Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// set sets the clock.
func (m *machine) set(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Wall = m.now.Wall.Add(by)
}

// pass lets time pass, by every clock.
func (m *machine) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Wall, m.now.Mono = m.now.Wall.Add(d), m.now.Mono+d
}

// Write is for the log.
func (m *machine) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.Write(p)
}

func (m *machine) log() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.String()
}

const day = 24 * time.Hour

// keepMonth opens a hub on a store that keeps events for 30 days.
func (m *machine) keepMonth(t *testing.T, st store.Store) *room.Hub {
	t.Helper()
	return room.NewHub(st, room.Options{
		CreateOnJoin: true, Retention: store.Retention{MaxAge: 30 * day}, TrimEvery: time.Hour,
		ReadClock: m.read, Logger: slog.New(slog.NewTextHandler(m, nil)),
	})
}

func openStore(t *testing.T) store.Store {
	t.Helper()
	st, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem(), Reserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// say publishes an event that is stamped as the service does it.
func say(t *testing.T, h *room.Hub, r *room.Room) {
	t.Helper()
	done := make(chan error, 1)
	r.Publish(t.Context(), room.Publish{Event: &reprisev1.Event{
		Time: timestamppb.New(h.Now()), Sender: "alice",
		Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: "hello"}},
	}}, func(_ room.Receipt, err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// wantKept applies retention and wants the oldest event to be this one.
func wantKept(t *testing.T, h *room.Hub, oldest uint64, when string) {
	t.Helper()
	if err := h.TrimAll(context.Background()); err != nil {
		t.Fatal(err)
	}
	r, err := h.Acquire(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if info, err := r.Info(); err != nil || info.Oldest != oldest {
		t.Errorf("%s: the oldest event is %d, want %d (%v)", when, info.Oldest, oldest, err)
	}
}

// talk makes a room with 12 events: made, joined, and 10 messages.
func talk(t *testing.T, h *room.Hub) {
	t.Helper()
	r, err := h.Acquire(t.Context(), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		say(t, h, r)
	}
}

// TestP8_ClockAhead sets the clock 40 days ahead for 6 seconds, and at a restart:
// retention of 30 days removes nothing, and says that the clock was set. Once the
// clock has held it removes all, and says what, where and by which rule.
func TestP8_ClockAhead(t *testing.T) {
	m := &machine{now: clock.Reading{Wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	st := openStore(t)
	h := m.keepMonth(t, st)
	talk(t, h)
	wantKept(t, h, 1, "at first")
	m.set(40 * day)
	for range 6 {
		wantKept(t, h, 1, "ahead")
		m.pass(time.Second)
	}
	m.set(-40 * day)
	wantKept(t, h, 1, "after it was set right")
	if log := m.log(); !strings.Contains(log, "the clock was set") || strings.Contains(log, "retention removed") {
		t.Errorf("the log says:\n%s", log)
	}
	h.Close()

	m.set(40 * day)
	h = m.keepMonth(t, st)
	defer h.Close()
	wantKept(t, h, 1, "ahead, after a restart")
	m.pass(clock.Settle - time.Second)
	wantKept(t, h, 1, "ahead for nearly an hour")
	m.pass(time.Second)
	wantKept(t, h, 13, "after it has held")
	if log := m.log(); !strings.Contains(log, `msg="retention removed events" room=lobby first=1 last=12 rule=age limit=720h0m0s`) {
		t.Errorf("the log says:\n%s", log)
	}
}

// TestP8_ClockPasses is the control: 31 days go by, and the events with them.
func TestP8_ClockPasses(t *testing.T) {
	m := &machine{now: clock.Reading{Wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	h := m.keepMonth(t, openStore(t))
	defer h.Close()
	talk(t, h)
	m.pass(29 * day)
	wantKept(t, h, 1, "after 29 days")
	m.pass(2 * day)
	wantKept(t, h, 13, "after 31 days")
}

// TestP8_ClockBack sets the clock 40 days back while a room is made: when it is
// right again, its events are as old as they are, and stay.
func TestP8_ClockBack(t *testing.T) {
	m := &machine{now: clock.Reading{Wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	h := m.keepMonth(t, openStore(t))
	defer h.Close()
	m.set(-40 * day)
	talk(t, h)
	m.set(40 * day)
	for range 3 {
		m.pass(clock.Settle)
		wantKept(t, h, 1, "after it was set right")
	}
}
