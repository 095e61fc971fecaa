package event_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
)

// TestWireNumbers compares the numbers that the encoding is written in with
// the contract.
func TestWireNumbers(t *testing.T) {
	for _, c := range []struct {
		message proto.Message
		field   protoreflect.Name
		number  protowire.Number
		kind    protoreflect.Kind
	}{
		{&reprisev1.ServerFrame{}, "events", 6, protoreflect.MessageKind},
		{&reprisev1.Events{}, "room", 1, protoreflect.StringKind},
		{&reprisev1.Events{}, "incarnation", 2, protoreflect.StringKind},
		{&reprisev1.Events{}, "events", 3, protoreflect.MessageKind},
		{&reprisev1.Event{}, "offset", 1, protoreflect.Fixed64Kind},
		{&reprisev1.Event{}, "after", 2, protoreflect.Fixed64Kind},
		{&reprisev1.Event{}, "time", 3, protoreflect.MessageKind},
	} {
		d := c.message.ProtoReflect().Descriptor()
		fd := d.Fields().ByName(c.field)
		if fd == nil || fd.Number() != c.number || fd.Kind() != c.kind {
			t.Errorf("%s.%s is not %d, %v", d.Name(), c.field, c.number, c.kind)
		}
	}
}

// events draws events of every kind, without a place.
func events() *rapid.Generator[*reprisev1.Event] {
	return rapid.Custom(func(t *rapid.T) *reprisev1.Event {
		text := rapid.String().Draw(t, "text")
		e := &reprisev1.Event{
			Time:   &timestamppb.Timestamp{Seconds: rapid.Int64Range(0, 1<<40).Draw(t, "seconds"), Nanos: rapid.Int32Range(0, 999_999_999).Draw(t, "nanos")},
			Sender: rapid.StringN(0, 300, -1).Draw(t, "sender"), ClientId: rapid.StringN(0, 64, -1).Draw(t, "client id"),
		}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			e.Body = &reprisev1.Event_Message{Message: &reprisev1.Message{Text: text}}
		case 1:
			e.Body = &reprisev1.Event_Custom{Custom: &reprisev1.Custom{Type: "t", Data: text}}
		case 2:
			e.Body = &reprisev1.Event_MemberChange{MemberChange: &reprisev1.MemberChange{Kind: reprisev1.MemberChange_KIND_JOINED, User: text}}
		case 3:
			e.Body = &reprisev1.Event_RoomChange{RoomChange: &reprisev1.RoomChange{Title: text}}
		}
		return e
	})
}

// TestFrame checks that a header and elements are exactly the frame that a
// client would be sent if it were encoded as a whole.
func TestFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &reprisev1.Events{Room: rapid.StringN(1, 128, -1).Draw(t, "room"), Incarnation: rapid.StringN(0, 64, -1).Draw(t, "incarnation")}
		var data []byte
		for _, e := range rapid.SliceOfN(events(), 1, 5).Draw(t, "events") {
			element, err := event.Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			e.Offset, e.After = rapid.Uint64().Draw(t, "offset"), rapid.Uint64().Draw(t, "after")
			event.Place(element, e.GetOffset(), e.GetAfter())
			checkElement(t, element, e)
			data = append(data, element...)
			want.Events = append(want.Events, e)
		}
		frame := append(event.FrameHeader(want.GetRoom(), want.GetIncarnation(), len(data)), data...)
		got := new(reprisev1.ServerFrame)
		if err := proto.Unmarshal(frame, got); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got.GetEvents(), want) {
			t.Fatalf("decoded as %v, not %v", got, want)
		}
		all, err := event.DecodeAll(data)
		if err != nil || !proto.Equal(&reprisev1.Events{Events: all}, &reprisev1.Events{Events: want.GetEvents()}) {
			t.Fatalf("DecodeAll: %v, %v", all, err)
		}
	})
}

func checkElement(t *rapid.T, element []byte, e *reprisev1.Event) {
	first, rest, err := event.Next(append(bytes.Clone(element), "rest"...))
	if err != nil || !bytes.Equal(first, element) || string(rest) != "rest" {
		t.Fatalf("Next: %x, %x, %v", first, rest, err)
	}
	if offset, after, err := event.Where(element); err != nil || offset != e.GetOffset() || after != e.GetAfter() {
		t.Fatalf("Where: %d, %d, %v", offset, after, err)
	}
	if at, err := event.Time(element); err != nil || !at.Equal(e.GetTime().AsTime()) {
		t.Fatalf("Time: %v, %v; want %v", at, err, e.GetTime().AsTime())
	}
	if got, err := event.Decode(element); err != nil || !proto.Equal(got, e) {
		t.Fatalf("Decode: %v, %v; want %v", got, err, e)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, e := range map[string]*reprisev1.Event{
		"an offset": {Offset: 1},
		"an after":  {After: 1},
		"not UTF-8": {Sender: "\xff"},
	} {
		if element, err := event.Encode(e); err == nil {
			t.Errorf("%s: encoded as %x", name, element)
		}
	}
}

func placed(tb testing.TB, text string) []byte {
	tb.Helper()
	element, err := event.Encode(&reprisev1.Event{
		Time: timestamppb.New(time.Unix(1_700_000_000, 5)), Sender: "alice",
		Body: &reprisev1.Event_Message{Message: &reprisev1.Message{Text: text}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	event.Place(element, 7, 6)
	return element
}

// TestTruncated cuts an element off everywhere: every reader notices.
func TestTruncated(t *testing.T) {
	whole := placed(t, "hello")
	for n := range whole {
		cut := whole[:n]
		_, _, nextErr := event.Next(cut)
		_, _, whereErr := event.Where(cut)
		_, timeErr := event.Time(cut)
		_, decodeErr := event.Decode(cut)
		for what, err := range map[string]error{"Next": nextErr, "Where": whereErr, "Time": timeErr, "Decode": decodeErr} {
			if !errors.Is(err, event.ErrMalformed) {
				t.Errorf("%s of %d bytes: %v", what, n, err)
			}
		}
		if _, err := event.DecodeAll(append(bytes.Clone(whole), cut...)); n > 0 && !errors.Is(err, event.ErrMalformed) {
			t.Errorf("DecodeAll with %d bytes more: %v", n, err)
		}
	}
}

// TestCorrupted damages what the fixed place of offset and after stands on.
func TestCorrupted(t *testing.T) {
	whole := placed(t, "hello")
	for what, at := range map[string]int{"tag": 0, "length": 1, "tag of offset": 2, "tag of after": 11} {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x08
		if _, _, err := event.Where(bad); !errors.Is(err, event.ErrMalformed) {
			t.Errorf("Where with a bad %s: %v", what, err)
		}
		if _, err := event.Decode(bad); !errors.Is(err, event.ErrMalformed) {
			t.Errorf("Decode with a bad %s: %v", what, err)
		}
	}
	if _, _, err := event.Where(append(whole, 0)); !errors.Is(err, event.ErrMalformed) {
		t.Errorf("Where with a byte more: %v", err)
	}
}

func TestTimeOfNone(t *testing.T) {
	element, err := event.Encode(&reprisev1.Event{Sender: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if at, err := event.Time(element); err != nil || !at.IsZero() {
		t.Errorf("Time of an event without: %v, %v", at, err)
	}
}

// TestAllocations holds what is done for each event and for each delivery.
func TestAllocations(t *testing.T) {
	element := placed(t, strings.Repeat("x", 1000))
	for _, c := range []struct {
		what string
		most float64
		do   func()
	}{
		{"Place", 0, func() { event.Place(element, math.MaxUint64, 1) }},
		{"Where", 0, func() { _, _, _ = event.Where(element) }},
		{"Time", 0, func() { _, _ = event.Time(element) }},
		{"Next", 0, func() { _, _, _ = event.Next(element) }},
		{"FrameHeader", 1, func() { _ = event.FrameHeader("lobby", "i_abcdefghijkl", 1<<20) }},
	} {
		if n := testing.AllocsPerRun(100, c.do); n > c.most {
			t.Errorf("%s allocates %v times, more than %v", c.what, n, c.most)
		}
	}
}

// FuzzElements reads bytes as from a disk that lies: no reader panics, and
// what they agree to be an event is one.
func FuzzElements(f *testing.F) {
	whole := placed(f, "hello")
	f.Add(whole)
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add(whole[:12])
	f.Add([]byte{0x1a, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, allErr := event.DecodeAll(data)
		for rest := data; len(rest) > 0; {
			element, next, err := event.Next(rest)
			if err != nil {
				if allErr == nil {
					t.Fatalf("DecodeAll takes what Next does not: %v", err)
				}
				return
			}
			if len(element)+len(next) != len(rest) || len(element) == 0 {
				t.Fatalf("Next of %d bytes: %d and %d", len(rest), len(element), len(next))
			}
			checkAgreement(t, element)
			rest = next
		}
	})
}

func checkAgreement(t *testing.T, element []byte) {
	t.Helper()
	offset, after, whereErr := event.Where(element)
	at, timeErr := event.Time(element)
	e, err := event.Decode(element)
	if err != nil {
		return
	}
	if whereErr != nil {
		t.Fatalf("Decode takes what Where does not: %v", whereErr)
	}
	// Fields given twice are nothing that Encode makes: the last one counts.
	once, _ := proto.Marshal(e)
	if len(once) != len(element)-1-protowire.SizeVarint(uint64(len(once))) || len(e.ProtoReflect().GetUnknown()) > 0 {
		return
	}
	if e.GetOffset() != 0 && e.GetAfter() != 0 && (offset != e.GetOffset() || after != e.GetAfter()) {
		t.Fatalf("Where says %d, %d, Decode %v", offset, after, e)
	}
	if e.GetTime() != nil && e.GetTime().IsValid() && timeErr == nil && !at.Equal(e.GetTime().AsTime()) {
		t.Fatalf("Time says %v, Decode %v", at, e.GetTime().AsTime())
	}
}
