package load

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

func TestBody(t *testing.T) {
	at := time.Now().Add(time.Second)
	b := AppendBody(nil, 128, 1<<40+7, at)
	if len(b) != 128 {
		t.Error(len(b), " bytes")
	}
	number, got, err := ParseBody(b)
	if err != nil || number != 1<<40+7 || !got.Equal(at) {
		t.Errorf("%d at %v, %v; want %d at %v", number, got, err, 1<<40+7, at)
	}
	for _, bad := range []string{"", "0123", strings.Repeat("g", 32)} {
		if _, _, err := ParseBody([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a body", bad)
		}
	}
}

// TestCounterRefuses: what is lost, repeated or out of order is an error.
func TestCounterRefuses(t *testing.T) {
	for name, numbers := range map[string][]uint64{
		"lost": {1, 3}, "repeated": {1, 1}, "reordered": {2}, "back": {1, 2, 1},
	} {
		c := NewCounter(1)
		var err error
		for _, n := range numbers {
			err = c.Add(0, n)
		}
		if err == nil {
			t.Errorf("%s: %v is taken", name, numbers)
		}
	}
	c := NewCounter(2)
	for _, n := range []uint64{1, 2, 3} {
		if err := c.Add(1, n); err != nil {
			t.Error(err)
		}
	}
	if err := c.Add(0, 1); err != nil || c.Events != 4 {
		t.Error(c.Events, err)
	}
}

// frame returns an encoded Events frame of messages with those offsets, each
// after the one before it.
func frame(t *testing.T, room string, after uint64, offsets ...uint64) []byte {
	t.Helper()
	events := &reprisev1.Events{Room: room, Incarnation: "i_1"}
	for _, o := range offsets {
		events.Events = append(events.Events, &reprisev1.Event{
			Offset: o, After: after, Time: timestamppb.Now(), Sender: "ann", ClientId: "c",
			Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: strings.Repeat("x", 200)}},
		})
		after = o
	}
	b, err := proto.Marshal(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Events{Events: events}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newReader returns a client that is not connected.
func newReader(got *[]int) *client {
	return &client{
		cfg: Config{User: "ann", Rooms: []string{"one", "two"}}, index: map[string]int{"one": 0, "two": 1},
		place: position{rooms: make([]at, 2)},
		on:    On{Event: func(room int, _ []byte) error { *got = append(*got, room); return nil }},
	}
}

func TestEventsInOrder(t *testing.T) {
	var got []int
	c := newReader(&got)
	for _, f := range [][]byte{frame(t, "one", 0, 1, 2), frame(t, "two", 0, 5), frame(t, "one", 2, 4)} {
		if err := c.Message(f); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 4 || got[0] != 0 || got[2] != 1 {
		t.Error("events of rooms ", got)
	}
	if c.place.rooms[0] != (at{"i_1", 4}) || c.place.rooms[1] != (at{"i_1", 5}) {
		t.Error("places ", c.place.rooms)
	}
}

// TestEventsOutOfOrder: a fast wrong answer is an error.
func TestEventsOutOfOrder(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"hole":           {frame(t, "one", 0, 1), frame(t, "one", 2, 3)},
		"repeat":         {frame(t, "one", 0, 1), frame(t, "one", 0, 1)},
		"back":           {frame(t, "one", 0, 2), frame(t, "one", 2, 1)},
		"unknown room":   {frame(t, "three", 0, 1)},
		"cut off":        {frame(t, "one", 0, 1)[:100]},
		"nothing":        {nil},
		"not a frame":    {[]byte("hello")},
		"other position": {frame(t, "one", 1, 2)},
	} {
		var got []int
		c := newReader(&got)
		var err error
		for _, f := range frames {
			err = c.Message(f)
		}
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestGapIsAnError(t *testing.T) {
	b, err := proto.Marshal(&reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Gap{Gap: &reprisev1.Gap{Room: "one", First: 1, Last: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	if newReader(&got).Message(b) == nil {
		t.Error("events that were kept back count as delivered")
	}
}
