package room

import (
	"context"
	"errors"
	"time"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Bounds of open invitations. What one user does must not fill what another
// has: each invitation is the giver's event and counts against the giver.
const (
	// MaxInvited bounds those to one room.
	MaxInvited = 1000
	// MaxShare bounds those to one open room by one user: there every member
	// may invite. In a private one nobody but its creator does.
	MaxShare = 100
	// MaxGiven bounds those of one user by another.
	MaxGiven = 100
)

// Guest is somebody to be invited.
type Guest struct {
	User string
	// Direct: the server's policy is to add members directly. One who has as many
	// rooms as one may have is invited still: another user's doing must not shut
	// anybody out.
	Direct bool
	// Rooms are those of this user. They are not looked at unless Direct.
	Rooms *limit.Count
	// Given are the open invitations of this user by the same giver.
	Given *limit.Count
}

// addedBy reports whether g becomes a member at once, and counts its room.
func (g *Guest) addedBy(a *attempt) bool {
	g.Direct = g.Direct && a.take(g.Rooms)
	return g.Direct
}

// entry returns the event that invites or adds g, and the change that it makes.
func (g *Guest) entry(by string, now time.Time) (entry, store.MemberChange, error) {
	kind := reprisev1.MemberChange_KIND_INVITED
	if g.Direct {
		kind = reprisev1.MemberChange_KIND_JOINED
	}
	e, err := memberEntry(by, g.User, kind, now)
	return e, store.MemberChange{User: g.User, Joined: g.Direct, Invited: !g.Direct, By: by, Time: now}, err
}

// Invitation is the outcome of Invite.
type Invitation struct {
	Change
	// Joined: the user is a member.
	Joined bool
}

// Invite invites g in the name of by: a member of an open room, or the creator
// of a private one who is a member. Errors: ErrNotFound, ErrInviteRefused,
// ErrTooManyInvitations. It waits until the invitation is durable, or for ctx;
// then it may still come to be.
func (r *Room) Invite(ctx context.Context, by string, g Guest, checks Checks) (out Invitation, err error) {
	failures := r.failuresNow()
	if err := r.Entitled(ctx, by); err != nil {
		return Invitation{}, err
	}
	given, err := r.hub.invited.Open(ctx, r.name+"\x00"+by, func(ctx context.Context) (int, error) {
		return r.engine().CountInvitedBy(ctx, by)
	})
	if err != nil {
		return Invitation{}, r.unavailable(err)
	}
	defer given.Close()
	out.Change, err = r.change(ctx, g.User, func(a *attempt) (Change, error) {
		if err := r.sinceLocked(failures); err != nil { // by may be unknown again
			return Change{}, err
		}
		c, err := r.inviteLocked(by, g, given, checks, a)
		out.Joined = r.members[g.User]
		return c, err
	})
	if errors.Is(err, errAlready) {
		return Invitation{Change: Change{Already: true}, Joined: out.Joined}, nil
	}
	return out, err
}

// inviteLocked appends the invitation of g, unless g is a member, or invited
// already. given are the open invitations to the room by the same user.
func (r *Room) inviteLocked(by string, g Guest, given *limit.Count, checks Checks, a *attempt) (Change, error) {
	switch {
	case r.meta == nil || !r.members[by]:
		return Change{}, ErrNotFound
	case r.meta.Private && by != r.meta.Creator:
		return Change{}, ErrInviteRefused
	case r.members[g.User]:
		return Change{}, errAlready
	case g.addedBy(a):
	case a.invited:
		return Change{}, errAlready
	case r.fullLocked() || !r.meta.Private && !a.take(given) || !a.take(g.Given):
		return Change{}, ErrTooManyInvitations
	}
	if err := r.passLocked(a, checks, false, false, 1); err != nil {
		return Change{}, err
	}
	e, m, err := g.entry(by, r.hub.Now())
	if err != nil {
		return Change{}, err
	}
	m.Offset = r.head + 1
	if err := r.appendLocked([]entry{e}, []store.MemberChange{m}, nil, a.done); err != nil {
		return Change{}, err
	}
	if g.Direct {
		r.members[g.User] = true
	}
	return Change{Offset: m.Offset}, nil
}

// fullLocked reports whether as many invitations to the room are open as may be.
func (r *Room) fullLocked() bool { return int(r.invited)+r.inviting >= MaxInvited }

// countInvited counts the invitations among changes.
func countInvited(changes []store.MemberChange) (n int) {
	for _, c := range changes {
		if c.Invited {
			n++
		}
	}
	return n
}
