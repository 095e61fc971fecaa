package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// This file has the one function for each request that exists both as a client
// frame and as a unary call. prefix is the frame's field, for error messages.

func (s *Service) sendMessage(ctx context.Context, c caller, r *reprisev1.SendMessageRequest, prefix string, done func(*reprisev1.SendMessageResponse, error)) {
	if err := checkMessage(r, prefix, s.opts.MaxMessage); err != nil {
		done(nil, err)
		return
	}
	e := &reprisev1.Event{Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: r.GetText()}}}
	s.publish(ctx, c, r.GetRoom(), r.GetClientId(), e, func(rec room.Receipt, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(&reprisev1.SendMessageResponse{
			Room: r.GetRoom(), Incarnation: rec.Incarnation, Offset: rec.Offset,
			Time: timestamppb.New(rec.Time), Duplicate: rec.Duplicate,
		}, nil)
	})
}

func (s *Service) sendCustom(ctx context.Context, c caller, r *reprisev1.SendCustomRequest, prefix string, done func(*reprisev1.SendCustomResponse, error)) {
	if err := checkCustom(r, prefix, s.opts.MaxMessage); err != nil {
		done(nil, err)
		return
	}
	e := &reprisev1.Event{Body: &reprisev1.Event_Custom{Custom: &reprisev1.Custom{Type: r.GetType(), Data: r.GetData()}}}
	s.publish(ctx, c, r.GetRoom(), r.GetClientId(), e, func(rec room.Receipt, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(&reprisev1.SendCustomResponse{
			Room: r.GetRoom(), Incarnation: rec.Incarnation, Offset: rec.Offset,
			Time: timestamppb.New(rec.Time), Duplicate: rec.Duplicate,
		}, nil)
	})
}

func (s *Service) ack(c caller, r *reprisev1.AckRequest, prefix string) (*reprisev1.AckResponse, error) {
	if err := checkAck(r, prefix); err != nil {
		return nil, err
	}
	if err := c.fenced(); err != nil {
		return nil, err
	}
	if c.attachment == nil {
		return nil, session.ErrNotAttached
	}
	ps := make([]attach.Acked, len(r.GetPositions()))
	for i, p := range r.GetPositions() {
		ps[i] = attach.Acked{Room: p.GetRoom(), Incarnation: p.GetIncarnation(), Offset: p.GetOffset()}
	}
	err := c.attachment.Acknowledge(ps)
	var beyond *attach.BeyondSentError
	if errors.As(err, &beyond) {
		return nil, &refusal{
			reason: reason.AckBeyondSent,
			message: fmt.Sprintf("%spositions[%d] is beyond what was sent on this attachment, up to offset %d of incarnation %q: acknowledge only what you received",
				prefix, beyond.Index, beyond.Sent, beyond.Incarnation),
		}
	}
	if err != nil {
		return nil, err
	}
	return &reprisev1.AckResponse{}, nil
}

func (s *Service) createRoom(ctx context.Context, c caller, r *reprisev1.CreateRoomRequest, prefix string) (*reprisev1.CreateRoomResponse, error) {
	if err := checkCreate(r, prefix); err != nil {
		return nil, err
	}
	checks, rooms, err := s.bound(ctx, c, r.GetRoom())
	if err != nil {
		return nil, err
	}
	defer rooms.Close()
	keep := r.GetRetention()
	meta := store.Meta{
		Name: r.GetRoom(), Title: r.GetTitle(), Creator: c.user, Created: s.rooms.Now(),
		Private: r.GetAccess() == reprisev1.RoomAccess_ROOM_ACCESS_PRIVATE,
		Retention: store.Retention{
			MaxAge: keep.GetMaxAge().AsDuration(), MaxEvents: keep.GetMaxEvents(), MaxBytes: keep.GetMaxBytes(),
		},
	}
	guests, release, err := s.guests(ctx, c.user, r.GetMembers()...)
	defer release()
	if err != nil {
		return nil, err
	}
	var out *reprisev1.CreateRoomResponse
	err = s.in(ctx, r.GetRoom(), func(rm *room.Room) error {
		if _, err := rm.Create(ctx, meta, guests, checks); err != nil {
			return err
		}
		info, err := rm.Info()
		out = &reprisev1.CreateRoomResponse{Room: attach.RoomProto(info)}
		return err
	})
	return out, err
}

func (s *Service) joinRoom(ctx context.Context, c caller, r *reprisev1.JoinRoomRequest, prefix string) (*reprisev1.JoinRoomResponse, error) {
	if err := checkJoin(r, prefix, c.fence != nil); err != nil {
		return nil, err
	}
	checks, rooms, err := s.bound(ctx, c, r.GetRoom())
	if err != nil {
		return nil, err
	}
	defer rooms.Close()
	forget := func() {}
	if c.attachment != nil && r.GetHistory() > 0 {
		forget = c.attachment.WantHistory(r.GetRoom(), r.GetHistory())
	}
	var out *reprisev1.JoinRoomResponse
	err = s.in(ctx, r.GetRoom(), func(rm *room.Room) error {
		change, err := rm.Join(ctx, c.user, checks)
		if err != nil {
			return err
		}
		info, err := rm.Info()
		out = &reprisev1.JoinRoomResponse{
			Room: attach.RoomProto(info), Already: change.Already,
			Member: &reprisev1.Member{User: c.user, Joined: change.Offset},
		}
		return err
	})
	if err != nil || out.GetAlready() {
		forget() // no join event will come to take it
	}
	return out, err
}

func (s *Service) inviteMember(ctx context.Context, c caller, r *reprisev1.InviteMemberRequest, prefix string) (*reprisev1.InviteMemberResponse, error) {
	if err := checkInvite(r, prefix); err != nil {
		return nil, err
	}
	guests, release, err := s.guests(ctx, c.user, r.GetUser())
	defer release()
	if err != nil {
		return nil, err
	}
	var out *reprisev1.InviteMemberResponse
	err = s.in(ctx, r.GetRoom(), func(rm *room.Room) error {
		i, err := rm.Invite(ctx, c.user, guests[0], s.checks(c, r.GetRoom()))
		out = &reprisev1.InviteMemberResponse{Offset: i.Offset, Incarnation: i.Incarnation, Already: i.Already, Joined: i.Joined}
		return err
	})
	return out, err
}

// guests returns the users whom another one invites. Call release when the call
// is over.
func (s *Service) guests(ctx context.Context, by string, users ...string) (guests []room.Guest, release func(), err error) {
	var open []*limit.Count
	release = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for _, user := range users {
		g := room.Guest{User: user, Direct: s.opts.DirectAdd}
		if g.Given, err = s.givenBy(ctx, by, user); err != nil {
			return nil, release, err
		}
		open = append(open, g.Given)
		if g.Direct {
			if g.Rooms, err = s.roomsOf(ctx, user); err != nil {
				return nil, release, err
			}
			open = append(open, g.Rooms)
		}
		guests = append(guests, g)
	}
	return guests, release, nil
}

func (s *Service) leaveRoom(ctx context.Context, c caller, r *reprisev1.LeaveRoomRequest, prefix string) (*reprisev1.LeaveRoomResponse, error) {
	if err := checkLeave(r, prefix); err != nil {
		return nil, err
	}
	checks, rooms, err := s.bound(ctx, c, r.GetRoom())
	if err != nil {
		return nil, err
	}
	defer rooms.Close()
	var out *reprisev1.LeaveRoomResponse
	err = s.in(ctx, r.GetRoom(), func(rm *room.Room) error {
		change, err := rm.Leave(ctx, c.user, checks)
		out = &reprisev1.LeaveRoomResponse{Offset: change.Offset, Incarnation: change.Incarnation}
		return err
	})
	return out, err
}

func sessionProto(rec store.Session, attached bool) *reprisev1.Session {
	return &reprisev1.Session{
		Id: rec.ID, CreateTime: timestamppb.New(rec.Created), AttachTime: timestamppb.New(rec.Attached),
		Attach: rec.Attach, Attached: attached,
	}
}
