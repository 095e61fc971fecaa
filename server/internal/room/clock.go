package room

import (
	"context"
	"time"

	"github.com/reprise-chat/reprise/server/internal/clock"
)

// noteClockEvery is how often the time is noted, so that after a restart a clock
// that was set meanwhile is known from one that was not.
const noteClockEvery = 10 * time.Minute

// startClock goes on from the time at which the store was last in use.
func (h *Hub) startClock(ctx context.Context) *clock.Clock {
	seen, err := h.store.Clock(ctx)
	var rooms []string
	if err == nil && seen.IsZero() {
		rooms, err = h.store.Rooms(ctx, "", 1)
	}
	if err != nil {
		h.opts.Logger.Warn("when this data was last in use cannot be read: no age is reckoned until the clock has held for a while", "error", err)
	}
	h.noted = seen
	return clock.New(h.opts.ReadClock, seen, err == nil && len(rooms) == 0, h.opts.Logger)
}

// Now returns the time with which to stamp what is stored. It is the machine's,
// but for a while after that was set back.
func (h *Hub) Now() time.Time { return h.clock.Now() }

// noteClock notes the time if that is so long ago. Called by one goroutine at a
// time.
func (h *Hub) noteClock(ctx context.Context, every time.Duration) {
	now, ok := h.clock.Aged()
	if !ok || now.Sub(h.noted).Abs() < every || h.store.Writable() != nil {
		return
	}
	if err := h.store.NoteClock(ctx, now); err != nil {
		if ctx.Err() == nil {
			h.opts.Logger.Warn("the time could not be noted; it will be tried again", "error", err)
		}
		return
	}
	h.noted = now
}
