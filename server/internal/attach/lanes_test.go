package attach

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// take pops n times and returns the lanes.
func (s *lanes) takeLanes(n int) []lane {
	var got []lane
	for range n {
		_, l := s.pop()
		got = append(got, l)
	}
	return got
}

// TestLanes has attachments in all lanes: the more urgent ones go first, and
// nobody waits for ever.
func TestLanes(t *testing.T) {
	var s lanes
	if s.ready() {
		t.Fatal("ready while nobody waits")
	}
	for l := range laneCount {
		for range 12 {
			s.push(new(Attachment), l)
		}
	}
	got := s.takeLanes(12)
	want := []lane{urgent, urgent, urgent, urgent, patient, prompt, urgent, urgent, urgent, patient, prompt, urgent}
	if !slices.Equal(got, want) {
		t.Errorf("lanes %v, want %v", got, want)
	}
	s.takeLanes(24)
	if s.ready() {
		t.Error("ready after all had their turn")
	}
}

// TestLaneOfRoom puts only the readers of a crowded room where they wait for
// others, and what is left of a turn where its beginning was.
func TestLaneOfRoom(t *testing.T) {
	for readers, want := range map[int]lane{1: prompt, crowdedRoom - 1: prompt, crowdedRoom: patient} {
		if got := laneOf(readers); got != want {
			t.Errorf("%d readers: lane %d, want %d", readers, got, want)
		}
	}
	for l, want := range map[lane]lane{patient: patient, prompt: prompt, urgent: prompt} {
		if got := l.again(); got != want {
			t.Errorf("again in lane %d after lane %d, want %d", got, l, want)
		}
	}
}

// TestRests works off a long queue with rests, and a short one without.
func TestRests(t *testing.T) {
	const workers = 2
	for _, length := range []int{longQueue, longQueue + 1} {
		var s lanes
		for range length {
			s.push(new(Attachment), patient)
		}
		s.push(new(Attachment), prompt)
		s.takeLanes(1)
		rests := 0
		for turns := 1; s.ready(); turns++ {
			s.takeLanes(1)
			if !s.sentLittle(workers) {
				continue
			}
			rests++
			if turns%(restAfter*workers) != 0 {
				t.Fatalf("a rest after %d turns", turns)
			}
			if s.ready() {
				t.Fatal("a turn of the lane that rests")
			}
			s.push(new(Attachment), prompt)
			if got := s.takeLanes(1); got[0] != prompt {
				t.Fatalf("a turn of lane %d during a rest", got[0])
			}
			s.resting = false
		}
		want := 0
		if length > longQueue {
			want = length / (restAfter * workers)
		}
		if rests != want {
			t.Errorf("%d waiting: %d rests, want %d", length, rests, want)
		}
		if s.long || s.little != 0 {
			t.Error("the next queue begins where this one ended")
		}
	}
}

// TestPoolRests ends a rest by itself, and at Close.
func TestPoolRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		time.Sleep(2 * restFor)
		begin := func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.lanes.long, p.lanes.little = true, restAfter*p.size-1
			if !p.lanes.sentLittle(p.size) {
				t.Fatal("no rest")
			}
			p.rest.Reset(restFor)
		}
		resting := func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.lanes.resting
		}
		begin()
		time.Sleep(restFor - time.Nanosecond)
		if !resting() {
			t.Error("the rest is too short")
		}
		time.Sleep(2 * time.Nanosecond)
		if resting() {
			t.Error("the rest is too long")
		}
		begin()
		p.Close()
		if resting() {
			t.Error("a closed pool rests")
		}
	})
}
