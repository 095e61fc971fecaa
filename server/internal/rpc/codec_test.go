package rpc

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// TestLenientKnowsRequests walks through all that clients send: lenient knows
// every kind of field there is.
func TestLenientKnowsRequests(t *testing.T) {
	seen := make(map[protoreflect.FullName]bool)
	var walk func(protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			switch fd.Kind() {
			case protoreflect.MessageKind:
				walk(fd.Message())
			case protoreflect.StringKind:
			case protoreflect.BoolKind, protoreflect.EnumKind, protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind:
				if fd.IsList() {
					t.Errorf("%s may be packed, which lenient does not read", fd.FullName())
				}
			default:
				t.Errorf("lenient does not read %s, of kind %v", fd.FullName(), fd.Kind())
			}
			if fd.IsMap() {
				t.Errorf("lenient does not read %s, a map", fd.FullName())
			}
		}
	}
	for _, mt := range requests(t) {
		walk(mt.Descriptor())
	}
}

// TestLenientAgrees compares lenient with the standard decoder on every type.
func TestLenientAgrees(t *testing.T) {
	for _, mt := range requests(t) {
		t.Run(string(mt.Descriptor().Name()), rapid.MakeCheck(func(t *rapid.T) {
			want := mt.New()
			fill(t, want)
			b, err := proto.Marshal(want.Interface())
			if err != nil {
				t.Fatal(err)
			}
			got := mt.New()
			if err := lenient(b, got, 0); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got.Interface(), want.Interface()) {
				t.Fatalf("lenient says %v, the standard %v", got.Interface(), want.Interface())
			}
		}))
	}
}

func TestLenientTakesInvalidUTF8(t *testing.T) {
	b := protowire.AppendTag(nil, 2, protowire.BytesType)
	b = protowire.AppendString(b, "\xff")
	b = protowire.AppendTag(b, 4, protowire.BytesType)
	b = protowire.AppendString(b, "text")
	b = protowire.AppendTag(b, 4, protowire.VarintType) // another field 4: unknown
	b = protowire.AppendVarint(b, 1)
	m := new(reprisev1.SendMessageRequest)
	if err := receive(edge(0), m, b, 0); err != nil {
		t.Fatal(err)
	}
	if m.GetRoom() != "\xff" || m.GetText() != "text" {
		t.Errorf("decoded as %q, %q", m.GetRoom(), m.GetText())
	}
}

// FuzzLenient: what the standard decoder takes, lenient takes, as the same.
func FuzzLenient(f *testing.F) {
	types := requests(f)
	for i := range types {
		f.Add(byte(i), []byte("\x0a\x05\x0a\x03s_a\x12\x04room\x1a\x01c\x22\x02hi"))
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		mt := types[int(kind)%len(types)]
		got, want := mt.New(), mt.New()
		err := lenient(b, got, 0)
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, want.Interface()) != nil {
			return
		}
		if err != nil || !proto.Equal(got.Interface(), want.Interface()) {
			t.Fatalf("lenient says %v, %v, the standard %v", got.Interface(), err, want.Interface())
		}
	})
}

// TestCodecPassesEventsThrough checks that encoded events are sent as they
// are, and not copied.
func TestCodecPassesEventsThrough(t *testing.T) {
	f := newEventsFrame([]byte("header"), []byte("elements"))
	out, err := newCodec(newPlans(8000)).Marshal(f)
	if err != nil || len(out) != 2 {
		t.Fatalf("%v, %v", out, err)
	}
	for i, want := range [][]byte{f.header, f.elements} {
		if got := out[i].ReadOnlyData(); !bytes.Equal(got, want) || &got[0] != &want[0] {
			t.Errorf("buffer %d is %q at another place than %q", i, got, want)
		}
	}
	m := &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Heartbeat{Heartbeat: &reprisev1.Heartbeat{}}}
	out, err = newCodec(newPlans(8000)).Marshal(m)
	want, _ := proto.Marshal(m)
	if err != nil || !bytes.Equal(out.Materialize(), want) {
		t.Errorf("another message: %x, %v", out.Materialize(), err)
	}
}
