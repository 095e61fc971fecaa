package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"pgregory.net/rapid"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/limit"
)

// patient is an edge that refuses at once, however often: for fuzzing.
func patient() *Service {
	s := edge(0)
	s.penalty.free, s.penalty.large = limit.NewByKey("", 0, 1), limit.NewByKey("", 0, 1)
	return s
}

const testMaxFrame = 1 << 20

// edge is a service without a core: what it is asked must not get past
// validation.
func edge(firstFrame time.Duration) *Service {
	return New(nil, nil, nil, nil, Options{
		Verifier:   auth.Development{},
		MaxMessage: 64 << 10, MaxFrame: testMaxFrame, MaxRooms: 10, MaxTails: 10, FirstFrame: firstFrame,
		PublishByUser: limit.NewByKey("", 0, 1), PublishByRoom: limit.NewByKey("", 0, 1), MakeByUser: limit.NewByKey("", 0, 1), Attaches: limit.NewGate(limit.GateOptions{}),
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

// wire is a transport's stream that a client has sent these bytes on, cut as
// they come.
type wire struct {
	method      string
	compression string
	sent        []byte
	cut         int // bytes that come at once; 0: all
	most        int // the largest Read that was asked for
	taken       int
	ended       *status.Status
}

func (w *wire) Method() string               { return w.method }
func (w *wire) SetHeader(metadata.MD) error  { return nil }
func (w *wire) SendHeader(metadata.MD) error { return nil }
func (w *wire) SetTrailer(metadata.MD) error { return nil }
func (w *wire) RecvCompress() string         { return w.compression }

func (w *wire) WriteStatus(s *status.Status) error {
	w.ended = s
	return nil
}

func (w *wire) ReadMessageHeader(header []byte) error {
	n := copy(header, w.sent)
	w.sent = w.sent[n:]
	switch n {
	case len(header):
		return nil
	case 0:
		return io.EOF
	}
	return io.ErrUnexpectedEOF
}

func (w *wire) Read(n int) (mem.BufferSlice, error) {
	w.most = max(w.most, n)
	if n > len(w.sent) {
		return nil, io.ErrUnexpectedEOF
	}
	data := w.sent[:n]
	w.sent, w.taken = w.sent[n:], w.taken+n
	var out mem.BufferSlice
	for w.cut > 0 && len(data) > w.cut {
		out, data = append(out, mem.SliceBuffer(data[:w.cut])), data[w.cut:]
	}
	return append(out, mem.SliceBuffer(data)), nil
}

// message appends a message as gRPC sends it.
func message(sent []byte, flag byte, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(sent, flag), uint32(len(b))), b...)
}

// readerOf returns a reader of what was sent to a method that takes ms.
func readerOf(s *Service, w *wire, m proto.Message, streams bool) *reader {
	p := s.plans.plan(m.ProtoReflect().Descriptor())
	return &reader{
		service: s, ctx: context.Background(), stream: w,
		method: &method{name: "/test", plan: p, limit: p.limit(s.opts), streams: streams},
	}
}

// receive reads a message as the server does, from one buffer or several.
func receive(s *Service, m proto.Message, b []byte, cut int) error {
	_, frame := m.(*reprisev1.ClientFrame)
	r := readerOf(s, &wire{sent: message(nil, 0, b), cut: cut}, m, frame)
	defer r.done()
	return r.next(m)
}
