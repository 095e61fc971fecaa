package room

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// learn makes sure that r.members has user if it is a member. Every change of a
// membership is written there when its offset is given, so what is already
// known is never older than what the store says. Of those that are no members
// nothing is kept: everybody could ask, under any name.
func (r *Room) learn(ctx context.Context, user string) error {
	for {
		r.mu.Lock()
		_, known := r.members[user]
		exists, log, unlearned := r.meta != nil, r.log, r.unlearned
		r.mu.Unlock()
		if known || !exists {
			return nil
		}
		_, member, err := log.Member(ctx, user)
		if err != nil || !member {
			return r.unavailable(err)
		}
		if r.learned(user, unlearned) {
			return nil
		}
	}
}

// learnInvited is learn, and reports whether one who is no member is invited.
func (r *Room) learnInvited(ctx context.Context, user string) (bool, error) {
	if err := r.learn(ctx, user); err != nil || r.isMember(user) {
		return false, err
	}
	_, invited, err := r.engine().Invitation(ctx, user)
	return invited, r.unavailable(err)
}

// learned notes that the store has user as a member, unless some membership
// has ended since it was asked: it may be this one.
func (r *Room) learned(user string, unlearned uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unlearned != unlearned {
		return false
	}
	if _, known := r.members[user]; !known {
		r.members[user] = true
	}
	r.used.Store(true)
	return true
}

// unlearnLocked forgets an end of a membership that the store knows by now,
// unless the membership has begun again.
func (r *Room) unlearnLocked(user string) {
	if !r.members[user] {
		delete(r.members, user)
		r.unlearned++
	}
}

func (r *Room) isMember(user string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta != nil && r.members[user]
}

// Entitled returns nil if the user may see the room, otherwise ErrNotFound.
func (r *Room) Entitled(ctx context.Context, user string) error {
	for {
		failures := r.failuresNow()
		if err := r.learn(ctx, user); err != nil {
			return err
		}
		if r.isMember(user) {
			return nil
		}
		if r.failuresNow() == failures { // otherwise what was learned may have been forgotten
			return ErrNotFound
		}
	}
}

// Member returns a user's membership, or ErrNotFound.
func (r *Room) Member(ctx context.Context, user string) (store.Member, error) {
	m, ok, err := r.engine().Member(ctx, user)
	if err == nil && !ok {
		err = ErrNotFound
	}
	return m, r.unavailable(err)
}

// Members returns up to limit members whose names are not before from.
func (r *Room) Members(ctx context.Context, from string, limit int) ([]store.Member, error) {
	members, err := r.engine().Members(ctx, from, limit)
	return members, r.unavailable(err)
}

// Change is the outcome of a change of membership.
type Change struct {
	// Offset of the event that says so, or said so before.
	Offset uint64
	// Incarnation of Offset.
	Incarnation string
	// Already: nothing had to be changed.
	Already bool
}

// Checks are made last, under the room's lock, in this order. None may block;
// nil passes.
type Checks struct {
	// Fence refuses a caller whose attachment was taken over.
	Fence func() error
	// Bound counts one more room of the user, or refuses that. settle is called
	// once the outcome is known.
	Bound func() (settle func(error), err error)
	// Ends counts one room less.
	Ends func() (settle func(error))
	// Make refuses to make one more room.
	Make func() error
	// Admit refuses to write so many more events.
	Admit func(events int) error
}

// attempt is a change of a membership that is about to be made.
type attempt struct {
	// invited: the user is no member, and has an open invitation.
	invited bool
	// counted are told of the outcome; see [limit.Count.Take].
	counted []func(error)
	// done is called when the change is durable, or is known not to come to be;
	// not if it was refused.
	done func(error)
}

// take counts one more, or reports that the bound is reached.
func (a *attempt) take(c *limit.Count) bool {
	settle, ok := c.Take()
	if ok {
		a.counted = append(a.counted, settle)
	}
	return ok
}

func (a *attempt) settle(err error) {
	for _, settle := range a.counted {
		settle(err)
	}
}

// passLocked makes the checks of a change that writes events.
func (r *Room) passLocked(a *attempt, c Checks, joins, makes bool, events int) error {
	if err := r.acceptsLocked(c.Fence); err != nil {
		return err
	}
	if joins && c.Bound != nil {
		settle, err := c.Bound()
		if err != nil {
			return err
		}
		a.counted = append(a.counted, settle)
	}
	if makes && c.Make != nil {
		if err := c.Make(); err != nil {
			return err
		}
	}
	if c.Admit != nil {
		return c.Admit(events)
	}
	return nil
}

// Create makes the room with meta.Creator in it and the guests invited. It
// returns ErrExists if there is one of that name. It waits until the room is
// durable, or for ctx; then it may still come to be.
func (r *Room) Create(ctx context.Context, meta store.Meta, guests []Guest, checks Checks) (Change, error) {
	guests = distinct(meta.Creator, guests)
	return r.change(ctx, meta.Creator, func(a *attempt) (Change, error) {
		if r.meta != nil || r.creating != nil {
			return Change{}, ErrExists
		}
		for i := range guests {
			if g := &guests[i]; !g.addedBy(a) && !a.take(g.Given) {
				return Change{}, ErrTooManyInvitations
			}
		}
		if err := r.passLocked(a, checks, true, true, 2+len(guests)); err != nil {
			return Change{}, err
		}
		return r.createLocked(meta, guests, a.done)
	})
}

// distinct returns each guest once, and not the creator.
func distinct(creator string, guests []Guest) (out []Guest) {
	named := map[string]bool{creator: true}
	for _, g := range guests {
		if !named[g.User] {
			named[g.User] = true
			out = append(out, g)
		}
	}
	return out
}

func (r *Room) createLocked(meta store.Meta, guests []Guest, done func(error)) (Change, error) {
	access := reprisev1.RoomAccess_ROOM_ACCESS_OPEN
	if meta.Private {
		access = reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE
	}
	created, err := event.Encode(&reprisev1.Event{
		Time: timestamppb.New(meta.Created), Sender: meta.Creator,
		Body: &reprisev1.Event_RoomChange{RoomChange: &reprisev1.RoomChange{Title: meta.Title, Access: access}},
	})
	if err != nil {
		return Change{}, err
	}
	entries := []entry{{element: created, sender: meta.Creator}}
	var members []store.MemberChange
	joined := make(map[string]bool)
	for _, g := range append([]Guest{{User: meta.Creator, Direct: true}}, guests...) {
		e, m, err := g.entry(meta.Creator, meta.Created)
		if err != nil {
			return Change{}, err
		}
		entries = append(entries, e)
		m.Offset = r.head + uint64(len(entries))
		members = append(members, m)
		if g.Direct {
			joined[g.User] = true
		}
	}
	if err := r.appendLocked(entries, members, &meta, done); err != nil {
		return Change{}, err
	}
	r.creating = &meta
	maps.Copy(r.members, joined)
	if !meta.Retention.IsZero() {
		r.hub.retains.Store(true)
	}
	return Change{Offset: members[0].Offset}, nil
}

// Join makes user a member; see Options.CreateOnJoin for a room that does not
// exist. A private room takes its creator and who is invited; to others it is a
// name that is taken, or, where joining makes no rooms, nothing. It waits until
// the membership is durable, or for ctx; then it may still come to be.
func (r *Room) Join(ctx context.Context, user string, checks Checks) (Change, error) {
	now := r.hub.Now()
	var known, failures uint64
	c, err := r.change(ctx, user, func(a *attempt) (Change, error) {
		if r.members[user] {
			known, failures = r.head, r.failures
			return Change{}, errAlready
		}
		if r.meta == nil && r.creating == nil {
			if !r.hub.opts.CreateOnJoin {
				return Change{}, ErrNotFound
			}
			if err := r.passLocked(a, checks, true, true, 2); err != nil {
				return Change{}, err
			}
			return r.createLocked(store.Meta{Name: r.name, Creator: user, Created: now}, nil, a.done)
		}
		if meta := cmp.Or(r.meta, r.creating); meta.Private && user != meta.Creator && !a.invited {
			if r.hub.opts.CreateOnJoin {
				return Change{}, ErrExists
			}
			return Change{}, ErrNotFound
		}
		if err := r.passLocked(a, checks, true, false, 1); err != nil {
			return Change{}, err
		}
		return r.changeLocked(user, user, true, now, a.done)
	})
	if !errors.Is(err, errAlready) {
		return c, err
	}
	// Whoever named the user at the room's creation may still wait for it.
	if err := r.reach(ctx, known, failures); err != nil {
		return Change{}, err
	}
	m, err := r.Member(ctx, user)
	if err != nil {
		return Change{}, err
	}
	return Change{Offset: m.Joined, Incarnation: r.Incarnation(m.Joined), Already: true}, nil
}

// errAlready ends a change that has nothing to change.
var errAlready = errors.New("room: already a member")

// Leave ends a membership, or returns ErrNotFound if there is none.
func (r *Room) Leave(ctx context.Context, user string, checks Checks) (Change, error) {
	now := r.hub.Now()
	return r.change(ctx, user, func(a *attempt) (Change, error) {
		if r.meta == nil || !r.members[user] {
			return Change{}, ErrNotFound
		}
		if err := r.passLocked(a, checks, false, false, 1); err != nil {
			return Change{}, err
		}
		if checks.Ends != nil {
			a.counted = append(a.counted, checks.Ends())
		}
		return r.changeLocked(user, user, false, now, a.done)
	})
}

func (r *Room) changeLocked(user, by string, joined bool, now time.Time, done func(error)) (Change, error) {
	kind := reprisev1.MemberChange_KIND_LEFT
	if joined {
		kind = reprisev1.MemberChange_KIND_JOINED
	}
	e, err := memberEntry(by, user, kind, now)
	if err != nil {
		return Change{}, err
	}
	offset := r.head + 1
	changes := []store.MemberChange{{User: user, Joined: joined, Offset: offset, By: by}}
	if err := r.appendLocked([]entry{e}, changes, nil, done); err != nil {
		return Change{}, err
	}
	r.members[user] = joined
	return Change{Offset: offset}, nil
}

func memberEntry(by, user string, kind reprisev1.MemberChange_Kind, now time.Time) (entry, error) {
	element, err := event.Encode(&reprisev1.Event{
		Time: timestamppb.New(now), Sender: by,
		Body: &reprisev1.Event_MemberChange{MemberChange: &reprisev1.MemberChange{Kind: kind, User: user}},
	})
	return entry{element: element, sender: by}, err
}

// memberClaim is a client id that no client can use: holding it is the right to
// change the sender's own membership.
const memberClaim = "\x00member"

// change calls do under the room's lock and, if it appended, waits until that
// is durable. Of two changes of one user's membership the second sees the
// first's outcome.
func (r *Room) change(ctx context.Context, user string, do func(*attempt) (Change, error)) (Change, error) {
	release, err := r.claim(ctx, claim{user, memberClaim})
	if err != nil {
		return Change{}, err
	}
	failures := r.failuresNow()
	invited, err := r.learnInvited(ctx, user)
	if err != nil {
		release()
		return Change{}, err
	}
	durable := make(chan error, 1)
	a := &attempt{invited: invited}
	a.done = func(err error) {
		a.settle(err)
		release()
		durable <- err
	}
	var c Change
	r.mu.Lock()
	if err = r.sinceLocked(failures); err == nil {
		c, err = do(a)
	}
	r.mu.Unlock()
	if err != nil {
		a.settle(err)
		release()
		return Change{}, err
	}
	select {
	case err := <-durable:
		c.Incarnation = r.Incarnation(c.Offset) // a new room has none before
		return c, err
	case <-ctx.Done():
		return Change{}, ctx.Err()
	}
}
