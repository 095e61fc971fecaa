package rpc

import (
	"fmt"
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// This file says how large a message may be, from the contract alone: how many
// entries each list and map may have, and how many bytes each field. What a
// message may decode to is bounded by it before it is decoded, and each
// method's request limit follows from it.

const (
	resumeRequest   = "reprise.v1.ResumeRequest"
	resumePositions = resumeRequest + ".positions"
)

// entries bounds every list and map of what clients send; a test finds one
// that is missing. They are the bounds of validate.go. 0: it follows from the
// options.
var entries = map[protoreflect.FullName]int{
	"reprise.v1.AckRequest.positions":      maxAckMany,
	"reprise.v1.CreateRoomRequest.members": maxFirst,
	"reprise.v1.OpenRequest.focus":         maxFocus,
	"reprise.v1.Position.earlier":          maxEarlier,
	"reprise.v1.ResumeRequest.focus":       maxFocus,
	resumePositions:                        0,
}

// payloads are the fields that hold as much as an event may.
var payloads = map[protoreflect.FullName]bool{
	"reprise.v1.SendCustomRequest.data":  true,
	"reprise.v1.SendMessageRequest.text": true,
}

const (
	// defaultEntries is for a list that entries does not know.
	defaultEntries = 16
	// maxString is enough for every name, title and key, in bytes, and maxPageToken
	// for a page token: it may have a name that an older release took.
	maxString    = 512
	maxPageToken = 8 << 10
	// maxSingles bounds how often fields that are no lists come in one message,
	// fields that the contract does not know among them. Each is to come once.
	maxSingles = 1024
	// maxLists is how many lists and maps one message may have.
	maxLists = 8
	// maxMessages is how many single messages one may have.
	maxMessages = 64
	// minRequest is a request limit below which none is worth it: room for what
	// a later contract may add.
	minRequest = 4 << 10
)

// plan is what there is to know of a message type to bound it.
type plan struct {
	name   protoreflect.FullName
	fields []fieldPlan // by number
	size   int         // of an empty one in memory
	most   int         // of a valid one on the wire; payloads are not counted
	loads  int         // payloads that one has at most
}

// fieldPlan is what there is to know of a field; the zero value is unknown.
type fieldPlan struct {
	name  string
	wire  protowire.Type
	list  int // 1 and up numbers the lists and maps of the message; 0 is single
	most  int // entries
	size  int // of an entry in memory, beside its bytes
	width int // of an entry that may be packed: 4, 8, or 1 for varints; else 0
	of    *plan
	once  uint64 // the bit of a single message, which may come only once
}

// plans has every plan that was asked for. Safe for concurrent use.
type plans struct {
	maxPositions int // of a resume

	mu   sync.Mutex
	made map[protoreflect.FullName]*plan
}

func newPlans(maxPositions int) *plans {
	return &plans{maxPositions: maxPositions, made: make(map[protoreflect.FullName]*plan)}
}

// plan returns the plan of a message type. It panics on a type with more
// lists or messages than can be counted, which a test would have found.
func (ps *plans) plan(d protoreflect.MessageDescriptor) *plan {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.planLocked(d)
}

func (ps *plans) planLocked(d protoreflect.MessageDescriptor) *plan {
	if p := ps.made[d.FullName()]; p != nil {
		return p
	}
	p := &plan{name: d.FullName(), size: sizeOf(d)}
	ps.made[d.FullName()] = p // first, because types can contain themselves
	lists, singles, oneofs := 0, 0, make(map[protoreflect.FullName][2]int)
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := ps.fieldLocked(fd)
		if fd.Cardinality() == protoreflect.Repeated {
			if lists++; lists > maxLists {
				panic(fmt.Sprintf("rpc: %s has more than %d lists", p.name, maxLists))
			}
			f.list, f.most = lists, ps.entries(fd)
		} else if f.of != nil {
			if singles++; singles > maxMessages {
				panic(fmt.Sprintf("rpc: %s has more than %d messages", p.name, maxMessages))
			}
			f.once = 1 << (singles - 1)
		}
		most, loads := f.wireSize(fd)
		if o := fd.ContainingOneof(); o != nil { // only one of them is there
			had := oneofs[o.FullName()]
			oneofs[o.FullName()] = [2]int{max(had[0], most), max(had[1], loads)}
			most, loads = max(0, most-had[0]), max(0, loads-had[1])
		}
		p.most += most
		p.loads += loads
		for len(p.fields) <= int(fd.Number()) {
			p.fields = append(p.fields, fieldPlan{})
		}
		p.fields[fd.Number()] = f
	}
	return p
}

func (ps *plans) fieldLocked(fd protoreflect.FieldDescriptor) fieldPlan {
	f := fieldPlan{name: string(fd.Name()), most: 1, size: 16}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		f.wire, f.of, f.size = protowire.BytesType, ps.planLocked(fd.Message()), 8
		if fd.IsMap() {
			f.size = 64 // the entry of a map
		}
	case protoreflect.GroupKind: // not in proto3
	case protoreflect.StringKind, protoreflect.BytesKind:
		f.wire = protowire.BytesType
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		f.wire, f.width = protowire.Fixed32Type, 4
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		f.wire, f.width = protowire.Fixed64Type, 8
	default:
		f.wire, f.width = protowire.VarintType, 1
	}
	return f
}

// wireSize returns the bytes of a field at most, and the payloads beside them.
func (f *fieldPlan) wireSize(fd protoreflect.FieldDescriptor) (most, loads int) {
	const tag, length = 5, 5
	switch {
	case payloads[fd.FullName()]:
		return tag + length, f.most
	case f.of != nil:
		return f.most * (tag + length + f.of.most), f.most * f.of.loads
	case f.name == "page_token":
		return tag + length + maxPageToken, 0
	case f.wire == protowire.BytesType:
		return f.most * (tag + length + maxString), 0
	default:
		return f.most * (tag + protowire.SizeVarint(1<<63)), 0
	}
}

func (ps *plans) entries(fd protoreflect.FieldDescriptor) int {
	n, ok := entries[fd.FullName()]
	switch {
	case !ok:
		return defaultEntries
	case n == 0:
		return ps.maxPositions
	}
	return n
}

// sizeOf returns what an empty message takes in memory.
func sizeOf(d protoreflect.MessageDescriptor) int {
	if mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil {
		if t := reflect.TypeOf(mt.Zero().Interface()); t.Kind() == reflect.Pointer {
			return int(t.Elem().Size())
		}
	}
	return 64 + 24*d.Fields().Len()
}

// limit returns how many bytes a request of the type may have: twice what a
// valid one needs, so that one that is a little too large is told which field
// is, and at most a frame. A resume has a limit of its own.
func (p *plan) limit(o Options) int {
	switch p.name {
	case resumeRequest:
		return o.MaxResume()
	case "reprise.v1.AckRequest": // does not need earlier stretches
		return min(o.MaxFrame, 2*AckBytes)
	}
	return min(o.MaxFrame, max(minRequest, 2*(p.most+p.loads*o.MaxMessage)))
}
