package server_test

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// answer has a Connect client answer every Heartbeat, in the background, until
// its stream ends; the channel then has the error.
func (s *stream) answer() <-chan error {
	over := make(chan error, 1)
	go func() {
		for {
			f, err := s.recv()
			if err != nil {
				over <- err
				return
			}
			if f.GetHeartbeat() != nil {
				_ = s.client.SendMsg(&reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{}}})
			}
		}
	}()
	return over
}

func (s *stream) resumeAs(instance string, policy reprisev1.Takeover) *reprisev1.ResumeRequest {
	r := s.again()
	r.InstanceId, r.Takeover = instance, policy
	return r
}

// The same instance takes over silently: the old stream sends the receipts that
// are due, then Moved, and ends with OK. The client publishes all the time.
func TestP5_SameInstanceMoves(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	now := n.connect("alice", &reprisev1.OpenRequest{InstanceId: "tab1"}).caughtUp()
	published := 0
	for round := range uint64(8) {
		old := now
		var sender sync.WaitGroup
		sender.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d", round, i)
				if old.client.SendMsg(&reprisev1.ClientFrame{RequestId: id, Frame: &reprisev1.ClientFrame_SendMessage{
					SendMessage: &reprisev1.SendMessageRequest{Room: "lobby", ClientId: id, Text: "hello"},
				}}) != nil {
					return
				}
			}
		})
		receipts := 0
		for receipts < 50 {
			if old.next().GetReceipt() != nil {
				receipts++
			}
		}
		now = n.connect("alice", old.resumeAs("tab1", reprisev1.Takeover_TAKEOVER_REFUSE)).greeted()
		if w := now.welcome; w.GetAttach() != round+2 || w.GetSessionId() != old.welcome.GetSessionId() {
			t.Fatalf("Welcome %v", w)
		}
		moved := uint64(0)
		for {
			f, err := old.recv()
			if err != nil {
				if err != io.EOF {
					t.Errorf("the old stream ended with %v, want OK", err)
				}
				break
			}
			switch {
			case moved > 0:
				t.Errorf("after Moved came %v", f.ServerFrame)
			case f.GetReceipt() != nil:
				receipts++
			case f.GetFault() != nil && f.GetFault().GetReason() != "FENCED":
				t.Errorf("Fault %v", f.GetFault())
			case f.GetMoved() != nil:
				moved = f.GetMoved().GetAttach()
			}
		}
		sender.Wait()
		if moved != round+2 {
			t.Errorf("Moved %d, want %d", moved, round+2)
		}
		published += receipts
		if events := int(n.room("alice", "lobby").GetHead()) - 2; events != published {
			t.Fatalf("%d events, %d receipts", events, published)
		}
		now.caughtUp()
	}
}

// Another instance takes over one that is silent.
func TestP5_SilentHolderIsFenced(t *testing.T) {
	t.Parallel() // it waits most of its time
	n := serve(t)
	old := n.connect("alice", &reprisev1.OpenRequest{InstanceId: "tab1"}).caughtUp()
	for i, policy := range []reprisev1.Takeover{reprisev1.Takeover_TAKEOVER_FORK, reprisev1.Takeover_TAKEOVER_REFUSE} {
		began := time.Now()
		now := n.connect("alice", old.resumeAs(fmt.Sprint("other", i), policy)).caughtUp()
		if now.welcome.GetSessionId() != old.welcome.GetSessionId() || now.welcome.GetAttach() != uint64(i+2) {
			t.Fatalf("%v: Welcome %v", policy, now.welcome)
		}
		if d := time.Since(began); d < 1500*time.Millisecond {
			t.Errorf("%v: the holder had only %v to answer", policy, d)
		}
		fenced := old.until("Fenced", func(f *frame) bool { return f.GetFenced() != nil }).GetFenced()
		if fenced.GetAttach() != now.welcome.GetAttach() {
			t.Errorf("Fenced %v", fenced)
		}
		refused(t, old.end(), codes.FailedPrecondition, "FENCED")
		old = now
	}
}

// A holder that answers is left alone by default, fenced or protected on
// request; an empty instance id takes over.
func TestP5_LiveHolder(t *testing.T) {
	t.Parallel() // it waits most of its time
	n := serve(t)
	n.join("alice", "lobby")
	old := n.connect("alice", &reprisev1.OpenRequest{InstanceId: "tab1"}).caughtUp()
	ask := func(instance string, policy reprisev1.Takeover) *reprisev1.ResumeRequest {
		r := old.resumeAs(instance, policy)
		r.Positions = nil
		return r
	}
	request := ask("tab2", reprisev1.Takeover_TAKEOVER_UNSPECIFIED)
	over := old.answer()

	fork := n.connect("alice", request).caughtUp()
	if w := fork.welcome; w.GetOutcome() != reprisev1.Outcome_OUTCOME_FORKED || w.GetSessionId() == old.welcome.GetSessionId() || w.GetAttach() != 1 {
		t.Errorf("default: Welcome %v", w)
	}
	refusal := n.connect("alice", ask("tab2", reprisev1.Takeover_TAKEOVER_REFUSE))
	refused(t, refusal.end(), codes.FailedPrecondition, "SESSION_HELD")
	select {
	case err := <-over:
		t.Fatalf("the holder's stream ended: %v", err)
	default:
	}
	taken := n.connect("alice", ask("tab2", reprisev1.Takeover_TAKEOVER_TAKE_OVER)).caughtUp()
	if w := taken.welcome; w.GetSessionId() != old.welcome.GetSessionId() || w.GetAttach() != 2 {
		t.Errorf("TAKE_OVER: Welcome %v", w)
	}
	refused(t, <-over, codes.FailedPrecondition, "FENCED")

	over = taken.answer()
	old = taken
	byHand := n.resume("alice", ask("", reprisev1.Takeover_TAKEOVER_UNSPECIFIED)).caughtUp()
	if w := byHand.welcome; w.GetSessionId() != old.welcome.GetSessionId() || w.GetAttach() != 3 {
		t.Errorf("empty instance: Welcome %v", w)
	}
	refused(t, <-over, codes.FailedPrecondition, "FENCED")
}

// Once the newer attachment is welcomed, nothing from the older one is
// accepted: no frame, no call.
func TestP5_NothingAfterTheWelcome(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	n.join("bob", "lobby")
	old := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	n.say("bob", "lobby", "one")
	old.reach("lobby", 4)
	now := n.connect("alice", old.keyOnly()).greeted()
	via := old.via()
	ctx := as(t, "alice")
	_, err := n.SendMessage(ctx, &reprisev1.SendMessageRequest{Via: via, Room: "lobby", Text: "old"})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	_, err = n.SendCustom(ctx, &reprisev1.SendCustomRequest{Via: via, Room: "lobby", Type: "x"})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	_, err = n.Ack(ctx, &reprisev1.AckRequest{Via: via, Positions: []*reprisev1.Position{old.position("lobby")}})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	_, err = n.Ack(ctx, &reprisev1.AckRequest{Via: via})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	_, err = n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Via: via, Room: "new"})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	_, err = n.CreateRoom(ctx, &reprisev1.CreateRoomRequest{Via: via, Room: "new"})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	_, err = n.LeaveRoom(ctx, &reprisev1.LeaveRoomRequest{Via: via, Room: "lobby"})
	refused(t, err, codes.FailedPrecondition, "FENCED")
	for i, f := range []*reprisev1.ClientFrame{
		{Frame: &reprisev1.ClientFrame_SendMessage{SendMessage: &reprisev1.SendMessageRequest{Room: "lobby", Text: "old"}}},
		{Frame: &reprisev1.ClientFrame_LeaveRoom{LeaveRoom: &reprisev1.LeaveRoomRequest{Room: "lobby"}}},
		{Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{Positions: []*reprisev1.Position{old.position("lobby")}}}},
	} {
		f.RequestId = fmt.Sprint("r", i)
		_ = old.client.SendMsg(f) // the stream may have ended already
	}
	for {
		f, err := old.recv()
		if err != nil {
			refused(t, err, codes.FailedPrecondition, "FENCED")
			break
		}
		if f.GetReceipt() != nil {
			t.Errorf("the old stream was listened to: %v", f.ServerFrame)
		}
	}
	// The current one is listened to, with its number, with 0 and on its stream.
	for _, v := range []*reprisev1.Via{now.via(), {SessionId: via.GetSessionId()}} {
		if _, err := n.SendMessage(ctx, &reprisev1.SendMessageRequest{Via: v, Room: "lobby", Text: "new"}); err != nil {
			t.Errorf("via %v: %v", v, err)
		}
	}
	now.reach("lobby", 6)
	if got := now.rooms["lobby"].texts; len(got) != 3 || got[2] != "new" {
		t.Errorf("the room has %q", got)
	}
	// Not even the acknowledgement of the old stream counted.
	now.hangUp()
	if back := n.resume("alice", now.keyOnly()).caughtUp(); back.rooms["lobby"].offsets[0] != 4 {
		t.Errorf("resumed at %v", back.rooms["lobby"].offsets)
	}
}

// However many resume one session at once, their attach numbers differ, and
// exactly the highest one holds it.
func TestP5_RacingResumes(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	first := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	streams := make([]*stream, 16)
	for i := range streams {
		streams[i] = n.connect("alice", first.again())
	}
	var wg sync.WaitGroup
	for _, s := range streams {
		wg.Go(func() {
			if _, err := s.recv(); err != nil {
				t.Errorf("no Welcome: %v", err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	numbers := make(map[uint64]bool)
	var holder *stream
	for _, s := range streams {
		w := s.welcome
		if w.GetSessionId() != first.welcome.GetSessionId() { // its key was stale by then
			t.Errorf("Welcome %v", w)
		}
		if numbers[w.GetAttach()] {
			t.Errorf("attach number %d was given twice", w.GetAttach())
		}
		numbers[w.GetAttach()] = true
		if holder == nil || w.GetAttach() > holder.welcome.GetAttach() {
			holder = s
		}
	}
	if got := holder.welcome.GetAttach(); got != uint64(len(streams)+1) {
		t.Errorf("the highest attach number is %d", got)
	}
	for _, s := range slices.Concat(streams, []*stream{first}) {
		if s == holder {
			continue
		}
		if err := s.end(); err == nil {
			t.Error("an older stream lives on")
		}
		_, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Via: s.via(), Room: "lobby", Text: "x"})
		refused(t, err, codes.FailedPrecondition, "FENCED")
	}
	holder.caughtUp()
	out, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Via: holder.via(), Room: "lobby", Text: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	holder.reach("lobby", out.GetOffset())
}

// Publishes of an old attachment that race with the takeover either are events
// with a receipt or are refused; none becomes one after the new Welcome.
func TestP5_PublishesRacingTakeover(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	for round := range 10 {
		old := s
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					text := fmt.Sprintf("old-%d-%d-%d", round, w, i)
					_, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Via: old.via(), Room: "lobby", Text: text, ClientId: text})
					if err != nil {
						if reasonOf(err) != "FENCED" {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		time.Sleep(2 * time.Millisecond) // lets them begin; nothing depends on it
		s = n.connect("alice", old.keyOnly()).greeted()
		// Everything that was accepted before the Welcome stands before this.
		mark, err := n.SendMessage(as(t, "alice"), &reprisev1.SendMessageRequest{Via: s.via(), Room: "lobby", Text: "mark"})
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if head := n.room("alice", "lobby").GetHead(); head != mark.GetOffset() {
			t.Fatalf("an old attachment published at %d, after the new one's %d", head, mark.GetOffset())
		}
	}
}
