package server_test

import (
	"fmt"
	"path/filepath"
	"testing"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// A client goes on with a server on a backup that was made while it was
// served: what both hold stays, the rest is rewound, nothing is mistaken.
func TestP2_BackupRewinds(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby", "other")
	n.fill("alice", "lobby", 8, 10) // up to 10
	n.restart()
	s := n.open("alice", &reprisev1.OpenRequest{History: 100}).caughtUp()
	n.fill("alice", "lobby", 10, 10) // up to 20
	s.reach("lobby", 20)
	saved := s.position("lobby")
	backup := filepath.Join(t.TempDir(), "backup")
	if err := n.srv.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	n.fill("alice", "lobby", 10, 10) // up to 30, which the copy does not have
	s.reach("lobby", 30)
	if r, err := server.Check(t.Context(), backup, nil); err != nil || r.Damaged() || r.Events != 22 {
		t.Fatalf("the copy: %+v, %v", r, err)
	}
	n.stop()
	n.opts.Dir = backup
	n.start()
	n.fill("alice", "lobby", 15, 10) // other events, past what the client holds

	request := s.again()
	lost := s.position("lobby")
	lost.Earlier = []*reprisev1.Stretch{{Incarnation: saved.GetIncarnation(), Offset: 20}}
	request.Positions = []*reprisev1.Position{lost, s.position("other")}
	back := n.resume("alice", request).caughtUp()
	at := back.rooms["lobby"]
	// The client's events up to 30 were written under one incarnation, of which
	// the copy has those up to 20.
	if len(at.rewinds) != 1 || at.rewinds[0].GetTo() != 20 || at.rewinds[0].GetIncarnation() != saved.GetIncarnation() {
		t.Fatalf("Rewinds %v, want one to 20", at.rewinds)
	}
	back.held("lobby", 20, 35)
	if back.rooms["other"].moved {
		t.Error("the other room moved")
	}
}

// A client that holds no more than the backup has goes on as if nothing had
// been.
func TestP8_BackupResumes(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	s := n.open("alice", &reprisev1.OpenRequest{History: 100}).caughtUp()
	n.fill("alice", "lobby", 8, 10)
	s.reach("lobby", 10)
	live, stopped := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "stopped")
	if err := n.srv.Backup(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := server.Backup(t.Context(), n.opts.Dir, stopped); err != nil {
		t.Fatal(err)
	}
	for i, dir := range []string{live, stopped} {
		n.opts.Dir = dir
		n.start()
		n.say("alice", "lobby", fmt.Sprint("on copy ", i))
		request := s.again()
		request.Positions = []*reprisev1.Position{s.position("lobby")}
		back := n.resume("alice", request).caughtUp()
		back.held("lobby", 10, 11)
		if len(back.rooms["lobby"].rewinds) > 0 {
			t.Errorf("copy %d: Rewinds %v", i, back.rooms["lobby"].rewinds)
		}
		n.stop()
	}
	n.opts.Dir = live
	n.start() // for the end of the test
}
