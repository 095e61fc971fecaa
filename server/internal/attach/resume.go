package attach

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Open is the wish for a new session.
type Open struct {
	User, Instance string
	History        uint64
	Focus          []string
	Window         uint32
	// Ephemeral has the session end with the stream.
	Ephemeral bool
}

// Resume is the wish to attach to an existing session, or, with neither
// SessionID nor Key, to one that is built from the positions.
type Resume struct {
	User, Instance string
	SessionID, Key string
	Takeover       session.Takeover
	Positions      map[string]room.Position // by room
	Checkpoint     string
	Focus          []string
	Window         uint32
	ReplayLimit    uint64
}

// Open makes a session and attaches stream to it. The caller serves the
// stream until Done and then calls Close.
func (m *Manager) Open(ctx context.Context, stream Stream, o Open) (*Attachment, error) {
	a, err := m.new(stream, o.User, o.Instance, o.Window)
	if err != nil {
		return nil, err
	}
	at := &attaching{a: a, focus: o.Focus, history: o.History, ephemeral: o.Ephemeral, outcome: reprisev1.Outcome_OUTCOME_NEW}
	return at.run(func() error { return at.create(ctx) })
}

// Resume attaches stream to a session, or to a copy of it if it must not or
// cannot be attached itself. The caller serves the stream until Done and then
// calls Close. Errors: those of session.Registry.Resume but ErrNotFound,
// session.ErrPositionsNeeded, session.ErrTooMany, ErrDraining.
func (m *Manager) Resume(ctx context.Context, stream Stream, r Resume) (*Attachment, error) {
	a, err := m.new(stream, r.User, r.Instance, r.Window)
	if err != nil {
		return nil, err
	}
	at := &attaching{a: a, focus: r.Focus, claimed: r.Positions, limit: m.opts.ReplayLimit}
	if r.ReplayLimit > 0 && (at.limit == 0 || r.ReplayLimit < at.limit) {
		at.limit = r.ReplayLimit
	}
	return at.run(func() error { return at.resume(ctx, r) })
}

// attaching is an attach under way: what is known of the client and its rooms
// while its attachment is put together.
type attaching struct {
	a       *Attachment
	focus   []string
	history uint64
	limit   uint64
	claimed map[string]room.Position
	outcome reprisev1.Outcome
	// ephemeral: of a session that ends with the stream.
	ephemeral bool

	seen    uint64 // version of the memberships that the client was told last
	version uint64 // and now
	stored  map[string]store.Position
	lost    []store.UserRoom
	over    []string  // rooms with a stored position whose loss the client was told of
	absent  []*absent // rooms that could not be opened
	gained  map[string]bool
	replay  uint64 // events
	broken  bool   // a Gap or a Rewind comes
}

// run makes the session's attach by commit, and on success begins the stream.
func (at *attaching) run(commit func() error) (*Attachment, error) {
	a := at.a
	if err := commit(); err != nil {
		a.abandon(err)
		return nil, err
	}
	fault.Point(fault.Attached)
	at.arm()
	// Before it begins: afterwards its rooms are the turn's.
	if log := a.debug(); log != nil {
		log.Debug("attached", "outcome", at.outcome.String(), "rooms", len(a.places), "replay", at.replay)
	}
	a.begin()
	a.attached.Welcomed()
	a.m.opts.Observer.Attached(at.outcome)
	return a, nil
}

// resume finds the session, decides where each room starts, and commits.
func (at *attaching) resume(ctx context.Context, r Resume) error {
	if r.SessionID == "" && r.Key == "" {
		at.outcome = reprisev1.Outcome_OUTCOME_REBUILT
		return at.create(ctx)
	}
	g := at.a.m.sessions
	c, fork, err := g.Resume(ctx, r.User, r.SessionID, r.Key, r.Instance, r.Takeover)
	switch {
	case errors.Is(err, session.ErrNotFound):
		if r.Checkpoint != "" { // what it stands for is gone with the record
			return session.ErrPositionsNeeded
		}
		at.outcome = reprisev1.Outcome_OUTCOME_REBUILT
		return at.create(ctx)
	case err != nil:
		return err
	case fork:
		return at.fork(ctx, r)
	}
	named, gained, err := at.prepare(ctx, c, r)
	if err != nil {
		c.Abandon()
		return err
	}
	at.a.attached, err = c.Commit(ctx, at.a, at.version, named, gained)
	at.outcome = reprisev1.Outcome_OUTCOME_EXACT
	return err
}

// prepare decides where each room starts and returns the positions that are to
// be stored with the attach: of rooms that the client named, and of those it
// gained, or whose loss it knows of.
func (at *attaching) prepare(ctx context.Context, c *session.Candidate, r Resume) (named, gained []store.Position, err error) {
	if at.stored, err = c.Positions(ctx); err != nil {
		return nil, nil, err
	}
	claims := func(name string) bool { _, ok := r.Positions[name]; return ok }
	if err := c.Covers(r.Checkpoint, at.stored, claims); err != nil {
		return nil, nil, err
	}
	at.seen = c.Seen()
	if err := at.rooms(ctx); err != nil {
		return nil, nil, err
	}
	for _, p := range at.a.places {
		switch {
		case claims(p.name()):
			named = append(named, p.stored())
		case at.gained[p.name()]:
			gained = append(gained, p.stored())
		}
	}
	for _, name := range at.over {
		gained = append(gained, store.Position{Room: name, Gone: true})
	}
	for _, b := range at.absent {
		p, _ := b.stored()
		switch {
		case claims(b.room):
			named = append(named, p)
		case at.gained[b.room]:
			gained = append(gained, p)
		}
	}
	return named, gained, nil
}

// fork attaches a copy of a session of the user.
func (at *attaching) fork(ctx context.Context, r Resume) error {
	m := at.a.m
	at.outcome = reprisev1.Outcome_OUTCOME_FORKED
	s, release, err := m.sessions.Acquire(ctx, r.User, r.SessionID)
	if err == nil {
		defer release()
		at.stored, at.seen, err = s.Copy(ctx)
	}
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return err
	}
	return at.create(ctx)
}

// create makes a new session that starts where the client, the stored
// positions it copies, or the heads say.
func (at *attaching) create(ctx context.Context) (err error) {
	if err := at.rooms(ctx); err != nil {
		return err
	}
	if at.ephemeral {
		at.a.attached, err = at.a.m.sessions.CreateEphemeral(at.a, at.a.user)
		return err
	}
	ps := make([]store.Position, 0, len(at.a.places))
	for _, p := range at.a.places {
		if len(p.replay.gaps) > 0 {
			continue // unknown, until the client says that it holds the Gap
		}
		ps = append(ps, p.stored())
	}
	for _, b := range at.absent {
		if p, ok := b.stored(); ok {
			ps = append(ps, p)
		}
	}
	at.a.attached, err = at.a.m.sessions.Create(ctx, at.a, at.a.user, at.version, ps, len(at.claimed) > 0)
	return err
}

// rooms makes a place for each room the user is a member of, and notes those
// that were lost, and those that cannot be opened just now: no room's failure
// keeps the others from the client.
func (at *attaching) rooms(ctx context.Context) error {
	a := at.a
	memberships, version, err := a.m.store.UserRooms(ctx, a.user)
	if err != nil {
		return err
	}
	at.version = version
	at.gained = make(map[string]bool)
	mine := make(map[string]bool, len(memberships))
	places := make([]place, 0, len(memberships)) // together, and pointed to: never to grow
	for _, ur := range memberships {
		if fault.Broken(fault.ForgetRooms) && ur.Version > at.seen && at.stored != nil {
			continue
		}
		mine[ur.Room] = true
		if !ur.Joined {
			switch _, held := at.stored[ur.Room]; {
			case at.mustTell(ur):
				at.lost = append(at.lost, ur)
			case held: // and the client was told
				at.over = append(at.over, ur.Room)
			}
			continue
		}
		start, fresh := at.startOf(ur)
		r, err := a.acquire(ctx, ur.Room, ur.Offset)
		if onlyThisRoom(ctx, err) {
			at.absent = append(at.absent, &absent{
				room: ur.Room, joined: ur.Offset, start: start, gained: fresh, limit: at.limit, told: true,
			})
			continue
		}
		if err != nil {
			return err
		}
		places = append(places, place{a: a, joined: ur.Offset, replay: &replay{initial: true, gained: fresh}})
		p := &places[len(places)-1]
		p.queued.Store(true) // no turn before arm
		p.cursor.Place(r)
		a.places = append(a.places, p) // to be released, whatever comes
		p.begin(start)
	}
	for name := range at.claimed {
		if !mine[name] { // never was, as far as anybody knows
			at.lost = append(at.lost, store.UserRoom{Room: name})
		}
	}
	at.unrecorded(memberships, mine)
	slices.SortFunc(a.places, func(p, q *place) int { return strings.Compare(p.name(), q.name()) })
	slices.SortFunc(at.lost, func(p, q store.UserRoom) int { return strings.Compare(p.Room, q.Room) })
	return nil
}

// unrecorded looks at the rooms that the session has a position in and the user
// no record of: an end that is not remembered any more is older than all that
// are. If the client may not have been told of it, it is told that the room is
// lost; otherwise the position is of no use to anybody.
func (at *attaching) unrecorded(memberships []store.UserRoom, mine map[string]bool) {
	oldest := at.version + 1
	for _, ur := range memberships {
		if !ur.Joined {
			oldest = min(oldest, ur.Version)
		}
	}
	for name := range at.stored {
		_, claimed := at.claimed[name]
		switch {
		case mine[name] || claimed:
		case at.seen+1 < oldest:
			at.lost = append(at.lost, store.UserRoom{Room: name})
		default:
			at.over = append(at.over, name)
		}
	}
}

// mustTell reports whether the client has to be told that a membership has
// ended: it names the room, or has not been told of the change.
func (at *attaching) mustTell(ended store.UserRoom) bool {
	if _, claimed := at.claimed[ended.Room]; claimed {
		return true
	}
	return at.stored != nil && ended.Version > at.seen
}

// startOf decides where delivery of one room starts (DESIGN: the effective
// position): the client's own position; else the acknowledged one; else, for a
// room joined since the session was last attached, before the join event; else
// the head, behind a Gap. A new session starts at the heads. fresh: the client
// has not been told of the room.
func (at *attaching) startOf(ur store.UserRoom) (s start, fresh bool) {
	fresh = at.stored != nil && ur.Version > at.seen
	own, claimed := at.claimed[ur.Room]
	acked, known := at.stored[ur.Room]
	switch {
	case claimed:
		s.at = own
	case known:
		s.at = room.Position{Incarnation: acked.Incarnation, Offset: acked.Offset}
	case fresh:
		s.at = room.Position{Offset: ur.Offset - 1}
		at.gained[ur.Room] = true
	case at.outcome == reprisev1.Outcome_OUTCOME_NEW:
		s.kind, s.events = startNewest, at.history
	default:
		s.kind = startUnknown
	}
	return s, fresh
}

func (at *attaching) welcome(changed int) *reprisev1.Welcome {
	a := at.a
	m := a.m
	spread := time.Duration(m.Live()) * time.Second / time.Duration(m.opts.AttachRate)
	return &reprisev1.Welcome{
		SessionId: a.attached.Session.ID(), ResumeKey: a.attached.Key, Attach: a.attached.Attach,
		Outcome: at.outcome, Heartbeat: durationpb.New(m.opts.Heartbeat), Window: uint32(a.window),
		Rooms: uint32(len(a.places) + len(at.absent)), RoomsChanged: uint32(changed), EventsToReplay: at.replay,
		ResumeHint: durationpb.New(spread), Limits: m.opts.Limits,
	}
}
