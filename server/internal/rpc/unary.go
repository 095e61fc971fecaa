package rpc

import (
	"context"
	"errors"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
)

// published is a publish's answer on its way to the unary call that waits.
type published[T any] struct {
	response T
	err      error
}

// await makes a unary call of a request that is answered later.
func await[T any](ctx context.Context, start func(done func(T, error))) (T, error) {
	answer := make(chan published[T], 1)
	start(func(response T, err error) { answer <- published[T]{response, err} })
	select {
	case a := <-answer:
		return a.response, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// unary runs a request that may speak for an attachment.
func unary[T any](ctx context.Context, s *Service, via *reprisev1.Via, do func(caller) (T, error)) (T, error) {
	var none T
	var v violations
	v.via(via)
	if err := v.err(); err != nil {
		return none, err
	}
	c, release, err := s.callerOf(ctx, via)
	if err != nil {
		return none, s.fail(ctx, err)
	}
	defer release()
	out, err := do(c)
	if err != nil {
		return none, s.fail(ctx, err)
	}
	return out, nil
}

// publishing is unary for a publish: that its session is gone is looked at last,
// like everything that may refuse it, so that a retry of what succeeded is never
// told that it failed (P4).
func publishing[T any](ctx context.Context, s *Service, via *reprisev1.Via, start func(caller, func(T, error))) (T, error) {
	return unary(ctx, s, nil, func(c caller) (T, error) {
		var none T
		var v violations
		if v.via(via); v.err() != nil {
			return none, v.err()
		}
		spoken, release, err := s.callerOf(ctx, via)
		switch {
		case errors.Is(err, session.ErrNotFound) && !fault.Broken(fault.SessionFirst):
			c.fence = func() error { return err }
		case err != nil:
			return none, err
		default:
			defer release()
			c = spoken
		}
		return await(ctx, func(done func(T, error)) { start(c, done) })
	})
}

// SendMessage implements ChatService.
func (s *Service) SendMessage(ctx context.Context, r *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error) {
	return publishing(ctx, s, r.GetVia(), func(c caller, done func(*reprisev1.SendMessageResponse, error)) {
		s.sendMessage(ctx, c, r, "", done)
	})
}

// SendCustom implements ChatService.
func (s *Service) SendCustom(ctx context.Context, r *reprisev1.SendCustomRequest) (*reprisev1.SendCustomResponse, error) {
	return publishing(ctx, s, r.GetVia(), func(c caller, done func(*reprisev1.SendCustomResponse, error)) {
		s.sendCustom(ctx, c, r, "", done)
	})
}

// Ack implements ChatService.
func (s *Service) Ack(ctx context.Context, r *reprisev1.AckRequest) (*reprisev1.AckResponse, error) {
	if r.GetVia() == nil {
		var v violations
		v.add("via", "must be set: it says which attachment received the events (session_id is in the Welcome)")
		return nil, v.err()
	}
	return unary(ctx, s, r.GetVia(), func(c caller) (*reprisev1.AckResponse, error) { return s.ack(c, r, "") })
}

// CreateRoom implements ChatService.
func (s *Service) CreateRoom(ctx context.Context, r *reprisev1.CreateRoomRequest) (*reprisev1.CreateRoomResponse, error) {
	return unary(ctx, s, r.GetVia(), func(c caller) (*reprisev1.CreateRoomResponse, error) { return s.createRoom(ctx, c, r, "") })
}

// JoinRoom implements ChatService.
func (s *Service) JoinRoom(ctx context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
	return unary(ctx, s, r.GetVia(), func(c caller) (*reprisev1.JoinRoomResponse, error) { return s.joinRoom(ctx, c, r, "") })
}

// InviteMember implements ChatService.
func (s *Service) InviteMember(ctx context.Context, r *reprisev1.InviteMemberRequest) (*reprisev1.InviteMemberResponse, error) {
	return unary(ctx, s, r.GetVia(), func(c caller) (*reprisev1.InviteMemberResponse, error) { return s.inviteMember(ctx, c, r, "") })
}

// LeaveRoom implements ChatService.
func (s *Service) LeaveRoom(ctx context.Context, r *reprisev1.LeaveRoomRequest) (*reprisev1.LeaveRoomResponse, error) {
	return unary(ctx, s, r.GetVia(), func(c caller) (*reprisev1.LeaveRoomResponse, error) { return s.leaveRoom(ctx, c, r, "") })
}

// ListSessions implements ChatService.
func (s *Service) ListSessions(ctx context.Context, _ *reprisev1.ListSessionsRequest) (*reprisev1.ListSessionsResponse, error) {
	return unary(ctx, s, nil, func(c caller) (*reprisev1.ListSessionsResponse, error) {
		recs, attached, err := s.sessions.List(ctx, c.user)
		if err != nil {
			return nil, err
		}
		out := new(reprisev1.ListSessionsResponse)
		for i, rec := range recs {
			out.Sessions = append(out.Sessions, sessionProto(rec, attached[i]))
		}
		return out, nil
	})
}

// EndSession implements ChatService.
func (s *Service) EndSession(ctx context.Context, r *reprisev1.EndSessionRequest) (*reprisev1.EndSessionResponse, error) {
	return unary(ctx, s, nil, func(c caller) (*reprisev1.EndSessionResponse, error) {
		var v violations
		v.id("session_id", r.GetSessionId(), "s_")
		if err := v.err(); err != nil {
			return nil, err
		}
		return &reprisev1.EndSessionResponse{}, s.sessions.End(ctx, c.user, r.GetSessionId())
	})
}

// inMembers calls do with a room that the caller is a member of.
func (s *Service) inMembers(ctx context.Context, name string, do func(*room.Room) error) error {
	return s.in(ctx, name, func(r *room.Room) error {
		if err := r.Entitled(ctx, auth.FromContext(ctx).User); err != nil {
			return err
		}
		return do(r)
	})
}
