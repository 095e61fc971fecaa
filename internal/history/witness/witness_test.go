package witness

import (
	"context"
	"slices"
	"testing"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/internal/history"
)

func roomState(off uint64) *reprisev1.ServerFrame {
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_RoomState{RoomState: &reprisev1.RoomState{
		Position: &reprisev1.Position{Room: "r", Incarnation: "i", Offset: off},
	}}}
}

func events(offs ...uint64) *reprisev1.ServerFrame {
	f := &reprisev1.Events{Room: "r", Incarnation: "i"}
	for _, off := range offs {
		f.Events = append(f.Events, &reprisev1.Event{Offset: off, After: off - 1})
	}
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Events{Events: f}}
}

// final is a log of so many events.
func final(trace *history.Trace, n uint64) {
	for off := range n {
		r := Describe("r", "i", &reprisev1.Event{Offset: off + 1, After: off})
		r.P, r.K = "final", history.Final
		trace.Add(r)
	}
}

// TestStream requires that what is wrong with a stream is found by its records
// alone, and that what is not is not.
func TestStream(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames []*reprisev1.ServerFrame
		rule   string // that is broken; empty: none
	}{
		{"whole", []*reprisev1.ServerFrame{roomState(1), events(2, 3), events(4)}, ""},
		{"unchanged room", []*reprisev1.ServerFrame{events(3), events(4)}, ""},
		{"hole", []*reprisev1.ServerFrame{roomState(1), events(2), events(4)}, "skip"},
		{"hole at the start", []*reprisev1.ServerFrame{roomState(1), events(3)}, "skip"},
		{"twice", []*reprisev1.ServerFrame{roomState(1), events(2, 3), events(3)}, "repeat"},
		{"not in the log", []*reprisev1.ServerFrame{roomState(3), events(4, 5)}, "disagree"},
	} {
		trace := history.NewTrace(nil)
		s := &stream{c: New("ann", trace, nil), p: "ann~1", placed: make(map[string]bool)}
		for _, f := range c.frames {
			s.see(f)
		}
		final(trace, 4)
		found := history.Check(trace.Records())
		if c.rule == "" && len(found) > 0 {
			t.Errorf("%s: %v", c.name, found)
		}
		if c.rule != "" && !slices.ContainsFunc(found, func(v history.Violation) bool { return v.Rule == c.rule }) {
			t.Errorf("%s: no %s among %v", c.name, c.rule, found)
		}
	}
}

// TestWindows requires that what crosses a window of the trace is checked in
// the next one: for the handler against what it holds.
func TestWindows(t *testing.T) {
	trace := history.NewTrace(nil)
	c := New("ann", trace, nil)
	s := &stream{c: c, p: "ann~1", placed: make(map[string]bool)}
	give := func(off uint64) {
		s.see(events(off))
		e := reprise.Event{Room: "r", Incarnation: "i", Offset: off, After: off - 1, Proto: &reprisev1.Event{Offset: off, After: off - 1}}
		if err := c.HandleEvent(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	s.see(roomState(0))
	if err := c.HandleStart(context.Background(), reprise.Position{Room: "r"}); err != nil {
		t.Fatal(err)
	}
	give(1)
	final(trace, 1)
	if found := history.Check(trace.Take()); len(found) > 0 {
		t.Errorf("the first window: %v", found)
	}
	c.BeginWindow()
	give(2)
	final(trace, 2)
	if found := history.Check(trace.Take()); len(found) > 0 {
		t.Errorf("a good second window: %v", found)
	}
	c.BeginWindow()
	give(4)
	final(trace, 4)
	if found := history.Check(trace.Take()); len(found) != 1 || found[0].Rule != "skip" || found[0].Excerpt[0].P != "ann" {
		t.Errorf("a window that lacks its first event: %v", found)
	}
}
