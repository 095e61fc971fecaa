package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/name"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
)

// Open implements ChatService.
func (s *Service) Open(r *reprisev1.OpenRequest, out grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	if err := s.checkDecoded(r); err != nil {
		return err
	}
	a, err := s.open(out.Context(), out, r, "")
	return s.serve(out.Context(), a, nil, err)
}

// Resume implements ChatService.
func (s *Service) Resume(r *reprisev1.ResumeRequest, out grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	if err := s.checkDecoded(r); err != nil {
		return err
	}
	a, err := s.resume(out.Context(), out, r, "")
	return s.serve(out.Context(), a, nil, err)
}

// Tail implements ChatService.
func (s *Service) Tail(r *reprisev1.TailRequest, out grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	if err := s.checkDecoded(r); err != nil {
		return err
	}
	if err := checkTail(r); err != nil {
		return err
	}
	a, err := s.attaches.Tail(out.Context(), stream{out}, attach.Tail{
		User: auth.FromContext(out.Context()).User, Room: r.GetRoom(),
		From: room.Position{Offset: r.GetAfter(), Incarnation: r.GetIncarnation()},
		Last: uint64(r.GetLast()), Limit: r.GetLimit(), Follow: r.GetFollow(),
	})
	return s.serve(out.Context(), a, nil, err)
}

// Connect implements ChatService.
//
// The handler waits for the stream to end while another goroutine reads: a
// blocked Recv ends only when the handler has returned.
func (s *Service) Connect(in grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
	ctx := in.Context()
	r := reader{
		first: make(chan firstFrame, 1), attached: make(chan *attach.Attachment, 1), failed: make(chan error, 1),
	}
	s.receivers.Go(func() { s.receive(in, r) })

	timeout := time.NewTimer(s.opts.FirstFrame)
	defer timeout.Stop()
	var a *attach.Attachment
	var err error
	select {
	case f := <-r.first:
		a, err = s.attachFirst(ctx, in, f)
	case <-timeout.C:
		err = firstFrameRefusal(fmt.Sprintf("no frame came within %v", s.opts.FirstFrame))
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		r.attached <- a
	}
	return s.serve(ctx, a, r.failed, err)
}

// reader is what the handler of a Connect stream and the goroutine that reads
// it tell each other. Each channel takes what is said without waiting.
type reader struct {
	first    chan firstFrame
	attached chan *attach.Attachment
	failed   chan error // nothing more can be read, and that is not the client's wish
}

type firstFrame struct {
	frame *reprisev1.ClientFrame
	err   error
}

// receive reads a Connect stream until the client has closed its side, which
// is not goodbye, or the stream is over.
func (s *Service) receive(in grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame], r reader) {
	var err error
	defer func() {
		if err != nil && !errors.Is(err, io.EOF) {
			r.failed <- err
		}
	}()
	defer s.recovered(in.Context(), reprisev1.ChatService_Connect_FullMethodName, &err)

	f, err := in.Recv()
	r.first <- firstFrame{f, err}
	if err != nil {
		return
	}
	var a *attach.Attachment
	select {
	case a = <-r.attached:
	case <-in.Context().Done():
		return
	}
	c := streamCaller(in.Context(), a)
	for {
		if f, err = in.Recv(); err != nil {
			return
		}
		if a.Begin() != nil {
			return
		}
		s.carryOut(in.Context(), c, f, a.Reply)
	}
}

func firstFrameRefusal(what string) *refusal {
	return &refusal{
		code: codes.FailedPrecondition, reason: "FIRST_FRAME",
		message: what + "; the first frame must be open or resume",
	}
}

// attachFirst carries out the first frame of a Connect stream.
func (s *Service) attachFirst(ctx context.Context, in grpc.ServerStream, f firstFrame) (*attach.Attachment, error) {
	if errors.Is(f.err, io.EOF) {
		return nil, firstFrameRefusal("the stream was closed before any frame")
	}
	if f.err != nil {
		return nil, f.err
	}
	if err := s.checkDecoded(f.frame); err != nil {
		return nil, err
	}
	var v violations
	v.check("request_id", name.CheckRequest(f.frame.GetRequestId()))
	if err := v.err(); err != nil {
		return nil, err
	}
	switch w := f.frame.GetFrame().(type) {
	case *reprisev1.ClientFrame_Open:
		return s.open(ctx, in, w.Open, "open.")
	case *reprisev1.ClientFrame_Resume:
		return s.resume(ctx, in, w.Resume, "resume.")
	default:
		return nil, firstFrameRefusal("the first frame was another one")
	}
}

func (s *Service) open(ctx context.Context, out grpc.ServerStream, r *reprisev1.OpenRequest, prefix string) (*attach.Attachment, error) {
	if err := checkOpen(r, prefix); err != nil {
		return nil, err
	}
	if err := s.opts.Attaches.Enter(ctx); err != nil {
		return nil, err
	}
	return s.attaches.Open(ctx, stream{out}, attach.Open{
		User: auth.FromContext(ctx).User, Instance: r.GetInstanceId(),
		History: uint64(r.GetHistory()), Focus: r.GetFocus(), Window: r.GetWindow(),
	})
}

func (s *Service) resume(ctx context.Context, out grpc.ServerStream, r *reprisev1.ResumeRequest, prefix string) (*attach.Attachment, error) {
	if err := checkResume(r, prefix); err != nil {
		return nil, err
	}
	if err := s.opts.Attaches.Enter(ctx); err != nil {
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
	a, err := s.attaches.Resume(ctx, stream{out}, attach.Resume{
		User: auth.FromContext(ctx).User, Instance: r.GetInstanceId(),
		SessionID: r.GetSessionId(), Key: r.GetResumeKey(), Takeover: takeover(r.GetTakeover()),
		Positions: positions, Checkpoint: r.GetCheckpoint(),
		Focus: r.GetFocus(), Window: r.GetWindow(), ReplayLimit: uint64(r.GetReplayLimit()),
	})
	if errors.Is(err, session.ErrKeyMalformed) {
		v := violations{prefix: prefix}
		v.add("resume_key", `is not one that the server gave out: those begin with "rk_"`)
		return nil, v.err()
	}
	return a, err
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
// failed, which may be nil, says that the client's frames cannot be read any
// more: a stream that has gone deaf must not look alive.
func (s *Service) serve(ctx context.Context, a *attach.Attachment, failed <-chan error, err error) error {
	if err != nil {
		return s.fail(ctx, err)
	}
	defer a.Close()
	select {
	case <-a.Done():
		err = a.Err()
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	if code := status.Code(err); code == codes.Canceled || ctx.Err() != nil {
		return status.FromContextError(context.Cause(ctx)).Err()
	}
	return s.fail(ctx, err)
}
