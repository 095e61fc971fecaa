// Package event encodes events. An event is encoded once, when it is
// published, as an element of the repeated field Events.events:
//
//	0x1a  length  | 0x09 offset (8 bytes) | 0x11 after (8 bytes) | other fields
//	tag   varint  | fixed64, field 1      | fixed64, field 2     |
//
// The same bytes are stored, lie one after another in a room's tail and go out
// on every stream: a frame for any range of events is Frame's short header and
// one contiguous slice. Offset and after stand at a fixed place so that they
// can be written last, after every check that could refuse the event.
package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Wire numbers of the contract that the encoding depends on. A test compares
// them with the generated descriptors.
const (
	fieldFrameEvents       = 6 // ServerFrame.events
	fieldEventsRoom        = 1
	fieldEventsIncarnation = 2
	fieldEventsEvents      = 3
	fieldOffset            = 1
	fieldAfter             = 2
	fieldTime              = 3

	placeLen = 2 * (1 + 8) // offset and after, each a tag and eight bytes
)

// ErrMalformed is returned for bytes that are not an encoded event.
var ErrMalformed = errors.New("event: malformed")

// Encode returns e as an element, with room for its place. The offset and
// after of e must be zero.
func Encode(e *reprisev1.Event) ([]byte, error) {
	if e.GetOffset() != 0 || e.GetAfter() != 0 {
		return nil, errors.New("event: Encode of an event that has an offset")
	}
	size := placeLen + proto.Size(e)
	b := make([]byte, 0, 1+protowire.SizeVarint(uint64(size))+size)
	b = protowire.AppendTag(b, fieldEventsEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, fieldOffset, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, 0)
	b = protowire.AppendTag(b, fieldAfter, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, 0)
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, e)
}

// Place writes the offset and after of an element made by Encode.
func Place(element []byte, offset, after uint64) {
	_, n := binary.Uvarint(element[1:])
	p := element[1+n:]
	binary.LittleEndian.PutUint64(p[1:], offset)
	binary.LittleEndian.PutUint64(p[10:], after)
}

// Next splits the first element off data. It checks the frame of the element,
// not its fields.
func Next(data []byte) (element, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(data)
	if n < 0 || num != fieldEventsEvents || typ != protowire.BytesType {
		return nil, nil, fmt.Errorf("%w: no element here", ErrMalformed)
	}
	_, m := protowire.ConsumeBytes(data[n:])
	if m < 0 {
		return nil, nil, fmt.Errorf("%w: cut off", ErrMalformed)
	}
	return data[:n+m], data[n+m:], nil
}

// payload returns the encoded Event inside an element.
func payload(element []byte) ([]byte, error) {
	num, typ, n := protowire.ConsumeTag(element)
	if n < 0 || num != fieldEventsEvents || typ != protowire.BytesType {
		return nil, fmt.Errorf("%w: no element here", ErrMalformed)
	}
	p, m := protowire.ConsumeBytes(element[n:])
	if m < 0 || n+m != len(element) || len(p) < placeLen ||
		p[0] != fieldOffset<<3|byte(protowire.Fixed64Type) || p[9] != fieldAfter<<3|byte(protowire.Fixed64Type) {
		return nil, fmt.Errorf("%w: offset and after are not in their place", ErrMalformed)
	}
	return p, nil
}

// Where returns the offset and after of an element.
func Where(element []byte) (offset, after uint64, err error) {
	p, err := payload(element)
	if err != nil {
		return 0, 0, err
	}
	return binary.LittleEndian.Uint64(p[1:]), binary.LittleEndian.Uint64(p[10:]), nil
}

// Time returns the time of an element without decoding the rest.
func Time(element []byte) (time.Time, error) {
	p, err := payload(element)
	if err != nil {
		return time.Time{}, err
	}
	for p = p[placeLen:]; len(p) > 0; {
		num, typ, n := protowire.ConsumeField(p)
		if n < 0 {
			return time.Time{}, fmt.Errorf("%w: bad field", ErrMalformed)
		}
		if num != fieldTime || typ != protowire.BytesType {
			p = p[n:]
			continue
		}
		return timestamp(p[:n])
	}
	return time.Time{}, nil
}

func timestamp(field []byte) (time.Time, error) {
	var sec, nanos int64
	_, _, n := protowire.ConsumeTag(field)
	b, _ := protowire.ConsumeBytes(field[n:])
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.VarintType {
			return time.Time{}, fmt.Errorf("%w: bad time", ErrMalformed)
		}
		v, m := protowire.ConsumeVarint(b[n:])
		if m < 0 {
			return time.Time{}, fmt.Errorf("%w: bad time", ErrMalformed)
		}
		switch num {
		case 1:
			sec = int64(v)
		case 2:
			nanos = int64(v)
		}
		b = b[n+m:]
	}
	return time.Unix(sec, nanos), nil
}

// Decode returns the event of an element. The event shares nothing with it.
func Decode(element []byte) (*reprisev1.Event, error) {
	p, err := payload(element)
	if err != nil {
		return nil, err
	}
	e := new(reprisev1.Event)
	if err := proto.Unmarshal(p, e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// DecodeAll returns the events of a run of elements.
func DecodeAll(data []byte) ([]*reprisev1.Event, error) {
	var out []*reprisev1.Event
	for len(data) > 0 {
		element, rest, err := Next(data)
		if err != nil {
			return nil, err
		}
		e, err := Decode(element)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		data = rest
	}
	return out, nil
}

// FrameHeader returns the bytes that, followed by n bytes of elements, are a
// ServerFrame with Events of that room and incarnation.
func FrameHeader(room, incarnation string, n int) []byte {
	inner := protowire.SizeTag(fieldEventsRoom) + protowire.SizeBytes(len(room)) +
		protowire.SizeTag(fieldEventsIncarnation) + protowire.SizeBytes(len(incarnation)) + n
	b := make([]byte, 0, 2+protowire.SizeVarint(uint64(inner))+inner-n)
	b = protowire.AppendTag(b, fieldFrameEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b = protowire.AppendTag(b, fieldEventsRoom, protowire.BytesType)
	b = protowire.AppendString(b, room)
	b = protowire.AppendTag(b, fieldEventsIncarnation, protowire.BytesType)
	return protowire.AppendString(b, incarnation)
}
