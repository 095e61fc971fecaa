package bare

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// TestRoomRead reads a room of events of all sizes from everywhere: each frame
// is what the contract says, and together they are the log.
func TestRoomRead(t *testing.T) {
	r := newRoom("room", 1)
	const events = 3000
	for i := range events {
		e := encode("ann", "", bytes.Repeat([]byte{'x'}, 1+i*37%5000), time.Now())
		r.mu.Lock()
		r.reserve(e)
		r.addLocked(e)
		r.mu.Unlock()
	}
	if len(r.chunks) < 3 {
		t.Fatal("too few chunks to test with")
	}
	last := uint64(0)
	for last < events {
		elements, to := r.read(last)
		if len(elements) > frameBytes && to > last+1 {
			t.Fatalf("a frame of %d bytes", len(elements))
		}
		var f reprisev1.ServerFrame
		if err := proto.Unmarshal(append(r.header(len(elements)), elements...), &f); err != nil {
			t.Fatal(err)
		}
		if f.GetEvents().GetRoom() != "room" || f.GetEvents().GetIncarnation() != incarnation {
			t.Fatal(f.GetEvents().GetRoom(), f.GetEvents().GetIncarnation())
		}
		for _, e := range f.GetEvents().GetEvents() {
			if e.GetAfter() != last || e.GetOffset() != last+1 || len(e.GetMessage().GetText()) != 1+int(last)*37%5000 {
				t.Fatalf("event %v after %d", e.GetOffset(), last)
			}
			last = e.GetOffset()
		}
		if last != to {
			t.Fatalf("a frame up to %d says %d", last, to)
		}
	}
	if e, to := r.read(events); e != nil || to != events {
		t.Error("there is something after the end")
	}
}

func TestCommitters(t *testing.T) {
	for name, open := range map[string]func(string) (*Committer, error){"pebble": OpenPebble, "file": OpenFile} {
		c, err := open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		p := Publish(c, 8, 20, 64, true, 50*time.Millisecond)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if p.Events == 0 || p.P50 <= 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
