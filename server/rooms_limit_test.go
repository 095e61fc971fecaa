package server_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// TestMemberEventsAreEvents: whoever joins and leaves in a loop writes no more
// than one who talks, neither by user nor into a room.
func TestMemberEventsAreEvents(t *testing.T) {
	const rate = 0.001 // in bursts of twice one event
	loop := func(n *node, user string) (written int) {
		for range 10 {
			_, err := n.JoinRoom(as(t, user), &reprisev1.JoinRoomRequest{Room: "lobby"})
			if err == nil {
				written++
				_, err = n.LeaveRoom(as(t, user), &reprisev1.LeaveRoomRequest{Room: "lobby"})
			}
			if err != nil {
				refused(t, err, codes.ResourceExhausted, "RATE_LIMITED")
				if retryOf(err) <= 0 {
					t.Errorf("it does not say when to come again: %v", err)
				}
				return written
			}
			written++
		}
		return written
	}
	n := serve(t, func(o *server.Options) { o.Limits.UserPublishes = rate })
	n.join("alice", "lobby") // makes it
	for i := range 3 {
		if got := loop(n, fmt.Sprint("user", i)); got != 2 {
			t.Errorf("user %d wrote %d events, and may write 2", i, got)
		}
	}
	n = serve(t, func(o *server.Options) { o.Limits.RoomPublishes = rate })
	n.join("alice", "lobby") // two events
	for i := range 3 {
		if got := loop(n, fmt.Sprint("user", i)); got != 0 {
			t.Errorf("user %d wrote %d events into a room that takes no more", i, got)
		}
	}
	if head := n.room("alice", "lobby").GetHead(); head != 2 {
		t.Errorf("the room has %d events", head)
	}
}

// TestRoomsMadeByAUser: by creating or by joining, one user makes no more rooms
// than the limit says, and others are not concerned.
func TestRoomsMadeByAUser(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.UserCreates = 0.001 }) // bursts of ten
	made := 0
	for i := range 30 {
		name := fmt.Sprint("room", i)
		var err error
		if i%2 == 0 {
			_, err = n.CreateRoom(as(t, "mallory"), &reprisev1.CreateRoomRequest{Room: name})
		} else {
			_, err = n.JoinRoom(as(t, "mallory"), &reprisev1.JoinRoomRequest{Room: name})
		}
		if err == nil {
			made++
			n.leave("mallory", name)
			continue
		}
		refused(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	}
	if made != 10 {
		t.Errorf("%d rooms were made, and the limit is 10", made)
	}
	n.join("alice", "hers")
	n.join("mallory", "hers") // which makes none
}

// TestNamesOfNoRoomsCostNothing asks for 20,000 rooms that do not exist, in
// each way there is: the server holds what it held before.
func TestNamesOfNoRoomsCostNothing(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.RefuseCreateOnJoin = true })
	ctx := as(t, "mallory")
	ask := func(i int) {
		name := fmt.Sprint("nowhere", i)
		var err error
		switch i % 5 {
		case 0:
			_, err = n.GetRoom(ctx, &reprisev1.GetRoomRequest{Room: name})
		case 1:
			_, err = n.LeaveRoom(ctx, &reprisev1.LeaveRoomRequest{Room: name})
		case 2:
			_, err = n.SendMessage(ctx, &reprisev1.SendMessageRequest{Room: name, Text: "x", ClientId: "c"})
		case 3:
			_, err = n.ListMembers(ctx, &reprisev1.ListMembersRequest{Room: name})
		case 4:
			_, err = n.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: name})
		}
		if status.Code(err) == codes.OK {
			t.Fatal("there is no such room")
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for i := range 1000 {
		ask(i)
	}
	before := heap()
	for i := range 20_000 {
		ask(1000 + i)
	}
	if after := heap(); after > before+4<<20 {
		t.Errorf("%d KiB more are held, %d bytes a name", (after-before)>>10, (after-before)/20_000)
	}
}

// retryOf returns when an error says to come again, 0 if it does not.
func retryOf(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
