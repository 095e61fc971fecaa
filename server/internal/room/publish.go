package room

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Publish is an event that a user wants in a room's log.
type Publish struct {
	// Event has a time, a sender, perhaps a client id, and a body; no offset.
	Event *reprisev1.Event
	// Admit, if not nil, is asked once the publish is known not to be a retry
	// of one that succeeded, before anything else may refuse it.
	Admit func() error
	// Fence, if not nil, is the last check: it is asked under the room's lock,
	// at the moment the offset is given. It must not block.
	Fence func() error
}

// Receipt is the answer to a publish.
type Receipt struct {
	Offset      uint64
	Incarnation string
	Time        time.Time
	// Duplicate: the event had been published before, with the same client id.
	Duplicate bool
}

// claim is the right to publish under a client id. It is held from before the
// look-up until the event is durable and can be looked up, so that of two
// publishes with one client id the second always finds the first.
type claim struct{ sender, clientID string }

// Publish appends p to the room and calls done exactly once: at once if it is
// refused or a duplicate, otherwise when the event is durable and readers can
// reach it. done must not block. Events of sequential calls keep their
// order. The context bounds the checks, not the commit.
func (r *Room) Publish(ctx context.Context, p Publish, done func(Receipt, error)) {
	if f := r.hub.opts.OnPublish; f != nil {
		tell := done
		done = func(rec Receipt, err error) { f(rec.Duplicate, err); tell(rec, err) }
	}
	release, err := r.claim(ctx, claim{p.Event.GetSender(), p.Event.GetClientId()})
	if err != nil {
		done(Receipt{}, err)
		return
	}
	// P4: a retry is recognised before permission and rate.
	rec, found, err := r.published(ctx, p.Event)
	if err == nil && !found {
		err = r.submit(ctx, p, func(rec Receipt, err error) {
			release()
			done(rec, err)
		})
		if err == nil {
			return
		}
	}
	release()
	done(rec, err)
}

// claim waits until nobody else publishes under c and returns what gives it
// back. Without a client id there is nothing to claim.
func (r *Room) claim(ctx context.Context, c claim) (release func(), err error) {
	if c.clientID == "" {
		return func() {}, nil
	}
	for {
		r.mu.Lock()
		freed, held := r.claims[c]
		if !held {
			r.claims[c] = nil
			r.mu.Unlock()
			return func() { r.free(c) }, nil
		}
		if freed == nil { // the first that has to wait
			freed = make(chan struct{})
			r.claims[c] = freed
		}
		r.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *Room) free(c claim) {
	r.mu.Lock()
	freed := r.claims[c]
	delete(r.claims, c)
	r.mu.Unlock()
	if freed != nil {
		close(freed)
	}
}

// published looks for the event that an earlier attempt of this publish made.
func (r *Room) published(ctx context.Context, e *reprisev1.Event) (rec Receipt, found bool, err error) {
	if e.GetClientId() == "" || fault.Broken(fault.ForgetClientID) {
		return Receipt{}, false, nil
	}
	offset, err := r.engine().Lookup(ctx, e.GetSender(), e.GetClientId())
	if err != nil || offset == 0 {
		return Receipt{}, false, r.unavailable(err)
	}
	b, err := r.read(ctx, offset-1, offset, 1)
	if err != nil {
		return Receipt{}, false, err
	}
	if b.Trimmed || b.Last != offset {
		return Receipt{}, false, nil // retention came between: not retained any more
	}
	old, err := event.Decode(b.Data)
	if err != nil {
		return Receipt{}, false, r.unavailable(&store.CorruptError{Room: r.name, Offset: offset, Detail: err.Error()})
	}
	if !sameBody(old, e) {
		return Receipt{}, false, ErrClientIDReused
	}
	return Receipt{Offset: offset, Incarnation: b.Incarnation, Time: old.GetTime().AsTime(), Duplicate: true}, true, nil
}

func sameBody(a, b *reprisev1.Event) bool {
	return proto.Equal(
		&reprisev1.Event{Body: a.GetBody()},
		&reprisev1.Event{Body: b.GetBody()},
	)
}

// submit makes the remaining checks and gives the event its offset.
func (r *Room) submit(ctx context.Context, p Publish, done func(Receipt, error)) error {
	sender := p.Event.GetSender()
	failures := r.failuresNow()
	if err := r.learn(ctx, sender); err != nil {
		return err
	}
	if p.Admit != nil && r.isMember(sender) {
		if err := p.Admit(); err != nil {
			return err
		}
	}
	element, err := event.Encode(p.Event)
	if err != nil {
		return err
	}
	rec := Receipt{Time: p.Event.GetTime().AsTime()}

	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmp.Or(r.sinceLocked(failures), r.acceptsLocked(p.Fence)); err != nil {
		return err
	}
	if r.meta == nil || !r.members[sender] {
		return ErrNotFound
	}
	rec.Offset, rec.Incarnation = r.head+1, r.log.Incarnation()
	return r.appendLocked([]entry{{element, sender, p.Event.GetClientId()}}, nil, nil, func(err error) {
		if err != nil {
			done(Receipt{}, err)
			return
		}
		done(rec, nil)
	})
}

// acceptsLocked makes the checks that every append makes last, but for that of
// the engine itself.
func (r *Room) acceptsLocked(fence func() error) error {
	if r.failed != nil {
		return r.failed
	}
	if r.pending >= maxPending {
		return ErrBusy
	}
	if fence != nil {
		return fence()
	}
	return nil
}
