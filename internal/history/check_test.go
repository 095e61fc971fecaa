package history

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// script makes records with rising times.
func script(records ...Record) []Record {
	for i := range records {
		records[i].T = int64(i + 1)
	}
	return records
}

func pub(id string, ph Phase, off uint64) Record {
	return Record{P: "w", K: Publish, Ph: ph, Room: "r", ID: id, Inc: inc(off), Off: off}
}

func inc(off uint64) string {
	if off == 0 {
		return ""
	}
	return "i1"
}

func fin(id string, off uint64) Record {
	return Record{P: "f", K: Final, Room: "r", ID: id, Inc: "i1", Off: off, After: off - 1, Hash: "h" + id}
}

func del(id string, off uint64) Record {
	r := fin(id, off)
	r.P, r.K = "c", Deliver
	return r
}

func at(off uint64) Record { return Record{P: "c", K: Place, Room: "r", Inc: inc(off), Off: off} }

func with(r Record, change func(*Record)) Record {
	change(&r)
	return r
}

// good is a small history with nothing wrong, and its parts.
func good() []Record {
	return script(
		Record{P: "c", K: Attach, Ph: Call},
		Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 1},
		at(0),
		pub("a", Call, 0), pub("a", OK, 1), del("a", 1),
		Record{P: "c", K: CaughtUp, Room: "r"},
		Record{P: "c", K: CaughtUp},
		pub("b", Call, 0), pub("b", Unknown, 0), pub("b", Call, 0), pub("b", OK, 2), del("b", 2),
		Record{P: "c", K: Confirmed, Room: "r", Inc: "i1", Off: 2},
		pub("c", Call, 0), pub("c", OK, 3),
		Record{P: "c", K: Attach, Ph: Call},
		Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 2},
		at(2), // and then the room cannot be read for a while
		Record{P: "c", K: Unavailable, Room: "r"},
		Record{P: "c", K: CaughtUp},
		at(2), with(del("c", 3), func(r *Record) { r.Replayed = true }),
		Record{P: "c", K: CaughtUp, Room: "r"},
		fin("a", 1), fin("b", 2), fin("c", 3),
	)
}

func TestGoodHistory(t *testing.T) {
	if v := Check(good()); len(v) > 0 {
		t.Errorf("a good history is called bad: %v", v)
	}
}

// Each rule catches what it is for, and says so first.
func TestBadHistories(t *testing.T) {
	for _, test := range []struct {
		promise, rule string
		records       []Record
	}{
		{"P1", "lost", script(pub("a", Call, 0), pub("a", OK, 1), fin("", 1))},
		{"P1", "moved", script(pub("a", Call, 0), pub("a", OK, 1), fin("", 1), fin("a", 2))},
		{"P1", "unread", script(
			pub("a", Call, 0), pub("a", OK, 1),
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 1},
			at(0), Record{P: "c", K: CaughtUp}, fin("a", 1))},
		{"P1", "unread", script( // it is back before all is said to have caught up
			pub("a", Call, 0), pub("a", OK, 1),
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 1},
			Record{P: "c", K: Unavailable, Room: "r"}, at(0), Record{P: "c", K: CaughtUp}, fin("a", 1))},
		{"P2", "hole", script(pub("a", Call, 0), fin("", 1), fin("a", 3))},
		{"P2", "skip", script(at(0), del("", 2), fin("", 1), fin("", 2))},
		{"P2", "skip", script(at(0), Record{P: "c", K: Gap, Room: "r", First: 2, Off: 2}, fin("", 1), fin("", 2))},
		{"P2", "skip", script(at(0), del("", 1), at(2), fin("", 1), fin("", 2))},
		{"P2", "skip", script(del("", 1), fin("", 1))},
		{"P2", "repeat", script(at(0), del("", 1), del("", 1), fin("", 1))},
		{"P2", "repeat", script(at(0), del("", 1), at(0), fin("", 1))},
		{"P3", "disagree", script(pub("a", Call, 0), at(0), with(del("a", 1), func(r *Record) { r.Hash = "other" }), fin("a", 1))},
		{"P3", "disagree", script(pub("a", Call, 0), at(0), with(del("a", 1), func(r *Record) { r.Inc = "i0" }), fin("a", 1))},
		{"P3", "late", script(at(0), Record{P: "c", K: CaughtUp, Room: "r"}, with(del("", 1), func(r *Record) { r.Replayed = true }), fin("", 1))},
		{"P4", "duplicate", script(pub("a", Call, 0), fin("a", 1), fin("a", 2))},
		{"P4", "duplicate", script(pub("a", Call, 0), pub("a", OK, 1), pub("a", Call, 0), pub("a", OK, 2), fin("a", 1), fin("", 2))},
		{"P4", "phantom", script(fin("a", 1))},
		{"P4", "phantom", script(pub("a", Call, 0), pub("a", Fail, 0), fin("a", 1))},
		{"P4", "order", script(pub("a", Call, 0), pub("a", OK, 2), pub("b", Call, 0), pub("b", OK, 1), fin("b", 1), fin("a", 2))},
		{"P5", "fenced", script(
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 2},
			with(pub("a", Call, 0), func(r *Record) { r.Session, r.Attach = "s", 1 }), pub("a", OK, 1), fin("a", 1))},
		{"P5", "turned", script(
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 2},
			Record{P: "d", K: Attach, Ph: Call}, Record{P: "d", K: Attach, Ph: OK, Session: "s", Attach: 2})},
		{"P7", "leak", script(at(0), Record{P: "c", K: Closed, Room: "r"}, del("", 1), fin("", 1))},
		{"P8", "back", script(
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 1},
			Record{P: "c", K: Confirmed, Room: "q", Inc: "i1", Off: 2},
			Record{P: "c", K: Attach, Ph: Call}, Record{P: "c", K: Attach, Ph: OK, Session: "s", Attach: 2},
			Record{P: "c", K: Place, Room: "q", Inc: "i1", Off: 1})},
	} {
		found := Check(test.records)
		if len(found) == 0 {
			t.Errorf("%s %s is not caught:\n%v", test.promise, test.rule, test.records)
			continue
		}
		if !slices.ContainsFunc(found, func(v Violation) bool {
			return v.Promise == test.promise && v.Rule == test.rule && len(v.Excerpt) > 0
		}) {
			t.Errorf("%s %s is caught as something else:\n%v", test.promise, test.rule, found)
		}
	}
}

// Damage to a good history of some size is caught wherever it is.
func TestMutations(t *testing.T) {
	base := long(rand.New(rand.NewPCG(1, 2)), 40)
	if v := Check(base); len(v) > 0 {
		t.Fatalf("the undamaged history is called bad: %v", v)
	}
	mutations := map[string]func([]Record, int) bool{
		"lose a delivery": func(h []Record, i int) bool {
			h[i].K = "none"
			return true
		},
		"deliver twice": func(h []Record, i int) bool {
			if i+1 >= len(h) || h[i+1].P != h[i].P || h[i+1].K != Deliver {
				return false
			}
			t := h[i+1].T
			h[i+1] = h[i]
			h[i+1].T = t
			return true
		},
		"another body": func(h []Record, i int) bool {
			h[i].Hash += "'"
			return true
		},
		"another offset": func(h []Record, i int) bool {
			h[i].Off++
			return true
		},
	}
	caught, tried := 0, 0
	for name, damage := range mutations {
		for i, r := range base {
			if r.K != Deliver {
				continue
			}
			h := slices.Clone(base)
			if !damage(h, i) {
				continue
			}
			tried++
			if len(Check(h)) > 0 {
				caught++
			} else {
				t.Errorf("%s at %v is not caught", name, r)
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d damaged histories were tried", tried)
	}
	t.Logf("%d of %d damaged histories caught", caught, tried)
}

// long makes a good history: three clients follow a room, one is cut off and
// resumes now and then.
func long(random *rand.Rand, events int) []Record {
	var h []Record
	add := func(r Record) {
		r.T = int64(len(h) + 1)
		h = append(h, r)
	}
	clients := []string{"x", "y", "z"}
	held := map[string]uint64{}
	attach := uint64(0)
	begin := func(p string) {
		attach++
		add(Record{P: p, K: Attach, Ph: Call})
		add(Record{P: p, K: Attach, Ph: OK, Session: "s" + p, Attach: attach})
		add(Record{P: p, K: Place, Room: "r", Inc: inc(held[p]), Off: held[p]})
	}
	deliver := func(p string, head uint64, replayed bool) {
		for off := held[p] + 1; off <= head; off++ {
			r := del(fmt.Sprint("e", off), off)
			r.P, r.Replayed = p, replayed
			add(r)
			held[p] = off
		}
	}
	for _, p := range clients {
		begin(p)
		add(Record{P: p, K: CaughtUp, Room: "r"})
	}
	for off := uint64(1); off <= uint64(events); off++ {
		id := fmt.Sprint("e", off)
		add(pub(id, Call, 0))
		add(pub(id, OK, off))
		for _, p := range clients {
			switch {
			case p == "z" && random.IntN(4) > 0: // away
			case p == "z":
				begin(p)
				deliver(p, off, true)
				add(Record{P: p, K: CaughtUp, Room: "r"})
				add(Record{P: p, K: CaughtUp})
			default:
				deliver(p, off, false)
			}
		}
	}
	// Everybody ends where the log ends, so that a lost last event shows.
	for _, p := range clients {
		begin(p)
		deliver(p, uint64(events), true)
		add(Record{P: p, K: CaughtUp, Room: "r"})
		add(Record{P: p, K: CaughtUp})
	}
	for off := uint64(1); off <= uint64(events); off++ {
		add(fin(fmt.Sprint("e", off), off))
	}
	return h
}

func TestTraceRoundTrip(t *testing.T) {
	var sink bytes.Buffer
	trace := NewTrace(&sink)
	for _, r := range good() {
		trace.Add(r)
	}
	read, err := Read(&sink)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(read, trace.Records()) {
		t.Error("what was written is not what is read")
	}
	if v := Check(read); len(v) > 0 {
		t.Errorf("%v", v)
	}
	if _, err := Read(bytes.NewBufferString("{}\nnot json\n")); err == nil {
		t.Error("a damaged trace was read")
	}
}

// A million records are checked in seconds.
func TestLargeHistory(t *testing.T) {
	if testing.Short() {
		t.Skip("a large history")
	}
	h := long(rand.New(rand.NewPCG(3, 4)), 30_000)
	began := time.Now()
	if v := Check(h); len(v) > 0 {
		t.Errorf("%v", v[0])
	}
	t.Logf("%d records in %v", len(h), time.Since(began))
}

// TestTurnedLate: a Welcome that arrives late says nothing about the order of
// the attaches; one that was asked for late does.
func TestTurnedLate(t *testing.T) {
	call := func(p string) Record { return Record{P: p, K: Attach, Ph: Call} }
	welcome := func(p string, n uint64) Record { return Record{P: p, K: Attach, Ph: OK, Session: "s", Attach: n} }
	for name, c := range map[string]struct {
		records []Record
		broken  bool
	}{
		"late":        {[]Record{call("a"), call("b"), welcome("b", 2), welcome("a", 1)}, false},
		"asked later": {[]Record{call("b"), welcome("b", 2), call("a"), welcome("a", 1)}, true},
		"one number":  {[]Record{call("a"), call("b"), welcome("b", 2), welcome("a", 2)}, true},
	} {
		if got := Check(c.records); len(got) > 0 != c.broken {
			t.Errorf("%s: %v", name, got)
		}
	}
}
