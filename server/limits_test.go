package server_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// longest is a name of 128 bytes.
func longest(i int) string { return fmt.Sprintf("%s-%07d", strings.Repeat("x", 120), i) }

func longPosition(room string) *reprisev1.Position {
	const incarnation = 64
	p := &reprisev1.Position{Room: room, Offset: math.MaxUint64, Incarnation: strings.Repeat("i", incarnation)}
	for i := range 8 {
		p.Earlier = append(p.Earlier, &reprisev1.Stretch{Incarnation: strings.Repeat(fmt.Sprint(i), incarnation), Offset: math.MaxUint64})
	}
	return p
}

// Limits that do not fit each other are refused at the start, and not found out
// by clients.
func TestLimitsMustFit(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*server.Options)
		says   string // empty: they fit
	}{
		{"defaults", func(*server.Options) {}, ""},
		{"a message as large as a frame", func(o *server.Options) { o.Limits.MessageBytes, o.Limits.FrameBytes = 1<<20, 1<<20 }, "Limits.FrameBytes"},
		{"a larger message, and the frame derived", func(o *server.Options) { o.Limits.MessageBytes = 1 << 20 }, ""},
		{"a message that no client takes", func(o *server.Options) { o.Limits.MessageBytes = 4 << 20 }, "Limits.MessageBytes must be 1 to 2097152"},
		{"fewer streams than the SDK puts on a connection", func(o *server.Options) { o.Limits.StreamsPerConnection = 49 }, "Limits.StreamsPerConnection must be 50 to"},
		{"as many", func(o *server.Options) { o.Limits.StreamsPerConnection = 50 }, ""},
		{"a frame too small for acknowledgements", func(o *server.Options) { o.Limits.MessageBytes, o.Limits.FrameBytes = 100, 100<<10 }, "acknowledgements"},
		{"a huge frame", func(o *server.Options) { o.Limits.FrameBytes = math.MaxInt }, "Limits.FrameBytes must be"},
		{"rooms that no resume could name", func(o *server.Options) { o.Limits.RoomsPerUser = 1_000_000 }, "Limits.RoomsPerUser must be"},
		{"many rooms", func(o *server.Options) { o.Limits.RoomsPerUser = 20_000 }, ""},
		{"no rooms", func(o *server.Options) { o.Limits.RoomsPerUser = -1 }, "Limits.RoomsPerUser must be"},
		{"sessions that no list could hold", func(o *server.Options) { o.Limits.SessionsPerUser = math.MaxInt }, "Limits.SessionsPerUser must be"},
		{"a rate that is no number", func(o *server.Options) { o.Limits.Attaches = math.NaN() }, "Limits.Attaches must be"},
		{"a rate without bound", func(o *server.Options) { o.Limits.UserPublishes = math.Inf(1) }, "Limits.UserPublishes must be"},
		{"a rate whose burst is no number", func(o *server.Options) { o.Limits.RoomPublishes = math.MaxFloat64 }, "Limits.RoomPublishes must be"},
		{"a heartbeat that never rests", func(o *server.Options) { o.Heartbeat = -1 }, "Options.Heartbeat"},
		{"retention that never rests", func(o *server.Options) { o.TrimEvery = -time.Second }, "Options.TrimEvery"},
		{"retention of what is to come", func(o *server.Options) { o.Retention.MaxAge = math.MinInt64 }, "Options.Retention.MaxAge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := server.Options{Dir: t.TempDir(), DiskReserve: -1}
			c.change(&o)
			srv, err := server.New(o)
			if srv != nil {
				defer func() {
					if err := srv.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
				}()
			}
			if got := fmt.Sprint(err); (c.says == "") != (err == nil) || !strings.Contains(got, c.says) && err != nil {
				t.Errorf("New: %v; want %q", err, c.says)
			}
		})
	}
}

// What the limits allow goes through, together and at its largest: the bounds
// of what carries it follow.
func TestLimitsAllowWhatTheySay(t *testing.T) {
	for _, l := range []server.Limits{
		{},
		{MessageBytes: 2 << 20},
		{MessageBytes: 1, FrameBytes: 300 << 10, RoomsPerUser: 1},
		{RoomsPerUser: 8000},
	} {
		t.Run(fmt.Sprintf("%+v", l), func(t *testing.T) {
			l.UserPublishes, l.RoomPublishes, l.UserCreates, l.Attaches = -1, -1, -1, -1
			n := serve(t, func(o *server.Options) { o.Limits, o.NoSync = l, true })
			user := strings.Repeat("u", 128)
			n.join(user, longest(0))
			s := n.connect(user, &reprisev1.OpenRequest{}).caughtUp()
			told := s.welcome.GetLimits()
			s.send(&reprisev1.ClientFrame{RequestId: strings.Repeat("r", 64), Frame: &reprisev1.ClientFrame_SendCustom{
				SendCustom: &reprisev1.SendCustomRequest{
					Via: &reprisev1.Via{SessionId: s.welcome.GetSessionId(), Attach: math.MaxUint64}, Room: longest(0),
					ClientId: strings.Repeat("c", 64), Type: strings.Repeat("t", 64), Data: strings.Repeat("d", int(told.GetMessageBytes())),
				},
			}})
			s.reach(longest(0), 3)
			acks := make([]*reprisev1.Position, told.GetAckPositions())
			for i := range acks {
				acks[i] = longPosition(longest(i))
				acks[i].Earlier = nil
			}
			_, err := n.Ack(as(t, user), &reprisev1.AckRequest{Via: s.via(), Positions: acks})
			refused(t, err, codes.FailedPrecondition, "ACK_BEYOND_SENT") // and not for its size
			s.hangUp()

			r := s.again()
			r.Positions, r.Focus = nil, make([]string, 100)
			for i := range r.Focus {
				r.Focus[i] = longest(i)
			}
			for i := range 2 * told.GetRooms() {
				r.Positions = append(r.Positions, longPosition(longest(int(i))))
			}
			if w := n.connect(user, r).greeted().welcome; w.GetSessionId() != r.GetSessionId() {
				t.Errorf("Welcome %v", w)
			}
			r.Positions = append(make([]*reprisev1.Position, 0, told.GetResumePositions()), s.position(longest(0)))
			for i := 1; i < cap(r.Positions); i++ {
				r.Positions = append(r.Positions, &reprisev1.Position{Room: fmt.Sprint("room-", i), Incarnation: "abcdefghijklm", Offset: 1 << 40})
			}
			back := n.resume(user, r).greeted()
			if w := back.welcome; w.GetSessionId() != r.GetSessionId() || w.GetRoomsChanged() != told.GetResumePositions()-1 {
				t.Errorf("Welcome %v", w)
			}
		})
	}
}

// A client of a user with more rooms than ever resumes with all its positions.
func TestP7_ResumeOfManyRooms(t *testing.T) {
	const rooms = 2500
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser, o.NoSync = 5000, true })
	var joins sync.WaitGroup
	for worker := range 16 {
		joins.Go(func() {
			for i := worker; i < rooms; i += 16 {
				if _, err := n.JoinRoom(as(t, "alice"), &reprisev1.JoinRoomRequest{Room: longest(i)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	joins.Wait()
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	r := s.again()
	n.restart()
	n.say("alice", longest(7), "moved")
	if len(r.GetPositions()) != rooms {
		t.Fatalf("%d positions", len(r.GetPositions()))
	}
	back := n.resume("alice", r).caughtUp()
	if w := back.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT || w.GetRooms() != rooms || w.GetRoomsChanged() != 1 {
		t.Errorf("Welcome %v", w)
	}
	back.held(longest(7), 2, 3)
}
