package room

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// maxPending bounds the events of one room that wait for their commit.
const maxPending = 4096

// Room is one room: the single writer of its log on this node. Safe for
// concurrent use; no method but those with a context blocks.
type Room struct {
	// Static; loadErr is set before loaded is closed.
	name    string
	hub     *Hub
	loaded  chan struct{}
	loadErr error

	// refs counts Acquires without Release.
	refs atomic.Int64
	// used: somebody who is entitled to the room has used it since it was
	// loaded, so that it is worth to be kept for a while.
	used atomic.Bool

	// trimming is held while retention is applied, across I/O: it guards
	// nothing but that.
	trimming sync.Mutex

	// Guarded by mu, which is never held across I/O, a send, or Wake.
	mu        sync.Mutex
	log       store.Log   // another one after a write failed
	meta      *store.Meta // nil: the room does not exist
	creating  *store.Meta // its first append is on the way
	head      uint64      // newest offset given
	durable   uint64      // newest offset that readers may reach
	oldest    uint64
	count     uint32 // members
	invited   uint32 // open invitations
	inviting  int    // those that are not durable yet
	stretches []store.Stretch
	members   map[string]bool         // members that were asked for, and changes that are not durable yet; see learn
	unlearned uint64                  // raised when an end of a membership is forgotten
	claims    map[claim]chan struct{} // closed when it is given back; nil: nobody waits
	pending   int                     // events given an offset and not yet durable
	moved     chan struct{}           // closed at the next commit; nil: nobody waits
	failed    error                   // why nothing is appended until the room is mended
	failures  uint64                  // how often it was
	tail      tail
	pages     []chunk                  // read from the store, by first offset
	fetching  map[uint64]chan struct{} // first offsets being read; closed when they were
	last      time.Time                // of the newest event, or of loading
	cursors   []*Cursor
	moving    bool // the hub's waker has the room, and its readers are yet to be woken

	// Owned by the hub's waker: over how many readers the last pass was, and
	// until when the next one is held.
	readers int
	due     time.Time
}

func newRoom(h *Hub, name string) *Room {
	return &Room{name: name, hub: h, loaded: make(chan struct{}), last: time.Now()}
}

func (r *Room) open(log store.Log) {
	s := log.State()
	r.log = log
	r.meta = s.Meta
	r.head, r.durable, r.oldest = s.Head, s.Head, s.Oldest
	r.count, r.invited = s.Members, s.Invited
	r.stretches = s.Stretches
	r.members = make(map[string]bool)
	r.claims = make(map[claim]chan struct{})
	r.fetching = make(map[uint64]chan struct{})
}

// Release undoes one Acquire. A room that nobody entitled has used, or that
// does not exist, is forgotten at once: what strangers ask for costs no memory.
func (r *Room) Release() {
	if r.refs.Add(-1) == 0 && !r.used.Load() {
		r.hub.drop(r)
	}
}

// Name returns the room's name.
func (r *Room) Name() string { return r.name }

// Info is what is durable of a room.
type Info struct {
	Meta    store.Meta
	Members uint32
	Head    uint64
	Oldest  uint64
	// Incarnation is that of the head.
	Incarnation string
}

// Info returns the room's durable state, or ErrNotFound if it does not exist.
func (r *Room) Info() (Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.meta == nil {
		return Info{}, ErrNotFound
	}
	return Info{
		Meta: *r.meta, Members: r.count, Head: r.durable, Oldest: r.oldest,
		Incarnation: r.incarnationLocked(r.durable),
	}, nil
}

// Incarnation returns the incarnation that offset belongs to.
func (r *Room) Incarnation(offset uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.incarnationLocked(offset)
}

func (r *Room) incarnationLocked(offset uint64) string {
	for i := len(r.stretches) - 1; i >= 0; i-- {
		if r.stretches[i].First <= offset {
			return r.stretches[i].Incarnation
		}
	}
	return ""
}

// entry is an event on its way into the log.
type entry struct {
	element          []byte // without its place yet
	sender, clientID string
}

// appendLocked gives the entries their offsets and hands them to the engine.
// Every check of this package that could refuse them has been made, under the
// same lock. done is called when they are durable and readers can reach them,
// and must not block; not if an error is returned: then nothing has changed.
func (r *Room) appendLocked(entries []entry, members []store.MemberChange, create *store.Meta, done func(error)) error {
	first := r.head + 1
	events := make([]store.Event, len(entries))
	for i, e := range entries {
		event.Place(e.element, first+uint64(i), first+uint64(i)-1)
		events[i] = store.Event{Encoded: e.element, Sender: e.sender, ClientID: e.clientID}
	}
	a := &store.Append{Expect: r.head, Create: create, Events: events, Members: members}
	a.Done = func(err error) {
		fault.Point(fault.Committed)
		r.committed(a, err)
		fault.Point(fault.Shown)
		done(r.unavailable(err))
	}
	fault.Point(fault.Assigned)
	if err := r.log.Append(a); err != nil {
		return err
	}
	r.used.Store(true)
	r.head += uint64(len(entries))
	r.pending += len(entries)
	r.inviting += countInvited(members)
	return nil
}

// engine returns the room's log, for reading.
func (r *Room) engine() store.Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log
}

// committed makes a durable append visible and has the readers woken. It is
// called by the engine, in the order of the log.
func (r *Room) committed(a *store.Append, err error) {
	r.mu.Lock()
	r.pending -= len(a.Events)
	r.inviting -= countInvited(a.Members)
	if err != nil {
		r.failLocked(err)
		r.mu.Unlock()
		return
	}
	if a.Create != nil {
		r.meta = a.Create
		r.creating = nil
		r.oldest = 1
	}
	if inc := r.log.Incarnation(); len(r.stretches) == 0 || r.stretches[len(r.stretches)-1].Incarnation != inc {
		// A new slice: the old one may be shared.
		r.stretches = append(r.stretches[:len(r.stretches):len(r.stretches)], store.Stretch{Incarnation: inc, First: a.Expect + 1})
	}
	for i, e := range a.Events {
		r.tail.append(a.Expect+1+uint64(i), e.Encoded)
	}
	for _, c := range a.Members {
		switch {
		case c.Invited:
		case c.Joined:
			r.count++
		default:
			r.count--
			r.unlearnLocked(c.User)
		}
	}
	r.invited = r.log.State().Invited
	r.durable = a.Expect + uint64(len(a.Events))
	r.last = time.Now()
	r.stirLocked()
	tell := !r.moving && len(r.cursors) > 0
	r.moving = r.moving || tell
	r.mu.Unlock()

	if tell {
		r.hub.waker.push(r)
	}
	if f := r.hub.opts.OnMember; f != nil {
		for _, c := range a.Members {
			if !c.Invited { // which costs nobody but the room anything
				f(r.name, c)
			}
		}
	}
}

// Reach waits until readers may reach offset. The caller has it from the
// store, which shows a commit a moment before the room does, or from the room,
// which may have given it to an append that fails: then ErrUnavailable.
func (r *Room) Reach(ctx context.Context, offset uint64) error {
	return r.reach(ctx, offset, r.failuresNow())
}

// reach is Reach for an offset that was known after so many failures.
func (r *Room) reach(ctx context.Context, offset, failures uint64) error {
	for {
		r.mu.Lock()
		if r.durable >= offset {
			r.mu.Unlock()
			return nil
		}
		if err := r.sinceLocked(failures); err != nil {
			r.mu.Unlock()
			return err
		}
		if r.moved == nil {
			r.moved = make(chan struct{})
		}
		moved := r.moved
		r.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stirLocked wakes those that wait in Reach.
func (r *Room) stirLocked() {
	if r.moved != nil {
		close(r.moved)
		r.moved = nil
	}
}

func (r *Room) isLoaded() bool {
	select {
	case <-r.loaded:
		return r.loadErr == nil
	default:
		return false
	}
}

func (r *Room) idleSince(limit time.Time) bool {
	if !r.isLoaded() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A room that does not exist is remembered for nobody's benefit.
	return r.pending == 0 && r.creating == nil && len(r.cursors) == 0 && (r.meta == nil || r.last.Before(limit))
}

func (r *Room) tailUse() (bytes int64, last time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(r.tail.bytes), r.last
}

func (r *Room) dropTail() (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bytes = int64(r.tail.bytes)
	r.tail = tail{}
	return bytes
}
