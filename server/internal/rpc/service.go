package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Options configure a Service. All limits must be set.
type Options struct {
	// Verifier says whose token a caller has.
	Verifier auth.Verifier
	// Open says which services need no token, beside health; nil: none.
	Open func(service string) bool
	// MaxMessage bounds the text or data of an event, in bytes.
	MaxMessage int
	// MaxFrame bounds a client frame or request, in bytes.
	MaxFrame int
	// MaxRooms bounds the rooms of a user.
	MaxRooms int
	// MaxTails bounds the Tails that a user has open.
	MaxTails int
	// DirectAdd has whom a member invites become a member at once.
	DirectAdd bool
	// FirstFrame is how long a Connect stream may take to send its first frame.
	FirstFrame time.Duration
	// Publishes and changes of memberships by user and by room, and attaches of the node.
	PublishByUser, PublishByRoom *limit.ByKey
	// MakeByUser is for the rooms that a user makes.
	MakeByUser *limit.ByKey
	Attaches   *limit.Gate
	// Logger for what is the server's fault.
	Logger *slog.Logger
}

// Service is the ChatService.
type Service struct {
	reprisev1.UnimplementedChatServiceServer

	// Static.
	store    store.Store
	rooms    *room.Hub
	sessions *session.Registry
	attaches *attach.Manager
	opts     Options

	// What requests may hold while they are read, and decoded until they are
	// carried out.
	reading, decoding budget
	plans             *plans
	// diskTrouble is logged once a second: every request may find it.
	diskTrouble rate.Sometimes
	penalty     *penalty
	// strangers are the streams that need no token.
	strangers *limit.Tally
	tails     *limit.Tally // by user
	// members are the rooms of users; given, open invitations by giver and
	// invited user.
	members, given *limit.Counts
}

// New returns the service over the core.
func New(s store.Store, rooms *room.Hub, sessions *session.Registry, attaches *attach.Manager, o Options) *Service {
	return &Service{
		store: s, rooms: rooms, sessions: sessions, attaches: attaches, opts: o,
		reading:   newBudget("bytes of requests on their way", o.MaxFrame),
		decoding:  newBudget("bytes of requests in progress", o.MaxFrame),
		plans:     newPlans(o.maxPositions()),
		penalty:   newPenalty(),
		strangers: limit.NewTally(maxStrangers, maxStrangersPerAddress),
		tails:     limit.NewTally(-1, o.MaxTails),
		members:   limit.NewCounts(o.MaxRooms),
		given:     limit.NewCounts(room.MaxGiven),

		diskTrouble: rate.Sometimes{First: 1, Interval: time.Second},
	}
}

// Register registers the service behind the guard.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	reprisev1.RegisterChatServiceServer(s.Guard(r), s)
}

// isOpen says whether a service needs no token.
func (s *Service) isOpen(service string) bool {
	return service == healthpb.Health_ServiceDesc.ServiceName || s.opts.Open != nil && s.opts.Open(service)
}

// caller is who asks, and for which attachment.
type caller struct {
	user string
	// attachment is nil if the caller speaks for none, or for a session that
	// is not attached here now.
	attachment *attach.Attachment
	// fence refuses what an attachment that was taken over asks; nil without
	// one.
	fence func() error
}

// fenced refuses a caller that was taken over.
func (c caller) fenced() error {
	if c.fence == nil {
		return nil
	}
	return c.fence()
}

// callerOf returns who makes a unary call. Call release when it is over.
func (s *Service) callerOf(ctx context.Context, via *reprisev1.Via) (c caller, release func(), err error) {
	c = caller{user: auth.FromContext(ctx).User}
	if via == nil {
		return c, func() {}, nil
	}
	sess, release, err := s.sessions.Acquire(ctx, c.user, via.GetSessionId())
	if err != nil {
		return caller{}, nil, err
	}
	c.fence = sess.Fence(via.GetAttach())
	if h, err := sess.Holder(via.GetAttach()); err == nil {
		c.attachment, _ = h.(*attach.Attachment)
		c.attachment.Touch()
	}
	return c, release, nil
}

// streamCaller returns who sends frames on an attached stream.
func streamCaller(ctx context.Context, a *attach.Attachment) caller {
	sess, n := a.Session()
	return caller{user: auth.FromContext(ctx).User, attachment: a, fence: sess.Fence(n)}
}

// in calls do with a room.
func (s *Service) in(ctx context.Context, name string, do func(*room.Room) error) error {
	r, err := s.rooms.Acquire(ctx, name)
	if err != nil {
		return err
	}
	defer r.Release()
	return do(r)
}

// publish validates nothing: it publishes an event and calls done once, with
// the answer; see room.Room.Publish.
func (s *Service) publish(ctx context.Context, c caller, name, clientID string, e *reprisev1.Event, done func(room.Receipt, error)) {
	r, err := s.rooms.Acquire(ctx, name)
	if err != nil {
		done(room.Receipt{}, err)
		return
	}
	e.Time, e.Sender, e.ClientId = timestamppb.New(s.rooms.Now()), c.user, clientID
	admit := func() error { return s.admit(c.user, name, 1) }
	r.Publish(ctx, room.Publish{Event: e, Admit: admit, Fence: c.fence}, func(rec room.Receipt, err error) {
		r.Release()
		done(rec, err)
	})
}

// admit refuses events beyond the rates of their user and of their room. Every
// call that writes into a room's log asks here.
func (s *Service) admit(user, room string, events int) error {
	if err := s.opts.PublishByUser.AllowN(user, events); err != nil {
		return err
	}
	return s.opts.PublishByRoom.AllowN(room, events)
}

// checks are those of a change that the caller makes in a room.
func (s *Service) checks(c caller, name string) room.Checks {
	return room.Checks{
		Fence: c.fence,
		Make:  func() error { return s.opts.MakeByUser.Allow(c.user) },
		Admit: func(events int) error { return s.admit(c.user, name, events) },
	}
}

// bound is checks of a change of the caller's own membership, which counts its
// rooms. Close the count when the call is over.
func (s *Service) bound(ctx context.Context, c caller, name string) (room.Checks, *limit.Count, error) {
	rooms, err := s.roomsOf(ctx, c.user)
	if err != nil {
		return room.Checks{}, nil, err
	}
	checks := s.checks(c, name)
	checks.Ends = rooms.Drop
	checks.Bound = func() (func(error), error) {
		settle, ok := rooms.Take()
		if !ok {
			return nil, &refusal{
				reason:  reason.TooManyRooms,
				message: fmt.Sprintf("you are a member of %d rooms; at most %d are allowed: leave one (LeaveRoom)", rooms.N(), s.opts.MaxRooms),
			}
		}
		return settle, nil
	}
	return checks, rooms, nil
}

// roomsOf returns the count of a user's rooms. Every change of a membership
// that the service makes is counted there.
func (s *Service) roomsOf(ctx context.Context, user string) (*limit.Count, error) {
	return s.members.Open(ctx, user, func(ctx context.Context) (int, error) { return s.store.CountRooms(ctx, user) })
}

// givenBy returns the count of a user's open invitations by another. While it is
// open it does not fall when one is used or goes with its room: one who invites
// the same user many times at once may be refused for those.
func (s *Service) givenBy(ctx context.Context, by, user string) (*limit.Count, error) {
	return s.given.Open(ctx, by+"\x00"+user, func(ctx context.Context) (int, error) {
		return s.store.CountInvitations(ctx, user, by)
	})
}

// fail turns an error of the core into what the client sees, and logs what is
// the server's fault.
func (s *Service) fail(ctx context.Context, err error) *refusal {
	r := refuse(err)
	s.refused(ctx, r)
	switch {
	case r.cause == nil:
	case r.reason == reason.Internal:
		s.opts.Logger.ErrorContext(ctx, "request failed", "user", auth.FromContext(ctx).User, "error", r.cause)
	case !errors.Is(r.cause, store.ErrConflict): // those are said where they are found
		s.diskTrouble.Do(func() {
			s.opts.Logger.ErrorContext(ctx, "a request failed because the disk could not be read; its client is told to try again",
				"user", auth.FromContext(ctx).User, "error", r.cause)
		})
	}
	return r
}

// refused says at debug level what was refused, to whom and why, but nothing of
// what the request contained. Calls with a token that is nobody's have no user.
func (s *Service) refused(ctx context.Context, r *refusal) {
	if !s.opts.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	method, _ := grpc.Method(ctx)
	s.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "refused", slog.String("method", method),
		slog.String("user", auth.FromContext(ctx).User), slog.String("peer", addressOf(ctx)),
		slog.String("reason", r.reason.Name()), slog.String("why", r.message))
}
