package room

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/reprise-chat/reprise/server/internal/clock"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Errors of this package, for errors.Is.
var (
	// ErrNotFound: the room does not exist, or the user is not a member of it.
	// A stranger cannot tell one from the other.
	ErrNotFound = errors.New("room: not found")
	// ErrExists: the name is taken, and the user may not join: of what kind the
	// room is, a stranger is not told.
	ErrExists = errors.New("room: exists")
	// ErrInviteRefused: the user is a member, and may not invite.
	ErrInviteRefused = errors.New("room: invitation refused")
	// ErrTooManyInvitations: too many invitations to the room are open, or of
	// one user by another.
	ErrTooManyInvitations = errors.New("room: too many invitations are open")
	// ErrClientIDReused: the sender used the client id for another event.
	ErrClientIDReused = errors.New("room: client id was used for another event")
	// ErrBusy: too many events wait to be committed.
	ErrBusy = errors.New("room: too many events in flight")
)

// Options configure a Hub.
type Options struct {
	// TailBytes bounds the memory of all hot tails together. Default 128 MiB.
	TailBytes int64
	// PageBytes bounds the memory of what all rooms have read from the store for
	// their readers to share. Default 32 MiB.
	PageBytes int
	// CreateOnJoin lets the first join make an open room.
	CreateOnJoin bool
	// Retention is for rooms that have none of their own.
	Retention store.Retention
	// TrimEvery is how often retention is applied. Default one minute.
	TrimEvery time.Duration
	// EmptyRooms is how long a room without members is kept. Default one hour;
	// negative: for ever.
	EmptyRooms time.Duration
	// OnMember, if not nil, is told of each durable change of a membership, in
	// the order of the room's log. It must not block.
	OnMember func(room string, c store.MemberChange)
	// OnPublish, if not nil, is told how each publish ended. It must not block.
	OnPublish func(duplicate bool, err error)
	// Busy, if not nil, says whether readers that were woken are yet to be
	// served before those of a room with so many. It must not block.
	Busy func(readers int) bool
	// ReadClock reads the machine's clock. Default clock.System.
	ReadClock func() clock.Reading
	// Logger for background work. Default slog.Default().
	Logger *slog.Logger
}

// Hub holds the rooms that are in use on this node: at most one Room a name,
// so that a room has one writer.
type Hub struct {
	store  store.Store
	opts   Options
	waker  *waker
	clock  *clock.Clock
	noted  time.Time // the time that is stored; for noteClock
	shelf  *shelf
	mender *mender
	// invited are the open invitations to a room by one user.
	invited *limit.Counts
	// trouble is logged once a second: every reader may find it.
	trouble rate.Sometimes

	mu    sync.RWMutex
	rooms map[string]*Room

	// surveyed: retention has looked at every room once; retains: there is
	// some retention to apply.
	surveyed, retains atomic.Bool

	stop       context.CancelFunc
	background sync.WaitGroup
}

// NewHub returns a Hub over s and starts its background work. Close it.
func NewHub(s store.Store, o Options) *Hub {
	if o.TailBytes == 0 {
		o.TailBytes = 128 << 20
	}
	if o.PageBytes == 0 {
		o.PageBytes = 32 << 20
	}
	if o.TrimEvery == 0 {
		o.TrimEvery = time.Minute
	}
	if o.EmptyRooms == 0 {
		o.EmptyRooms = time.Hour
	}
	if o.Busy == nil {
		o.Busy = func(int) bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.ReadClock == nil {
		o.ReadClock = clock.System()
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &Hub{store: s, opts: o, waker: newWaker(o.Busy), shelf: &shelf{limit: o.PageBytes}, mender: newMender(), invited: limit.NewCounts(MaxShare), rooms: make(map[string]*Room), stop: stop}
	h.clock = h.startClock(ctx)
	h.trouble.Interval = time.Second
	h.retains.Store(!o.Retention.IsZero())
	h.background.Go(func() { h.waker.run(ctx) })
	h.background.Go(func() { h.mender.run(ctx, h) })
	h.background.Go(func() { h.janitor(ctx) })
	h.background.Go(func() { h.retain(ctx) })
	if o.EmptyRooms > 0 {
		h.background.Go(func() { newSweeper(h).run(ctx) })
	}
	return h
}

// Close stops the background work. Callers have released their rooms.
func (h *Hub) Close() {
	h.stop()
	h.background.Wait()
	h.noteClock(context.Background(), 0)
}

// Acquire returns the room of that name, whether it exists or not, and keeps
// it in memory until Release. ErrUnavailable if it cannot be read just now: the
// next call reads it again.
func (h *Hub) Acquire(ctx context.Context, name string) (*Room, error) {
	r := h.lookup(name)
	if r == nil {
		r = h.load(name)
	}
	select {
	case <-r.loaded:
	case <-ctx.Done():
		r.Release()
		return nil, ctx.Err()
	}
	if r.loadErr != nil {
		r.Release()
		return nil, unavailable(name, r.loadErr)
	}
	return r, nil
}

func (h *Hub) lookup(name string) *Room {
	h.mu.RLock()
	defer h.mu.RUnlock()
	r := h.rooms[name]
	if r != nil {
		r.refs.Add(1) // under mu, so that evict sees it
	}
	return r
}

// load makes the room's entry and has it filled, unless another caller has made
// it meanwhile.
func (h *Hub) load(name string) *Room {
	h.mu.Lock()
	r, found := h.rooms[name]
	if !found {
		r = newRoom(h, name)
		h.rooms[name] = r
	}
	r.refs.Add(1)
	h.mu.Unlock()
	if found {
		return r
	}
	// Others may wait for this load, so it does not end with the first caller, and
	// that one need not wait for a slow disk longer than it wants to.
	h.background.Go(func() { h.fill(r) })
	return r
}

// fill reads a room's state. One that cannot be read is forgotten, for those who
// wait to be told and the next caller to read it again.
func (h *Hub) fill(r *Room) {
	defer close(r.loaded)
	log, err := h.store.OpenLog(context.Background(), r.name)
	if err == nil {
		r.open(log)
		return
	}
	r.loadErr = err
	h.troubled(r.name, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.rooms, r.name)
}

// troubled has the operator know that a room cannot be read.
func (h *Hub) troubled(room string, err error) {
	h.trouble.Do(func() {
		h.opts.Logger.Error("a room could not be read; will be tried again", "room", room, "error", err)
	})
}

// drop forgets a room that is of no use to anybody.
func (h *Hub) drop(r *Room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rooms[r.name] == r && r.refs.Load() == 0 && !r.used.Load() && r.idleSince(time.Now()) {
		delete(h.rooms, r.name)
	}
}

// janitorEvery is how often idle rooms and tails are looked for.
const janitorEvery = 10 * time.Second

// idleAfter is how long a room, or the tail of a room without news, stays in
// memory unused: longer than a client needs to come back from a lost network.
const idleAfter = time.Minute

func (h *Hub) janitor(ctx context.Context) {
	tick := time.NewTicker(janitorEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.evict()
		h.shrink()
		h.shelf.expire(time.Now().Add(-pageAge))
	}
}

// evict forgets rooms that nobody has used for a while.
func (h *Hub) evict() {
	limit := time.Now().Add(-idleAfter)
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, r := range h.rooms {
		if r.refs.Load() == 0 && r.idleSince(limit) {
			delete(h.rooms, name)
		}
	}
}

// shrink drops tails that have had no news for a while, then, while all tails
// together are over their bound, those that have had none for longest.
func (h *Hub) shrink() {
	limit := time.Now().Add(-idleAfter)
	type warm struct {
		room *Room
		last time.Time
	}
	var left []warm
	var total int64
	for _, r := range h.all() {
		bytes, last := r.tailUse()
		switch {
		case bytes == 0:
		case last.Before(limit):
			r.dropTail()
		default:
			left = append(left, warm{r, last})
			total += bytes
		}
	}
	slices.SortFunc(left, func(a, b warm) int { return a.last.Compare(b.last) })
	for _, w := range left {
		if total <= h.opts.TailBytes {
			return
		}
		total -= w.room.dropTail()
	}
}

func (h *Hub) all() []*Room {
	h.mu.RLock()
	defer h.mu.RUnlock()
	rooms := make([]*Room, 0, len(h.rooms))
	for _, r := range h.rooms {
		if r.isLoaded() {
			rooms = append(rooms, r)
		}
	}
	return rooms
}
