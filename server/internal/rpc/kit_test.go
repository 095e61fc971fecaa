package rpc

import (
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"pgregory.net/rapid"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/limit"
)

const testMaxFrame = 1 << 20

// edge is a service without a core: what it is asked must not get past
// validation.
func edge(firstFrame time.Duration) *Service {
	return New(nil, nil, nil, nil, Options{
		MaxMessage: 64 << 10, MaxFrame: testMaxFrame, MaxRooms: 10, FirstFrame: firstFrame,
		PublishByUser: limit.NewByKey("", 0, 1), PublishByRoom: limit.NewByKey("", 0, 1), MakeByUser: limit.NewByKey("", 0, 1), Attaches: limit.NewGate("", 0, 1, 0),
		Logger: slog.New(slog.DiscardHandler),
	})
}

// requests are the types of all that clients send.
func requests(tb testing.TB) []protoreflect.MessageType {
	tb.Helper()
	methods := reprisev1.File_reprise_v1_chat_service_proto.Services().ByName("ChatService").Methods()
	var types []protoreflect.MessageType
	for i := range methods.Len() {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(i).Input().FullName())
		if err != nil {
			tb.Fatal(err)
		}
		types = append(types, mt)
	}
	return types
}

// fill sets fields of m at random.
func fill(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !rapid.Bool().Draw(t, string(fd.Name())) {
			continue
		}
		switch {
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			for range rapid.IntRange(0, 3).Draw(t, "length") {
				fill(t, m.Mutable(fd).List().AppendMutable().Message())
			}
		case fd.IsList():
			for range rapid.IntRange(0, 3).Draw(t, "length") {
				m.Mutable(fd).List().Append(scalar(t, fd))
			}
		case fd.Kind() == protoreflect.MessageKind:
			fill(t, m.Mutable(fd).Message())
		default:
			m.Set(fd, scalar(t, fd))
		}
	}
}

func scalar(t *rapid.T, fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := rapid.Uint64().Draw(t, "number")
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "string"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(n)))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(n)
	default:
		t.Fatalf("%s has kind %v", fd.FullName(), fd.Kind())
		return protoreflect.Value{}
	}
}

// decode decodes as the server does, from one buffer or several.
func decode(tb testing.TB, m proto.Message, buffers ...[]byte) {
	tb.Helper()
	var data mem.BufferSlice
	for _, b := range buffers {
		data = append(data, mem.SliceBuffer(b))
	}
	if err := Codec(testMaxFrame, testMaxFrame).Unmarshal(data, m); err != nil {
		tb.Fatal(err)
	}
}
