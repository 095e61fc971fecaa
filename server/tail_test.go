package server_test

import (
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// A Tail reads what it is asked to, and then ends or follows.
func TestP12_Tail(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	n.fill("alice", "lobby", 18, 10) // up to 20
	for _, c := range []struct {
		request     *reprisev1.TailRequest
		first, last uint64
	}{
		{&reprisev1.TailRequest{}, 1, 20},
		{&reprisev1.TailRequest{After: 15}, 16, 20},
		{&reprisev1.TailRequest{After: 20}, 0, 0},
		{&reprisev1.TailRequest{Last: 5}, 16, 20},
		{&reprisev1.TailRequest{Last: 500}, 1, 20},
		{&reprisev1.TailRequest{After: 2, Last: 5}, 16, 20},
		{&reprisev1.TailRequest{After: 5, Limit: 3}, 6, 8},
		{&reprisev1.TailRequest{After: 5, Limit: 3, Follow: true}, 6, 8},
		{&reprisev1.TailRequest{Last: 5, Limit: 2}, 16, 17},
	} {
		t.Run(fmt.Sprint(c.request), func(t *testing.T) {
			c.request.Room = "lobby"
			s := n.tail("alice", c.request)
			if c.request.GetLast() > 0 {
				s.rooms["lobby"].last = 20 - min(20, uint64(c.request.GetLast()))
			}
			if err := s.end(); err != io.EOF {
				t.Errorf("ended with %v", err)
			}
			got := s.rooms["lobby"].offsets
			if c.last == 0 {
				if len(got) > 0 || !s.done {
					t.Errorf("got %v", got)
				}
				return
			}
			if uint64(len(got)) != c.last-c.first+1 || got[0] != c.first || got[len(got)-1] != c.last {
				t.Errorf("got %v, want %d to %d", got, c.first, c.last)
			}
		})
	}
	s := n.tail("alice", &reprisev1.TailRequest{Room: "lobby", After: 18, Limit: 4, Follow: true}).caughtUp()
	n.say("alice", "lobby", "21", "22", "23")
	if err := s.end(); err != io.EOF || s.rooms["lobby"].last != 22 {
		t.Errorf("ended with %v at %d", err, s.rooms["lobby"].last)
	}
	for _, room := range []string{"lobby", "nowhere"} {
		refused(t, n.tail("bob", &reprisev1.TailRequest{Room: room}).end(), codes.NotFound, "ROOM_NOT_FOUND")
	}
}
