package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/name"
	"github.com/reprise-chat/reprise/server/internal/reason"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
)

// Open implements ChatService.
func (s *Service) Open(r *reprisev1.OpenRequest, out grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	a, err := s.open(out.Context(), out, r, "")
	carriedOut(out.Context())
	return s.serve(out.Context(), a, err)
}

// Resume implements ChatService.
func (s *Service) Resume(r *reprisev1.ResumeRequest, out grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	a, err := s.resume(out.Context(), out, r, "")
	carriedOut(out.Context())
	return s.serve(out.Context(), a, err)
}

// Tail implements ChatService.
func (s *Service) Tail(r *reprisev1.TailRequest, out grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	if err := checkTail(r); err != nil {
		return err
	}
	user := auth.FromContext(out.Context()).User
	if !s.tails.Take(user) {
		return &refusal{
			reason:  reason.TooManyTails,
			message: fmt.Sprintf("you have %d tails open, as many as are allowed: end one", s.opts.MaxTails),
		}
	}
	defer s.tails.Give(user)
	a, err := s.attaches.Tail(out.Context(), stream{out}, attach.Tail{
		User: user, Room: r.GetRoom(),
		From: room.Position{Offset: r.GetAfter(), Incarnation: r.GetIncarnation()},
		Last: uint64(r.GetLast()), Limit: r.GetLimit(), Follow: r.GetFollow(),
	})
	return s.serve(out.Context(), a, err)
}

// Connect implements ChatService. The handler reads; what ends the stream ends
// it from outside, which ends a blocked Recv.
func (s *Service) Connect(in grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
	ctx := in.Context()
	end, err := ender(ctx)
	if err != nil {
		return s.fail(ctx, err)
	}
	late := func() error { return firstFrameRefusal(fmt.Sprintf("no frame came within %v", s.opts.FirstFrame)) }
	timeout := time.AfterFunc(s.opts.FirstFrame, func() { end(late()) })
	first, err := in.Recv()
	if !timeout.Stop() {
		return late()
	}
	a, err := s.attachFirst(ctx, in, first, err)
	if err != nil {
		return s.fail(ctx, err)
	}
	defer a.Close()
	a.WhenDone(func(err error) { end(s.outcome(ctx, err)) })
	return s.receive(in, a)
}

// receive carries out the frames of a Connect stream until it is over. That the
// client has closed its side is not goodbye.
func (s *Service) receive(in grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame], a *attach.Attachment) error {
	ctx := in.Context()
	c := streamCaller(ctx, a)
	for {
		f, err := in.Recv()
		var bad *badFrameError
		switch {
		case errors.Is(err, io.EOF):
			return s.wait(ctx, a)
		case errors.As(err, &bad):
			if a.Begin() != nil {
				return s.wait(ctx, a)
			}
			a.Reply(bad.fault(bad.requestID))
			continue
		case err != nil: // a stream that has gone deaf must not look alive
			return s.outcome(ctx, err)
		}
		if a.Begin() != nil {
			return s.wait(ctx, a)
		}
		s.carryOut(ctx, c, f, a.Reply)
		if a.Leaving() { // after Bye nothing is taken
			return s.wait(ctx, a)
		}
	}
}

func firstFrameRefusal(what string) *refusal {
	return &refusal{
		reason:  reason.FirstFrame,
		message: what + "; the first frame must be open or resume",
	}
}

// attachFirst carries out the first frame of a Connect stream.
func (s *Service) attachFirst(ctx context.Context, in grpc.ServerStream, f *reprisev1.ClientFrame, err error) (*attach.Attachment, error) {
	if errors.Is(err, io.EOF) {
		return nil, firstFrameRefusal("the stream was closed before any frame")
	}
	if err != nil {
		return nil, err
	}
	if err := checkFirst(f); err != nil {
		return nil, err
	}
	switch w := f.GetFrame().(type) {
	case *reprisev1.ClientFrame_Open:
		return s.open(ctx, in, w.Open, "open.")
	case *reprisev1.ClientFrame_Resume:
		return s.resume(ctx, in, w.Resume, "resume.")
	default:
		return nil, firstFrameRefusal("the first frame was another one")
	}
}

// checkFirst checks what is the frame's own of a first frame.
func checkFirst(f *reprisev1.ClientFrame) error {
	var v violations
	v.check("request_id", name.CheckRequest(f.GetRequestId()))
	return v.err()
}

func (s *Service) open(ctx context.Context, out grpc.ServerStream, r *reprisev1.OpenRequest, prefix string) (*attach.Attachment, error) {
	if err := checkOpen(r, prefix); err != nil {
		return nil, err
	}
	if err := s.enter(ctx, "i "+r.GetInstanceId()); err != nil {
		return nil, err
	}
	return s.attaches.Open(ctx, stream{out}, attach.Open{
		User: auth.FromContext(ctx).User, Instance: r.GetInstanceId(),
		History: uint64(r.GetHistory()), Focus: r.GetFocus(), Window: r.GetWindow(), Ephemeral: r.GetEphemeral(),
	})
}

func (s *Service) resume(ctx context.Context, out grpc.ServerStream, r *reprisev1.ResumeRequest, prefix string) (*attach.Attachment, error) {
	if err := checkResume(r, prefix, s.opts.maxPositions()); err != nil {
		return nil, err
	}
	if err := checkKey(ctx, r, prefix); err != nil {
		return nil, err
	}
	client := "s " + r.GetSessionId()
	if r.GetSessionId() == "" { // positions, from which a session is built
		client = "i " + r.GetInstanceId()
	}
	if err := s.enter(ctx, client); err != nil {
		return nil, err
	}
	positions := make(map[string]room.Position, len(r.GetPositions()))
	for _, p := range r.GetPositions() {
		pos := room.Position{Incarnation: p.GetIncarnation(), Offset: p.GetOffset()}
		for _, e := range p.GetEarlier() {
			pos.Earlier = append(pos.Earlier, room.Held{Incarnation: e.GetIncarnation(), Offset: e.GetOffset()})
		}
		positions[p.GetRoom()] = pos
	}
	return s.attaches.Resume(ctx, stream{out}, attach.Resume{
		User: auth.FromContext(ctx).User, Instance: r.GetInstanceId(),
		SessionID: r.GetSessionId(), Key: r.GetResumeKey(), Takeover: takeover(r.GetTakeover()),
		Positions: positions, Checkpoint: r.GetCheckpoint(),
		Focus: r.GetFocus(), Window: r.GetWindow(), ReplayLimit: uint64(r.GetReplayLimit()),
	})
}

// checkKey refuses a resume key that is none, or another user's: before the
// gate, because it is cheap.
func checkKey(ctx context.Context, r *reprisev1.ResumeRequest, prefix string) error {
	if r.GetSessionId() == "" && r.GetResumeKey() == "" {
		return nil
	}
	err := session.CheckKey(r.GetResumeKey(), auth.FromContext(ctx).User)
	if errors.Is(err, session.ErrKeyMalformed) {
		v := violations{prefix: prefix}
		v.add("resume_key", `is not one that the server gave out: those begin with "rk_"`)
		return v.err()
	}
	return err
}

// enter has a client of the caller wait for its turn to attach, or refuses it
// with a slot.
func (s *Service) enter(ctx context.Context, client string) error {
	if err := s.attaches.Accepts(); err != nil {
		return err
	}
	address := addressOf(ctx)
	if client == "i " { // a person at a terminal
		client += address
	}
	return s.opts.Attaches.Enter(ctx, limit.Caller{User: auth.FromContext(ctx).User, Address: address, Client: client})
}

func takeover(t reprisev1.Takeover) session.Takeover {
	switch t {
	case reprisev1.Takeover_TAKEOVER_TAKE_OVER:
		return session.TakeOver
	case reprisev1.Takeover_TAKEOVER_REFUSE:
		return session.Refuse
	default:
		return session.Fork
	}
}

// serve waits until the stream is to end and gives the attachment back. Others
// send on the stream; returning from the handler ends a send that is stuck.
func (s *Service) serve(ctx context.Context, a *attach.Attachment, err error) error {
	if err != nil {
		return s.fail(ctx, err)
	}
	defer a.Close()
	return s.wait(ctx, a)
}

// wait waits until the stream is to end.
func (s *Service) wait(ctx context.Context, a *attach.Attachment) error {
	select {
	case <-a.Done():
		return s.outcome(ctx, a.Err())
	case <-ctx.Done():
		return s.outcome(ctx, ctx.Err())
	}
}

// outcome turns how a stream ended into what the client is told.
func (s *Service) outcome(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return s.fail(ctx, err)
}
