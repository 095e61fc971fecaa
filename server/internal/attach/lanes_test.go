package attach

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// takeLanes pops n times and returns the lanes.
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

// TestPoolRests has a pool work off a long queue: it rests again and again,
// gives others their turn meanwhile, and a closed pool rests no more.
func TestPoolRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		const rests = 3
		fill := func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			for range max(longQueue+1, rests*restAfter*p.size+1) {
				p.lanes.push(new(Attachment), patient) // nothing to send is little
			}
			p.ready.Broadcast()
		}
		state := func() (waiting int, resting bool) {
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.lanes.queues[patient].len(), p.lanes.resting
		}
		time.Sleep(2 * restFor) // NewPool's timer is over
		fill()
		for range rests {
			before, resting := state()
			if !resting {
				t.Fatal("no rest")
			}
			other := &Attachment{inQueue: [laneCount]bool{prompt: true}}
			p.push(other, prompt)
			time.Sleep(restFor - time.Nanosecond)
			if waiting, _ := state(); waiting != before {
				t.Error("the rest is too short")
			}
			other.mu.Lock()
			if other.inQueue[prompt] {
				t.Error("no turn for another one during a rest")
			}
			other.mu.Unlock()
			time.Sleep(time.Nanosecond)
			if waiting, _ := state(); waiting == before {
				t.Error("the rest is too long")
			}
		}
		time.Sleep(time.Second)
		if waiting, resting := state(); waiting != 0 || resting {
			t.Errorf("%d wait, resting: %t", waiting, resting)
		}
		fill()
		state()
		p.Close()
		if waiting, resting := state(); waiting != 0 || resting {
			t.Errorf("closed: %d wait, resting: %t", waiting, resting)
		}
	})
}
