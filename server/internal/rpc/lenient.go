package rpc

import (
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var errMalformed = errors.New("malformed message")

// maxDepth bounds the nesting of messages; the contract's have 4.
const maxDepth = 16

// lenient decodes b into m like proto.Unmarshal, but takes strings that are
// not UTF-8, and leaves out what it does not know. It knows what requests are
// made of: varint integers, booleans and enums, and strings and messages,
// single or repeated. Only bad input gets here.
func lenient(b []byte, m protoreflect.Message, depth int) error {
	if depth > maxDepth {
		return errMalformed
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return errMalformed
		}
		if fd := m.Descriptor().Fields().ByNumber(num); fd != nil {
			if err := lenientField(b[n:n+size], typ, m, fd, depth); err != nil {
				return err
			}
		}
		b = b[n+size:]
	}
	return nil
}

func lenientField(value []byte, typ protowire.Type, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) error {
	if typ != wireType(fd) {
		return nil // another field of that number: unknown
	}
	if fd.Kind() == protoreflect.MessageKind {
		raw, _ := protowire.ConsumeBytes(value)
		if fd.IsList() {
			return lenient(raw, m.Mutable(fd).List().AppendMutable().Message(), depth+1)
		}
		return lenient(raw, m.Mutable(fd).Message(), depth+1)
	}
	v, err := lenientScalar(value, fd)
	if err != nil {
		return err
	}
	if fd.IsList() {
		m.Mutable(fd).List().Append(v)
	} else {
		m.Set(fd, v)
	}
	return nil
}

func wireType(fd protoreflect.FieldDescriptor) protowire.Type {
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.MessageKind:
		return protowire.BytesType
	default:
		return protowire.VarintType
	}
}

func lenientScalar(value []byte, fd protoreflect.FieldDescriptor) (protoreflect.Value, error) {
	if fd.Kind() == protoreflect.StringKind {
		s, _ := protowire.ConsumeString(value)
		return protoreflect.ValueOfString(s), nil
	}
	u, _ := protowire.ConsumeVarint(value)
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(u != 0), nil
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(u)), nil
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(u)), nil
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(u & math.MaxUint32)), nil
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(u), nil
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(u))), nil
	default:
		return protoreflect.Value{}, errMalformed
	}
}
