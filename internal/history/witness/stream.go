package witness

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/internal/history"
)

// Observe is a [grpc.StreamClientInterceptor] that writes down what each
// Connect stream brings, as a client of its own: an attach, where its rooms
// start, and everything until it ends.
func (c *Client) Observe(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := next(ctx, d, cc, method, opts...)
	if err != nil || method != reprisev1.ChatService_Connect_FullMethodName {
		return s, err
	}
	return &stream{ClientStream: s, c: c, p: fmt.Sprintf("%s~%d", c.name, c.streams.Add(1)), placed: make(map[string]bool)}, nil
}

type stream struct {
	grpc.ClientStream
	c *Client
	p string

	// Of the sender.
	asked sync.Once

	// Of the receiver.
	welcomed bool
	placed   map[string]bool // rooms whose start this window of the trace has
	window   uint64          // that placed is of
}

func (s *stream) add(r history.Record) {
	r.P = s.p
	s.c.trace.Add(r)
}

// SendMsg implements [grpc.ClientStream]. The first frame asks for the attach.
func (s *stream) SendMsg(m any) error {
	s.asked.Do(func() { s.add(history.Record{K: history.Attach, Ph: history.Call}) })
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements [grpc.ClientStream].
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if f, ok := m.(*reprisev1.ServerFrame); ok && err == nil {
		s.see(f)
	} else if err != nil && !s.welcomed {
		s.add(history.Record{K: history.Attach, Ph: history.Unknown})
		s.welcomed = true // once
	}
	return err
}

func (s *stream) see(f *reprisev1.ServerFrame) {
	switch f := f.GetFrame().(type) {
	case *reprisev1.ServerFrame_Welcome:
		s.welcomed = true
		w := f.Welcome
		s.add(history.Record{K: history.Attach, Ph: history.OK, Session: w.GetSessionId(), Attach: w.GetAttach()})
		if w.GetOutcome() != reprisev1.Outcome_OUTCOME_NEW {
			s.c.counts.Resumes.Add(1)
		}
	case *reprisev1.ServerFrame_RoomState:
		at := f.RoomState.GetPosition()
		s.start(at.GetRoom(), at.GetIncarnation(), at.GetOffset())
	case *reprisev1.ServerFrame_Events:
		for _, e := range f.Events.GetEvents() {
			r := Describe(f.Events.GetRoom(), f.Events.GetIncarnation(), e)
			s.follow(r.Room, r.Inc, r.After)
			r.K = history.Deliver
			s.add(r)
		}
	case *reprisev1.ServerFrame_Gap:
		g := f.Gap
		s.follow(g.GetRoom(), g.GetIncarnation(), g.GetFirst()-1)
		s.add(history.Record{K: history.Gap, Room: g.GetRoom(), First: g.GetFirst(), Off: g.GetLast(), Inc: g.GetIncarnation()})
	case *reprisev1.ServerFrame_Rewind:
		w := f.Rewind
		s.follow(w.GetRoom(), w.GetIncarnation(), w.GetTo())
		s.add(history.Record{K: history.Rewind, Room: w.GetRoom(), Off: w.GetTo(), Inc: w.GetIncarnation()})
	case *reprisev1.ServerFrame_RoomClosed:
		s.add(history.Record{K: history.Closed, Room: f.RoomClosed.GetRoom(), Off: f.RoomClosed.GetOffset()})
	case *reprisev1.ServerFrame_RoomUnavailable:
		s.add(history.Record{K: history.Unavailable, Room: f.RoomUnavailable.GetRoom()})
	case *reprisev1.ServerFrame_CaughtUp:
		up := f.CaughtUp
		s.add(history.Record{K: history.CaughtUp, Room: up.GetRoom(), Off: up.GetOffset(), Inc: up.GetIncarnation()})
	}
}

// start: delivery of a room starts at a position.
func (s *stream) start(room, inc string, off uint64) {
	if w := s.c.window.Load(); w != s.window {
		s.window = w
		clear(s.placed)
	}
	s.placed[room] = true
	s.add(history.Record{K: history.Place, Room: room, Off: off, Inc: inc})
}

// follow: something of a room comes that was not said to start anywhere: the
// room was verified unchanged, or the trace's window began after its start. The
// handler, which knows what it holds, has the first event checked.
func (s *stream) follow(room, inc string, off uint64) {
	if s.window != s.c.window.Load() || !s.placed[room] {
		s.start(room, inc, off)
	}
}
