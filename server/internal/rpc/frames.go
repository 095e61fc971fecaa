package rpc

import (
	"context"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/name"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// carryOut carries out a client frame that is not the first, and calls reply
// exactly once, now or later: with a Receipt, a Fault, or nil if there is
// nothing to say. Publishes are answered later, in the order of the log; so
// one stream can have many in flight.
func (s *Service) carryOut(ctx context.Context, c caller, f *reprisev1.ClientFrame, reply func(*reprisev1.ServerFrame)) {
	id := f.GetRequestId()
	finish := func(r *reprisev1.Receipt, err error) {
		switch {
		case err != nil:
			reply(s.fail(ctx, err).fault(id))
		case id == "":
			reply(nil)
		default:
			r.RequestId = id
			reply(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Receipt{Receipt: r}})
		}
	}
	if err := checkFrame(f); err != nil {
		if name.CheckRequest(id) != nil {
			id = "" // not to be echoed
		}
		finish(nil, err)
		return
	}
	switch w := f.GetFrame().(type) {
	case *reprisev1.ClientFrame_SendMessage:
		s.sendMessage(ctx, c, w.SendMessage, "send_message.", func(m *reprisev1.SendMessageResponse, err error) {
			finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_SendMessage{SendMessage: m}}, err)
		})
	case *reprisev1.ClientFrame_SendCustom:
		s.sendCustom(ctx, c, w.SendCustom, "send_custom.", func(m *reprisev1.SendCustomResponse, err error) {
			finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_SendCustom{SendCustom: m}}, err)
		})
	case *reprisev1.ClientFrame_Ack:
		m, err := s.ack(c, w.Ack, "ack.")
		finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_Ack{Ack: m}}, err)
	case *reprisev1.ClientFrame_CreateRoom:
		m, err := s.createRoom(ctx, c, w.CreateRoom, "create_room.")
		finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_CreateRoom{CreateRoom: m}}, err)
	case *reprisev1.ClientFrame_JoinRoom:
		m, err := s.joinRoom(ctx, c, w.JoinRoom, "join_room.")
		finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_JoinRoom{JoinRoom: m}}, err)
	case *reprisev1.ClientFrame_InviteMember:
		m, err := s.inviteMember(ctx, c, w.InviteMember, "invite_member.")
		finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_InviteMember{InviteMember: m}}, err)
	case *reprisev1.ClientFrame_LeaveRoom:
		m, err := s.leaveRoom(ctx, c, w.LeaveRoom, "leave_room.")
		finish(&reprisev1.Receipt{Result: &reprisev1.Receipt_LeaveRoom{LeaveRoom: m}}, err)
	case *reprisev1.ClientFrame_Bye:
		s.bye(ctx, c, w.Bye, reply, finish)
	default:
		var v violations
		v.add("frame", "must be set to a frame that this server knows")
		finish(nil, v.err())
	}
}

func (s *Service) bye(ctx context.Context, c caller, b *reprisev1.Bye, reply func(*reprisev1.ServerFrame), finish func(*reprisev1.Receipt, error)) {
	// First, so that the end of the session does not end the stream with an
	// error.
	c.attachment.Bye()
	if b.GetEndSession() {
		sess, _ := c.attachment.Session()
		if err := s.sessions.End(ctx, c.user, sess.ID()); err != nil {
			finish(nil, err)
			return
		}
	}
	reply(nil)
}

// checkFrame refuses what no frame after the first may be.
func checkFrame(f *reprisev1.ClientFrame) error {
	var v violations
	v.check("request_id", name.CheckRequest(f.GetRequestId()))
	if err := v.err(); err != nil {
		return err
	}
	switch f.GetFrame().(type) {
	case *reprisev1.ClientFrame_Open, *reprisev1.ClientFrame_Resume:
		return &refusal{
			reason:  reason.SecondOpen,
			message: "this stream is attached already: open and resume may only be the first frame",
		}
	}
	return nil
}
