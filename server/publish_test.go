package server_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

func (n *node) once(user, room, clientID, text string) (*reprisev1.SendMessageResponse, error) {
	return n.SendMessage(as(n.t, user), &reprisev1.SendMessageRequest{Room: room, ClientId: clientID, Text: text})
}

// A retry makes no second event: at once, on another connection, on a stream,
// after a restart.
func TestP4_RetryIsOneEvent(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	n.join("bob", "lobby")
	first, err := n.once("alice", "lobby", "c1", "hello")
	if err != nil || first.GetDuplicate() {
		t.Fatal(first, err)
	}
	again := func(how string) {
		t.Helper()
		out, err := n.once("alice", "lobby", "c1", "hello")
		if err != nil || !out.GetDuplicate() || out.GetOffset() != first.GetOffset() ||
			out.GetIncarnation() != first.GetIncarnation() || !out.GetTime().AsTime().Equal(first.GetTime().AsTime()) {
			t.Fatalf("%s: %v, %v; the first answer was %v", how, out, err, first)
		}
	}
	again("at once")
	s := n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
	s.send(&reprisev1.ClientFrame{RequestId: "r1", Frame: &reprisev1.ClientFrame_SendMessage{
		SendMessage: &reprisev1.SendMessageRequest{Room: "lobby", ClientId: "c1", Text: "hello"},
	}})
	r := s.until("the Receipt", func(f *frame) bool { return f.GetReceipt() != nil }).GetReceipt()
	if m := r.GetSendMessage(); r.GetRequestId() != "r1" || !m.GetDuplicate() || m.GetOffset() != first.GetOffset() {
		t.Fatalf("on a stream: %v", r)
	}
	n.restart()
	again("after a restart")
	// Another user's and another room's ids are their own.
	n.join("alice", "other")
	for _, c := range []struct{ user, room string }{{"bob", "lobby"}, {"alice", "other"}} {
		if out, err := n.once(c.user, c.room, "c1", "hello"); err != nil || out.GetDuplicate() {
			t.Errorf("%v: %v, %v", c, out, err)
		}
	}
	if events := n.log("alice", "lobby"); len(events) != 5 {
		t.Errorf("%d events, want 5", len(events))
	}
}

// Of many publishes with one id at once, one makes the event and all are told
// its offset.
func TestP4_ConcurrentRetriesAreOneEvent(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	for round := range 5 {
		var wg sync.WaitGroup
		answers := make(chan *reprisev1.SendMessageResponse, 64)
		for range cap(answers) {
			wg.Go(func() {
				out, err := n.once("alice", "lobby", fmt.Sprint("c", round), "hello")
				if err != nil {
					t.Error(err)
				}
				answers <- out
			})
		}
		wg.Wait()
		close(answers)
		fresh, offsets := 0, make(map[uint64]bool)
		for a := range answers {
			offsets[a.GetOffset()] = true
			if !a.GetDuplicate() {
				fresh++
			}
		}
		if fresh != 1 || len(offsets) != 1 {
			t.Errorf("%d events were made, at %v", fresh, offsets)
		}
	}
	if events := n.log("alice", "lobby"); len(events) != 7 {
		t.Errorf("%d events, want 7", len(events))
	}
}

// A publish whose caller gave up is found by the retry, in whatever state the
// first attempt was.
func TestP4_RetryAfterGivingUp(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	for i := range 100 {
		id := fmt.Sprint("c", i)
		ctx, cancel := context.WithTimeout(as(t, "alice"), time.Duration(i*30)*time.Microsecond)
		first, err := n.SendMessage(ctx, &reprisev1.SendMessageRequest{Room: "lobby", ClientId: id, Text: id})
		cancel()
		out, retryErr := n.once("alice", "lobby", id, id)
		if retryErr != nil {
			t.Fatal(retryErr)
		}
		if err == nil && (out.GetOffset() != first.GetOffset() || !out.GetDuplicate()) {
			t.Fatalf("first %v, then %v", first, out)
		}
	}
	seen := make(map[string]bool)
	for _, e := range n.log("alice", "lobby")[2:] {
		if seen[e.GetClientId()] {
			t.Errorf("%s is there twice", e.GetClientId())
		}
		seen[e.GetClientId()] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d events", len(seen))
	}
}

// The same id with another body is refused, and changes nothing.
func TestP4_ReusedIDIsRefused(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	if _, err := n.once("alice", "lobby", "c1", "hello"); err != nil {
		t.Fatal(err)
	}
	_, err := n.once("alice", "lobby", "c1", "hello!")
	refused(t, err, codes.AlreadyExists, "CLIENT_ID_REUSED")
	_, err = n.SendCustom(as(t, "alice"), &reprisev1.SendCustomRequest{Room: "lobby", ClientId: "c1", Type: "x", Data: "hello"})
	refused(t, err, codes.AlreadyExists, "CLIENT_ID_REUSED")
	if head := n.room("alice", "lobby").GetHead(); head != 3 {
		t.Errorf("head %d", head)
	}
}

// A retry of what succeeded is never told that it failed: neither by the rate
// nor by permission.
func TestP4_DuplicateBeforeRateAndPermission(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.UserPublishes = 2 })
	n.join("alice", "lobby")
	first, err := n.once("alice", "lobby", "c1", "hello")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil; i++ {
		if _, err = n.once("alice", "lobby", "", "more"); i > 10_000 {
			t.Fatal("there is no limit")
		}
	}
	refused(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	out, err := n.once("alice", "lobby", "c1", "hello")
	if err != nil || !out.GetDuplicate() || out.GetOffset() != first.GetOffset() {
		t.Errorf("when limited: %v, %v", out, err)
	}
	for { // her leaving is an event too, and waits for the rate
		_, err := n.LeaveRoom(as(t, "alice"), &reprisev1.LeaveRoomRequest{Room: "lobby"})
		if err == nil {
			break
		}
		refused(t, err, codes.ResourceExhausted, "RATE_LIMITED")
		time.Sleep(retryOf(err))
	}
	out, err = n.once("alice", "lobby", "c1", "hello")
	if err != nil || !out.GetDuplicate() || out.GetOffset() != first.GetOffset() {
		t.Errorf("when no longer a member: %v, %v", out, err)
	}
	_, err = n.once("alice", "lobby", "c2", "hello")
	refused(t, err, codes.NotFound, "ROOM_NOT_FOUND")
}

// An id is kept as long as its event.
func TestP4_IDIsFreeAfterRetention(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.TrimEvery = 10 * time.Millisecond })
	if _, err := n.CreateRoom(as(t, "alice"), &reprisev1.CreateRoomRequest{Room: "lobby", Retention: &reprisev1.Retention{MaxEvents: 5}}); err != nil {
		t.Fatal(err)
	}
	first, err := n.once("alice", "lobby", "c1", "hello")
	if err != nil {
		t.Fatal(err)
	}
	n.say("alice", "lobby", names("m", 4)...)
	if out, err := n.once("alice", "lobby", "c1", "hello"); err != nil || out.GetOffset() != first.GetOffset() {
		t.Fatalf("within retention: %v, %v", out, err)
	}
	n.say("alice", "lobby", "one more")
	n.trimmedTo("alice", "lobby", first.GetOffset()+1)
	out, err := n.once("alice", "lobby", "c1", "hello")
	if err != nil || out.GetDuplicate() || out.GetOffset() != 9 {
		t.Errorf("after retention: %v, %v", out, err)
	}
}

// trimmedTo waits until retention has removed what is before oldest.
func (n *node) trimmedTo(user, room string, oldest uint64) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); n.room(user, room).GetOldest() < oldest; {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s was not trimmed to %d", room, oldest)
		}
		time.Sleep(time.Millisecond)
	}
}

// A retry of what succeeded is told so although its session has ended since;
// something new is not published for it. Nobody else learns anything.
func TestP4_RetryAfterTheSessionEnded(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	n.join("bob", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{}).caughtUp()
	message := &reprisev1.SendMessageRequest{Via: s.via(), Room: "lobby", ClientId: "m", Text: "hello"}
	custom := &reprisev1.SendCustomRequest{Via: s.via(), Room: "lobby", ClientId: "c", Type: "x", Data: "hello"}
	first, err := n.SendMessage(as(t, "alice"), message)
	if err != nil {
		t.Fatal(err)
	}
	other, err := n.SendCustom(as(t, "alice"), custom)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.EndSession(as(t, "alice"), &reprisev1.EndSessionRequest{SessionId: s.welcome.GetSessionId()}); err != nil {
		t.Fatal(err)
	}
	refused(t, s.end(), codes.NotFound, "SESSION_NOT_FOUND")
	for range 2 {
		if out, err := n.SendMessage(as(t, "alice"), message); err != nil || !out.GetDuplicate() || out.GetOffset() != first.GetOffset() {
			t.Errorf("SendMessage again: %v, %v", out, err)
		}
		if out, err := n.SendCustom(as(t, "alice"), custom); err != nil || !out.GetDuplicate() || out.GetOffset() != other.GetOffset() {
			t.Errorf("SendCustom again: %v, %v", out, err)
		}
		n.leave("alice", "lobby") // does not matter either
		n.join("alice", "lobby")
		n.restart()
	}
	head := n.room("alice", "lobby").GetHead()
	message.Text = "something else"
	_, err = n.SendMessage(as(t, "alice"), message)
	refused(t, err, codes.AlreadyExists, "CLIENT_ID_REUSED")
	message.ClientId = "new"
	_, err = n.SendMessage(as(t, "alice"), message)
	refused(t, err, codes.NotFound, "SESSION_NOT_FOUND")
	message.ClientId, message.Text = "m", "hello"
	_, err = n.SendMessage(as(t, "bob"), message) // another user's session, and key
	refused(t, err, codes.NotFound, "SESSION_NOT_FOUND")
	if got := n.room("alice", "lobby").GetHead(); got != head {
		t.Errorf("%d events were published", got-head)
	}
}
