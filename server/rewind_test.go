package server_test

import (
	"os"
	"testing"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// restored is a server whose directory was copied, went on, and was put back.
// The client held saved when the copy was made and now holds lost, which the
// log has never heard of.
type restored struct {
	*node
	s           *stream
	saved, lost *reprisev1.Position
}

func restore(t *testing.T, grow int) *restored {
	t.Helper()
	n := serve(t)
	n.join("alice", "lobby", "other")
	n.fill("alice", "lobby", 8, 10) // up to 10
	n.restart()                     // a second stretch
	s := n.open("alice", &reprisev1.OpenRequest{History: 100}).caughtUp()
	n.fill("alice", "lobby", 10, 10) // up to 20
	s.reach("lobby", 20)
	r := &restored{node: n, s: s, saved: s.position("lobby")}
	n.stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(n.opts.Dir)); err != nil {
		t.Fatal(err)
	}
	n.start()
	s = n.resume("alice", s.again()).caughtUp()
	n.fill("alice", "lobby", 10, 10) // up to 30
	s.reach("lobby", 30)
	r.s, r.lost = s, s.position("lobby")
	n.stop()
	if err := os.RemoveAll(n.opts.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n.opts.Dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	n.start()
	if grow > 0 {
		n.fill("alice", "lobby", grow, 10)
	}
	return r
}

// A log that was restored from a copy, and has grown past the client's offset
// or not, is not mistaken for the one the client knew.
func TestP2_RestoredLogRewinds(t *testing.T) {
	for name, grow := range map[string]int{"not grown": 0, "grown below": 5, "grown past": 25} {
		t.Run(name, func(t *testing.T) {
			r := restore(t, grow)
			head := uint64(20 + grow)
			resume := func(how string, p *reprisev1.Position, to uint64, replayed uint64) {
				t.Helper()
				request := r.s.again()
				request.Positions = []*reprisev1.Position{p, r.s.position("other")}
				back := r.resume("alice", request).caughtUp()
				defer back.hangUp()
				at := back.rooms["lobby"]
				if len(at.rewinds) != 1 || at.rewinds[0].GetTo() != to {
					t.Fatalf("%s: Rewinds %v, want to %d", how, at.rewinds, to)
				}
				if to == 20 && at.rewinds[0].GetIncarnation() != r.saved.GetIncarnation() {
					t.Errorf("%s: Rewind %v, want incarnation %s", how, at.rewinds[0], r.saved.GetIncarnation())
				}
				// FORKED the first time: the copy knows no newer key than its own.
				if w := back.welcome; w.GetOutcome() == reprisev1.Outcome_OUTCOME_EXACT || w.GetEventsToReplay() != replayed {
					t.Errorf("%s: Welcome %v, want %d events", how, w, replayed)
				}
				back.held("lobby", to, head)
				if back.rooms["other"].moved {
					t.Errorf("%s: the other room moved", how)
				}
			}
			resume("no earlier stretch", r.lost, 0, head)
			with := &reprisev1.Position{Room: "lobby", Offset: 30, Incarnation: r.lost.GetIncarnation(), Earlier: []*reprisev1.Stretch{
				{Incarnation: "i_neverheardof", Offset: 25}, {Incarnation: r.saved.GetIncarnation(), Offset: 20},
			}}
			resume("with earlier stretches", with, 20, head-20)
			resume("again, had the Rewind been lost", with, 20, head-20)
			resume("beyond the end of a stretch", &reprisev1.Position{
				Room: "lobby", Offset: 99, Incarnation: r.saved.GetIncarnation(),
			}, 20, head-20)
			resume("beyond the head", &reprisev1.Position{Room: "lobby", Offset: 99}, head, 0)
			// The server's copy of what the client claimed is not believed either.
			request := r.s.again()
			request.Positions = []*reprisev1.Position{with, r.s.position("other")}
			first := r.resume("alice", request).greeted() // and the stream is lost
			first.hangUp()
			request = first.keyOnly()
			back := r.resume("alice", request)
			back.bring([]*reprisev1.Position{{Room: "lobby", Offset: 30}})
			back.caughtUp()
			if at := back.rooms["lobby"]; len(at.rewinds) != 1 {
				t.Errorf("the Rewind is forgotten: the client was sent %v", at.offsets)
			}
		})
	}
}

// What the stretches of a log share with a client is good, however often the
// server was restarted.
func TestP8_OldIncarnationsAreGood(t *testing.T) {
	n := serve(t)
	n.join("alice", "lobby")
	var held []*reprisev1.Position
	s := n.open("alice", &reprisev1.OpenRequest{History: 10}).caughtUp()
	for range 5 {
		n.say("alice", "lobby", "a", "b")
		s.reach("lobby", n.room("alice", "lobby").GetHead())
		held = append(held, s.position("lobby"))
		n.restart()
		s = n.resume("alice", s.again()).caughtUp()
	}
	n.say("alice", "lobby", "last")
	for _, p := range held {
		r := s.again()
		r.Positions = []*reprisev1.Position{p}
		back := n.resume("alice", r).caughtUp()
		back.held("lobby", p.GetOffset(), 13)
		if len(back.rooms["lobby"].rewinds) > 0 || back.welcome.GetOutcome() != reprisev1.Outcome_OUTCOME_EXACT {
			t.Errorf("from %v: Welcome %v, Rewinds %v", p, back.welcome, back.rooms["lobby"].rewinds)
		}
		back.hangUp()
	}
	// A Tail and a Rewind.
	tail := n.tail("alice", &reprisev1.TailRequest{Room: "lobby", After: 5, Incarnation: "i_neverheardof"}).caughtUp()
	if at := tail.rooms["lobby"]; len(at.rewinds) != 1 || at.rewinds[0].GetTo() != 0 {
		t.Errorf("Tail: Rewinds %v", at.rewinds)
	}
	tail.held("lobby", 0, 13)
}
