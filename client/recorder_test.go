package reprise

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a Handler that writes down what it was given.
type recorder struct {
	mu     sync.Mutex
	got    []string
	events []Event
	hold   chan struct{}     // when not nil, each event waits for it
	fail   map[uint64]error  // by offset
	call   func(Event) error // when not nil, called for each event
}

func (h *recorder) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, fmt.Sprintf(format, args...))
}

// take returns what was noted since the last take.
func (h *recorder) take() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := strings.Join(h.got, " ")
	h.got = nil
	return s
}

func (h *recorder) HandleEvent(ctx context.Context, e Event) error {
	if h.hold != nil {
		select {
		case <-h.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := h.fail[e.Offset]; err != nil {
		return err
	}
	if h.call != nil {
		if err := h.call(e); err != nil {
			return err
		}
	}
	mark := ""
	if e.Replayed {
		mark = "r"
	}
	h.note("%s%d%s", e.Room, e.Offset, mark)
	h.mu.Lock()
	h.events = append(h.events, e)
	h.mu.Unlock()
	return nil
}

func (h *recorder) HandleGap(_ context.Context, g Gap) error {
	h.note("gap:%s%d-%d", g.Room, g.First, g.Last)
	return nil
}

func (h *recorder) HandleRewind(_ context.Context, r Rewind) error {
	h.note("rewind:%s%d", r.Room, r.To)
	return nil
}

// fullRecorder also implements the optional interfaces.
type fullRecorder struct{ recorder }

func (h *fullRecorder) HandleRoom(_ context.Context, s RoomState) error {
	h.note("room:%s%d", s.Room.GetName(), s.Position.Offset)
	return nil
}

func (h *fullRecorder) HandleUnavailable(_ context.Context, u RoomUnavailable) error {
	h.note("unavailable:%s/%s", u.Room, u.Reason)
	return nil
}

func (h *fullRecorder) HandleRoomClosed(_ context.Context, c RoomClosed) error {
	h.note("closed:%s/%s/%s%d", c.Room, c.Reason, c.By, c.Offset)
	return nil
}

func (h *fullRecorder) HandleCaughtUp(_ context.Context, c CaughtUp) error {
	h.note("caughtup:%s", c.Room)
	return nil
}

// running is a Run in the background.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, c *Client, h Handler) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- c.Run(ctx, h) }()
	t.Cleanup(cancel)
	synctest.Wait() // sends from now on go through it
	return r
}

// wait returns Run's error when it ends by itself.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Hour):
		r.t.Fatal("Run does not end")
		return nil
	}
}

// stop ends Run and checks that it took it as asked for.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := r.wait(); err != nil {
		r.t.Errorf("Run: %v, want nil after its context ended", err)
	}
}
