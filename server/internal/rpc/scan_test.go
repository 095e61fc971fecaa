package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// TestEveryListHasABound walks through all that clients send: every list and
// map has a bound, no type has more of them than a scan counts or contains
// itself, and entries names nothing that is gone.
func TestEveryListHasABound(t *testing.T) {
	found := make(map[protoreflect.FullName]bool)
	seen := make(map[protoreflect.FullName]int)
	var walk func(protoreflect.MessageDescriptor, int)
	walk = func(d protoreflect.MessageDescriptor, depth int) {
		if depth > maxDepth {
			t.Fatalf("%s contains itself, or lies deeper than %d", d.FullName(), maxDepth)
		}
		if seen[d.FullName()]++; seen[d.FullName()] > 100 {
			return
		}
		lists := 0
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			if fd.Cardinality() == protoreflect.Repeated {
				lists++
				if found[fd.FullName()] = true; boundOf(fd) == 0 {
					t.Errorf("%s has no bound: give it one in entries, and in validate.go", fd.FullName())
				}
			}
			if fd.Message() != nil {
				walk(fd.Message(), depth+1)
			}
		}
		if lists > maxLists {
			t.Errorf("%s has %d lists", d.FullName(), lists)
		}
	}
	for _, mt := range requests(t) {
		walk(mt.Descriptor(), 0)
	}
	for _, m := range []proto.Message{
		&healthpb.HealthCheckRequest{}, &healthpb.HealthListRequest{},
		&reflectionpb.ServerReflectionRequest{},
		&reflectionalpha.ServerReflectionRequest{}, //nolint:staticcheck // older clients ask by it
	} {
		walk(m.ProtoReflect().Descriptor(), 0)
	}
	for name := range entries {
		if !found[name] {
			t.Errorf("entries has %s, which no client sends", name)
		}
	}
}

// boundOf returns how many entries a list may have, 0 if nobody has said.
func boundOf(fd protoreflect.FieldDescriptor) int {
	if n := entries[fd.FullName()]; n != 0 || fd.FullName() != resumePositions {
		return n
	}
	return testPlans.maxPositions
}

var testPlans = newPlans(8000)

// repeat is a message with n entries of nothing in a field.
func repeat(num protowire.Number, n int) []byte {
	one := protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), nil)
	return bytes.Repeat(one, n)
}

func nested(num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

// TestScanBoundsEveryList: for every list of every request, as many entries as
// it may have are let through and one more is not, and a message that is
// refused is refused without cost.
func TestScanBoundsEveryList(t *testing.T) {
	lists := 0
	var walk func(root, d protoreflect.MessageDescriptor, path string, wrap func([]byte) []byte)
	walk = func(root, d protoreflect.MessageDescriptor, path string, wrap func([]byte) []byte) {
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			field := path + string(fd.Name())
			if bound := boundOf(fd); bound > 0 {
				lists++
				if _, err := testPlans.plan(root).scan(wrap(repeat(fd.Number(), bound)), 0); err != nil {
					t.Errorf("%s, %s with %d entries: %v", root.FullName(), field, bound, err)
				}
				many := wrap(repeat(fd.Number(), 500_000))
				var e *tooManyError
				if _, err := testPlans.plan(root).scan(many, 0); !errors.As(err, &e) || *e != (tooManyError{field, bound, 2*bound + 1}) {
					t.Errorf("%s, %s with 500,000 entries: %v", root.FullName(), field, err)
				}
				if n := testing.AllocsPerRun(1, func() { _, _ = testPlans.plan(root).scan(many, 0) }); n > 12 {
					t.Errorf("%s, %s: %v allocations to refuse it", root.FullName(), field, n)
				}
				field += "[0]"
			}
			if fd.Message() != nil {
				walk(root, fd.Message(), field+".", func(b []byte) []byte { return wrap(nested(fd.Number(), b)) })
			}
		}
	}
	for _, mt := range requests(t) {
		walk(mt.Descriptor(), mt.Descriptor(), "", func(b []byte) []byte { return b })
	}
	if lists < 2*len(entries) { // each as a call and as a frame
		t.Errorf("only %d lists were tried", lists)
	}
}

// TestScanKinds: maps, packed lists, nesting, what is unknown and what is
// malformed.
func TestScanKinds(t *testing.T) {
	deep := []byte(nil)
	for range maxDepth { // a Value in a ListValue in a Value ...
		deep = nested(6, nested(1, deep))
	}
	for _, c := range []struct {
		name string
		m    proto.Message
		b    []byte
		want string
	}{
		{"a map", &structpb.Struct{}, repeat(1, defaultEntries), ""},
		{"a map with too many", &structpb.Struct{}, repeat(1, 40), "fields must have at most 16 entries, has 33"},
		{"too deep", &structpb.Value{}, deep, errMalformed.Error()},
		{"one field again and again", &reprisev1.SendMessageRequest{}, repeat(2, 2000), errMalformed.Error()},
		{"a list in pieces", &reprisev1.ClientFrame{}, append(nested(6, repeat(2, 600)), nested(6, repeat(2, 600))...), errMalformed.Error()},
		{"unknown again and again", &reprisev1.SendMessageRequest{}, repeat(100, 2000), errMalformed.Error()},
		{"a later contract", &reprisev1.SendMessageRequest{}, repeat(100, 200), ""},
		{"a number of another type", &reprisev1.AckRequest{}, bytes.Repeat([]byte{0x10, 1}, 2000), errMalformed.Error()},
		{"number 0", &reprisev1.AckRequest{}, []byte{0x02, 0}, errMalformed.Error()},
		{"cut off", &reprisev1.AckRequest{}, []byte{0x12, 5, 1}, errMalformed.Error()},
		{"a tag of eleven bytes", &reprisev1.AckRequest{}, bytes.Repeat([]byte{0xff}, 11), errMalformed.Error()},
	} {
		_, err := testPlans.plan(c.m.ProtoReflect().Descriptor()).scan(c.b, 0)
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	packed := fieldPlan{name: "n", wire: protowire.VarintType, width: 1, list: 1}
	if n := packed.count(protowire.BytesType, []byte{1, 0x80, 1, 2}); n != 3 {
		t.Errorf("three packed varints count as %d", n)
	}
	packed.wire, packed.width = protowire.Fixed64Type, 8
	if n := packed.count(protowire.BytesType, make([]byte, 24)); n != 3 {
		t.Errorf("three packed fixed64 count as %d", n)
	}
}

// TestScanTakesWhatIsValid: every valid message is let through, and its cost is
// of the order of what it takes.
func TestScanTakesWhatIsValid(t *testing.T) {
	for _, mt := range requests(t) {
		p := testPlans.plan(mt.Descriptor())
		t.Run(string(mt.Descriptor().Name()), rapid.MakeCheck(func(t *rapid.T) {
			m := mt.New()
			fill(t, m)
			b, err := proto.Marshal(m.Interface())
			if err != nil {
				t.Fatal(err)
			}
			if cost, err := p.scan(b, 0); err != nil || cost < p.size {
				t.Fatalf("%v: cost %d, %v", m.Interface(), cost, err)
			}
		}))
	}
}

// FuzzScan: what a scan lets through decodes to lists within their bounds, and
// what the standard decoder takes within them is let through.
func FuzzScan(f *testing.F) {
	types := requests(f)
	for i := range types {
		f.Add(byte(i), []byte("\x0a\x05\x0a\x03s_a\x12\x04room\x1a\x01c\x22\x02hi"))
	}
	f.Add(byte(0), nested(6, repeat(2, 1001)))
	f.Add(byte(0), append(nested(6, repeat(2, 600)), nested(6, repeat(2, 600))...))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		mt := types[int(kind)%len(types)]
		_, err := testPlans.plan(mt.Descriptor()).scan(b, 0)
		m := mt.New()
		if proto.Unmarshal(b, m.Interface()) != nil {
			return
		}
		if within := listsWithin(m); err == nil && !within {
			t.Fatalf("let through: %v", m.Interface())
		} else if err != nil && within && len(b) < maxSingles && !errors.Is(err, errMalformed) {
			t.Fatalf("%v: %v", err, m.Interface())
		}
	})
}

func listsWithin(m protoreflect.Message) bool {
	ok := true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList():
			ok = ok && v.List().Len() <= boundOf(fd)
			for i := 0; ok && fd.Message() != nil && i < v.List().Len(); i++ {
				ok = listsWithin(v.List().Get(i).Message())
			}
		case fd.Message() != nil:
			ok = ok && listsWithin(v.Message())
		}
		return ok
	})
	return ok
}

// BenchmarkScan is what every publish pays.
func BenchmarkScan(b *testing.B) {
	frame := &reprisev1.ClientFrame{RequestId: "123456", Frame: &reprisev1.ClientFrame_SendMessage{SendMessage: &reprisev1.SendMessageRequest{
		Room: "room-0001", ClientId: "0123456789abcdef", Text: string(make([]byte, 128)),
	}}}
	call := frame.GetSendMessage()
	call.Via = &reprisev1.Via{SessionId: "s_0123456789abc", Attach: 7}
	ack := &reprisev1.AckRequest{}
	for i := range maxAckMany {
		ack.Positions = append(ack.Positions, &reprisev1.Position{Room: fmt.Sprint("room-", i), Incarnation: "i_0123456789abc", Offset: 12345})
	}
	for _, c := range []struct {
		name string
		m    proto.Message
	}{{"frame", frame}, {"call", call}, {"ack of 1000", ack}} {
		raw, err := proto.Marshal(c.m)
		if err != nil {
			b.Fatal(err)
		}
		p := testPlans.plan(c.m.ProtoReflect().Descriptor())
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.scan(raw, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+", decoding", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decode(raw, c.m.ProtoReflect().New().Interface()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
