package reprise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Rooms of the Config are joined with their history before anything is sent to them,
// whatever happens to the streams meanwhile, and once.
func TestRunJoinsItsRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Rooms, cfg.History = []string{"a", "b"}, 20
		c := f.client(cfg)
		var joins []string
		f.joinRoom = func(_ context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
			joins = append(joins, fmt.Sprintf("%s/%d/%d", r.GetRoom(), r.GetVia().GetAttach(), r.GetHistory()))
			switch len(joins) {
			case 1:
				return nil, unavailable
			case 3:
				f.cut()
				return nil, unavailable
			}
			return &reprisev1.JoinRoomResponse{Room: &reprisev1.Room{Name: r.GetRoom()}}, nil
		}
		p := send(t.Context(), c, "hello") // waits for Run to join the room
		synctest.Wait()
		r := start(t, c, &recorder{})
		f.welcome(1)
		time.Sleep(time.Second)
		s := f.welcome(2)
		s.send(caughtUp("", "", 0))
		frame := s.recv()
		want(t, "joins", strings.Join(joins, " "), "a/1/20 b/1/20 a/1/20 a/2/20")
		s.send(sent(frame.GetRequestId(), 1))
		p.ok(t, 1)
		f.cut()
		s = f.welcome(3)
		s.serveBye()
		time.Sleep(time.Minute)
		if len(joins) != 4 {
			t.Errorf("joins again: %v", joins)
		}
		r.stop()
	})
}

// Each stream lives for one join: what was joined stays joined, also for who
// leaves it meanwhile, and in the end all are.
func TestRunJoinsOverAFlappingLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Rooms = []string{"a", "b", "c"}
		c := f.client(cfg)
		var mu sync.Mutex
		var joins []string
		f.joinRoom = func(_ context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			if len(joins) > 0 && int(r.GetVia().GetAttach()) <= len(joins) { // one for each stream
				f.cut()
				return nil, unavailable
			}
			joins = append(joins, r.GetRoom())
			return &reprisev1.JoinRoomResponse{Room: &reprisev1.Room{Name: r.GetRoom()}}, nil
		}
		r := start(t, c, &recorder{})
		for attach := range 2 {
			f.welcome(uint64(attach + 1))
		}
		f.welcome(3).serveBye()
		time.Sleep(5 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		want(t, "joined", strings.Join(slices.Sorted(slices.Values(joins)), " "), "a b c")
		r.stop()
	})
}

// One room of the Config that cannot be had just now keeps nobody from the
// others, and is joined when it can be.
func TestRunJoinsWhatItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Rooms = []string{"bad", "good"}
		c := f.client(cfg)
		var broken atomic.Bool
		broken.Store(true)
		f.joinRoom = func(_ context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
			if broken.Load() && r.GetRoom() == "bad" {
				return nil, refused(codes.Unavailable, "ROOM_UNAVAILABLE", time.Second)
			}
			return &reprisev1.JoinRoomResponse{Room: &reprisev1.Room{Name: r.GetRoom()}}, nil
		}
		r := start(t, c, &recorder{})
		s := f.welcome(1)
		other := sendTo(t.Context(), c, "elsewhere", "hello") // a room that Run does not join
		s.send(sent(s.recv().GetRequestId(), 1))
		other.ok(t, 1)
		good := sendTo(t.Context(), c, "good", "hello")
		s.send(sent(s.recv().GetRequestId(), 1))
		good.ok(t, 1)
		bad := sendTo(t.Context(), c, "bad", "hello")
		time.Sleep(5 * time.Second)
		broken.Store(false)
		s.send(sent(s.recv().GetRequestId(), 1))
		bad.ok(t, 1)
		s.serveBye()
		r.stop()
	})
}

// A room that cannot be joined is not kept from the program.
func TestRunEndsWhenARoomCannotBeJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Rooms = []string{"secret"}
		f.joinRoom = func(context.Context, *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
			return nil, refused(codes.AlreadyExists, "ROOM_EXISTS", 0)
		}
		r := start(t, f.client(cfg), &recorder{})
		f.welcome(1).serveBye()
		if err := r.wait(); !errors.Is(err, ErrRoomExists) || !strings.Contains(err.Error(), "secret") {
			t.Errorf("Run: %v", err)
		}
	})
}

// Without Run too, each address is tried, until there is an answer that counts.
func TestRoomCallsAreRetriedAtEachAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "two")
		c := f.client(f.config("one", "two"))
		asked := 0
		// answer fails the first time as a network does, and then answers.
		answer := func(err error) error {
			if asked++; asked%2 == 1 {
				return refused(codes.PermissionDenied, "", 0) // a proxy's
			}
			return err
		}
		f.joinRoom = func(_ context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
			return &reprisev1.JoinRoomResponse{Room: &reprisev1.Room{Name: r.GetRoom()}}, answer(nil)
		}
		f.leaveRoom = func(context.Context, *reprisev1.LeaveRoomRequest) (*reprisev1.LeaveRoomResponse, error) {
			return nil, answer(refused(codes.NotFound, "ROOM_NOT_FOUND", 0))
		}
		f.createRoom = func(context.Context, *reprisev1.CreateRoomRequest) (*reprisev1.CreateRoomResponse, error) {
			return nil, answer(refused(codes.AlreadyExists, "ROOM_EXISTS", 0))
		}
		if room, err := c.Join(t.Context(), "a", 0); err != nil || room.GetName() != "a" || asked != 2 {
			t.Errorf("Join: %v, %v, asked %d times", room, err, asked)
		}
		if err := c.Leave(t.Context(), "a"); err != nil || asked != 4 { // the first attempt has done it
			t.Errorf("Leave: %v, asked %d times", err, asked)
		}
		var unknown *UnknownOutcomeError
		if _, err := c.Create(t.Context(), "a", CreateOptions{}); !errors.As(err, &unknown) || !errors.Is(err, ErrRoomExists) || asked != 6 {
			t.Errorf("Create: %v, asked %d times", err, asked)
		}
		asked = 1 // answered at once, so there is no doubt
		if err := c.Leave(t.Context(), "a"); !errors.Is(err, ErrRoomNotFound) {
			t.Errorf("Leave: %v", err)
		}
		f.stop("two")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var e *Error
		if _, err := c.Join(ctx, "a", 0); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Code != codes.Unavailable {
			t.Errorf("Join without a server: %v", err)
		}
	})
}

// Positions that are too many for one request are named in several, and none of
// them is left out.
func TestPositionsAreNamedInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		store := NewMemoryStore()
		session := &SessionKey{ID: "s_1", ResumeKey: "rk_0", Checkpoint: "cp_1"}
		u := Update{Session: session}
		for i := range 2500 {
			u.Places = append(u.Places, Place{Position: Position{Room: fmt.Sprint("room-", i), Incarnation: "i1", Offset: 7}, Moved: i > 0})
		}
		if err := store.Save(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		cfg := f.config("one")
		cfg.Positions = store
		c := f.client(cfg)
		r := start(t, c, &recorder{})
		all := map[string]bool{}
		for i := range 3 {
			s := f.accept()
			resume := s.first.GetResume()
			want(t, "key", resume.GetResumeKey(), fmt.Sprint("rk_", i))
			if n := len(resume.GetPositions()); n > 1000 || resume.GetCheckpoint() != "" {
				t.Errorf("%d positions, checkpoint %q", n, resume.GetCheckpoint())
			}
			for _, p := range resume.GetPositions() {
				if all[p.GetRoom()] {
					t.Errorf("%s is named twice", p.GetRoom())
				}
				all[p.GetRoom()] = true
			}
			s.welcome(uint64(i+1), func(w *reprisev1.Welcome) {
				if i == 2 {
					w.Limits = &reprisev1.Limits{ResumePositions: 5000, ResumeBytes: 2 << 20}
				}
			})
			if i == 2 {
				s.serveBye()
			}
		}
		if len(all) != 2500 {
			t.Errorf("%d of 2500 positions are named", len(all))
		}
		synctest.Wait()
		f.cut()
		s := f.accept() // the limits are known now
		if n := len(s.first.GetResume().GetPositions()); n != 2500 {
			t.Errorf("%d positions to a server that takes 5000", n)
		}
		s.welcome(4)
		s.serveBye()
		synctest.Wait()
		r.stop()
	})
}

// An invitation is retried until there is an answer; those that are open come
// in pages.
func TestInvitations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		asked := 0
		f.invite = func(_ context.Context, r *reprisev1.InviteMemberRequest) (*reprisev1.InviteMemberResponse, error) {
			if asked++; asked == 1 {
				return nil, refused(codes.Unavailable, "", 0)
			}
			return &reprisev1.InviteMemberResponse{Joined: r.GetRoom() == "den" && r.GetUser() == "花子"}, nil
		}
		if joined, err := c.Invite(t.Context(), "den", "花子"); !joined || err != nil || asked != 2 {
			t.Errorf("Invite: %t, %v, asked %d times", joined, err, asked)
		}
		for _, bad := range [][2]string{{"", "bob"}, {"den", ""}, {"den", "a b"}} {
			if _, err := c.Invite(t.Context(), bad[0], bad[1]); err == nil || asked != 2 {
				t.Errorf("Invite %q: %v, asked %d times", bad, err, asked)
			}
		}
		var got []string
		for i, err := range c.ListInvitations(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, i.GetRoom()+" by "+i.GetBy())
		}
		if want := []string{"a by bob", "b by eve"}; !slices.Equal(got, want) {
			t.Errorf("invitations %q, want %q", got, want)
		}
	})
}

// The end of a room that the server tells once more, since the stream was lost
// before it knew that it had told it, is no second end.
func TestRoomClosedIsHandledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		h := &fullRecorder{}
		r := start(t, f.client(f.config("one")), h)
		s := f.welcome(1, func(w *reprisev1.Welcome) { w.Rooms = 1 })
		s.send(roomState("b", "i1", 6), caughtUp("", "", 0), roomClosed("b"))
		want(t, "handled", h.take(), "room:b6 caughtup: closed:b/LEFT/bob7")
		f.cut()
		s = f.welcome(2)
		s.send(roomClosed("b"), caughtUp("", "", 0), roomState("b", "i1", 8), roomClosed("b"))
		want(t, "handled", h.take(), "caughtup: room:b8 closed:b/LEFT/bob7")
		s.serveBye()
		r.stop()
	})
}
