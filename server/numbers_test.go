//go:build unix

package server_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// Numbers from outside are as large as they can be. Each numeric field of each
// request is tried at its extremes, through real sockets: the answer is the one
// that a plain large value gets, few frames come, and afterwards the server
// rests.

// numbersRooms are where they are tried: one with events, one that has nothing
// but its beginning, and one whose events are all gone.
var numbersRooms = []string{"full", "fresh", "emptied"}

// numbersHead is how many events "full" has.
const numbersHead = 20

// numbersMost is how many frames any of these requests may be answered with.
const numbersMost = 100

func numbersServe(t *testing.T) *node {
	n := serve(t, func(o *server.Options) {
		o.NoSync, o.TrimEvery = true, 500*time.Millisecond
		o.Limits.SessionsPerUser, o.Limits.StreamsPerConnection = 10_000, 10_000
	})
	for _, r := range []*reprisev1.CreateRoomRequest{
		{Room: "full"}, {Room: "fresh"}, {Room: "emptied", Retention: &reprisev1.Retention{MaxBytes: 1}},
	} {
		if _, err := n.CreateRoom(as(t, "alice"), r); err != nil {
			t.Fatal(err)
		}
	}
	n.fill("alice", "full", numbersHead-2, 10)
	n.fill("alice", "emptied", 8, 10)
	within(t, "retention", func() {
		for r := n.room("alice", "emptied"); r.GetOldest() <= r.GetHead(); r = n.room("alice", "emptied") {
			time.Sleep(time.Millisecond)
		}
	})
	return n
}

// numbersRest fails the test if the process works although there is nothing to
// do: a spin takes what it can get.
func numbersRest(t *testing.T) {
	t.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const look, share = 1500 * time.Millisecond, 10
	var cpu time.Duration
	for range 10 { // what was begun may take a while to end
		before := used()
		time.Sleep(look)
		if cpu = used() - before; cpu < look/share {
			return
		}
	}
	t.Errorf("nothing is going on, and the process takes %v of CPU in %v", cpu, look)
}

// numbersField is a path to a number in a request: field numbers of messages,
// the last one that of the number itself.
type numbersField []protoreflect.FieldDescriptor

func (f numbersField) String() string {
	names := make([]string, len(f))
	for i, fd := range f {
		names[i] = string(fd.Name())
	}
	return strings.Join(names, ".")
}

// numbersFields finds the numbers of a message and of those in it.
func numbersFields(md protoreflect.MessageDescriptor, path numbersField) (out []numbersField) {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		here := append(slices.Clone(path), fd)
		switch fd.Kind() {
		case protoreflect.MessageKind:
			out = append(out, numbersFields(fd.Message(), here)...)
		case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.BoolKind:
		default:
			out = append(out, here)
		}
	}
	return out
}

// set puts v into m, and what m lacks on the way.
func (f numbersField) set(m protoreflect.Message, v protoreflect.Value) {
	for _, fd := range f[:len(f)-1] {
		if !fd.IsList() {
			m = m.Mutable(fd).Message()
			continue
		}
		list := m.Mutable(fd).List()
		if list.Len() == 0 {
			list.AppendMutable()
		}
		m = list.Get(0).Message()
	}
	m.Set(f[len(f)-1], v)
}

// numbersValue is a value to try, and the plain one that it must be treated as.
type numbersValue struct{ extreme, plain protoreflect.Value }

// values are the extremes of a field.
func (f numbersField) values(t *testing.T) (out []numbersValue) {
	fd := f[len(f)-1]
	add := func(plain protoreflect.Value, extremes ...protoreflect.Value) {
		for _, e := range extremes {
			out = append(out, numbersValue{e, plain})
		}
	}
	switch fd.Kind() {
	case protoreflect.Uint64Kind:
		big := protoreflect.ValueOfUint64(1_000_003)
		for _, v := range []uint64{math.MaxInt32, 1 << 31, math.MaxUint32, 1 << 32, 1<<53 - 1, 1 << 53, math.MaxInt64, 1 << 63, math.MaxUint64 - 1, math.MaxUint64} {
			add(big, protoreflect.ValueOfUint64(v))
		}
	case protoreflect.Uint32Kind:
		big := protoreflect.ValueOfUint32(1_000_003)
		for _, v := range []uint32{math.MaxInt32, 1 << 31, math.MaxUint32 - 1, math.MaxUint32} {
			add(big, protoreflect.ValueOfUint32(v))
		}
	case protoreflect.Int32Kind:
		plain := protoreflect.ValueOfInt32
		if fd.FullName() == "google.protobuf.Duration.nanos" {
			add(plain(-1_000_000_003), plain(math.MinInt32), plain(-1_000_000_000))
			add(plain(1_000_000_003), plain(math.MaxInt32), plain(1_000_000_000))
			break
		}
		add(plain(-2), plain(math.MinInt32), plain(math.MinInt32+1), plain(-1))
		add(plain(1_000_003), plain(math.MaxInt32), plain(math.MaxInt32-1))
	case protoreflect.Int64Kind: // seconds of a Duration
		plain := protoreflect.ValueOfInt64
		add(plain(-2), plain(-1), plain(-1<<31), plain(-1<<32))
		add(plain(-400_000_000_000), plain(math.MinInt64), plain(math.MinInt64+1), plain(-1<<53))
		add(plain(400_000_000_000), plain(math.MaxInt64), plain(math.MaxInt64-1), plain(1<<53), plain(315_576_000_000))
		add(plain(1_000_003), plain(1<<31), plain(1<<32))
	case protoreflect.EnumKind:
		plain := protoreflect.ValueOfEnum
		add(plain(99), plain(-1), plain(math.MinInt32), plain(math.MaxInt32), plain(1<<16))
	default:
		t.Fatalf("%s is a %s: say what its extremes are", f, fd.Kind())
	}
	return out
}

// numbersSmall are values that must simply be answered.
func numbersSmall(fd protoreflect.FieldDescriptor) []protoreflect.Value {
	switch {
	case fd.Name() == "window": // of one byte: the stream pauses, rightly, until that is acknowledged
		return []protoreflect.Value{protoreflect.ValueOfUint32(0)}
	case fd.Kind() == protoreflect.Uint64Kind:
		return []protoreflect.Value{protoreflect.ValueOfUint64(0), protoreflect.ValueOfUint64(1)}
	case fd.Kind() == protoreflect.Uint32Kind:
		return []protoreflect.Value{protoreflect.ValueOfUint32(0), protoreflect.ValueOfUint32(1)}
	}
	return nil
}

// numbersWorld makes requests that are good but for the number.
type numbersWorld struct {
	*node
	made int
	// holder is attached, and reads nothing.
	holder *stream
	frames *stream
	room   string
}

// request is a good one of a type; what it makes has a new name each time.
func (w *numbersWorld) request(t *testing.T, md protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	w.made++
	via := &reprisev1.Via{SessionId: w.holder.welcome.GetSessionId(), Attach: w.holder.welcome.GetAttach()}
	incarnation := w.GetRoomOf(t).GetIncarnation()
	switch md.Name() {
	case "OpenRequest":
		return &reprisev1.OpenRequest{}
	case "ResumeRequest":
		s := w.open("alice", &reprisev1.OpenRequest{}).greeted()
		s.hangUp()
		return &reprisev1.ResumeRequest{
			SessionId: s.welcome.GetSessionId(), ResumeKey: s.welcome.GetResumeKey(),
			Positions: []*reprisev1.Position{{Room: w.room, Incarnation: incarnation, Offset: 1}},
		}
	case "TailRequest":
		return &reprisev1.TailRequest{Room: w.room, Follow: w.made%2 == 0}
	case "SendMessageRequest":
		return &reprisev1.SendMessageRequest{Room: "sink", Text: "x", Via: via}
	case "SendCustomRequest":
		return &reprisev1.SendCustomRequest{Room: "sink", Type: "x", Via: via}
	case "AckRequest":
		return &reprisev1.AckRequest{Via: via, Positions: []*reprisev1.Position{{Room: w.room, Offset: 1}}}
	case "CreateRoomRequest":
		return &reprisev1.CreateRoomRequest{Room: fmt.Sprint("made-", w.made), Via: via}
	case "JoinRoomRequest":
		return &reprisev1.JoinRoomRequest{Room: w.room, Via: via}
	case "ListEventsRequest":
		return &reprisev1.ListEventsRequest{Room: w.room, Newest: w.made%2 == 0}
	case "ListMembersRequest":
		return &reprisev1.ListMembersRequest{Room: w.room}
	}
	// The others need no more than a room, if that.
	m, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil {
		t.Fatal(err)
	}
	out := m.New()
	for _, f := range []protoreflect.Name{"room", "session_id"} {
		if fd := md.Fields().ByName(f); fd != nil {
			out.Set(fd, protoreflect.ValueOfString("nowhere"))
		}
	}
	if fd := md.Fields().ByName("via"); fd != nil {
		out.Set(fd, protoreflect.ValueOfMessage(via.ProtoReflect()))
	}
	return out.Interface()
}

// GetRoomOf returns the room under test.
func (w *numbersWorld) GetRoomOf(t *testing.T) *reprisev1.Room {
	t.Helper()
	return w.node.room("alice", w.room)
}

// ask sends a request in its own way and returns the answer as text. Streams
// stay until the test ends, so that it shows whether they rest.
func (w *numbersWorld) ask(t *testing.T, method protoreflect.MethodDescriptor, in proto.Message) string {
	t.Helper()
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		m, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
		if err != nil {
			t.Fatal(err)
		}
		out := m.New().Interface()
		call := numbersText(w.conn.Invoke(as(t, "alice"), path, in, out), out)
		if f := numbersFrame(in); f != nil { // and the same as a frame
			w.frames.send(f)
			answer := w.frames.until("an answer", func(f *frame) bool { return f.GetReceipt() != nil || f.GetFault() != nil })
			call += "\n" + numbersText(nil, answer.ServerFrame)
		}
		if strings.HasPrefix(string(method.Name()), "Send") { // each publishes one more
			call = regexp.MustCompile(`offset:\s*\d+`).ReplaceAllString(call, "")
		}
		return call
	}
	if method.IsStreamingClient() {
		in = numbersFrame(in)
	}
	return w.stream(t, method, path, in)
}

// numbersFrame makes a frame of a request; nil if it is none.
func numbersFrame(in proto.Message) *reprisev1.ClientFrame {
	f := &reprisev1.ClientFrame{RequestId: "number"}
	fields := f.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); fd.Message() == in.ProtoReflect().Descriptor() {
			f.ProtoReflect().Set(fd, protoreflect.ValueOfMessage(in.ProtoReflect()))
			return f
		}
	}
	return nil
}

func (w *numbersWorld) stream(t *testing.T, method protoreflect.MethodDescriptor, path string, in proto.Message) string {
	t.Helper()
	ctx, cancel := context.WithCancel(as(t, "alice"))
	t.Cleanup(cancel)
	c, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: method.IsStreamingClient()}, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SendMsg(in); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var frames []proto.Message
	for range numbersMost {
		f := new(reprisev1.ServerFrame)
		if err := c.RecvMsg(f); err == io.EOF {
			return numbersText(nil, frames...)
		} else if err != nil {
			return numbersText(err, frames...)
		}
		frames = append(frames, f)
		if f.GetCaughtUp() != nil && f.GetCaughtUp().GetRoom() == "" {
			if method.Name() == "Tail" && !in.(*reprisev1.TailRequest).GetFollow() {
				continue // it ends
			}
			return numbersText(nil, frames...)
		}
	}
	t.Errorf("%d frames came", numbersMost)
	return "many frames"
}

var numbersVolatile = regexp.MustCompile(`(session_id|resume_key|attach|name|room|incarnation):\s*"?[^\s"]*"?|(seconds|nanos|rooms|rooms_changed|events_to_replay|members):\s*\d+|\s+`)

// numbersText is an answer, without what differs from one to the next.
func numbersText(err error, frames ...proto.Message) string {
	s := status.Convert(err)
	out := fmt.Sprint(s.Code(), " ", reasonOf(err))
	for _, d := range s.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				out += " " + v.GetField()
			}
		}
	}
	for _, f := range frames {
		if err == nil || f.ProtoReflect().Descriptor().Name() == "ServerFrame" {
			out += "\n" + numbersVolatile.ReplaceAllString(prototext.Format(f), " ")
		}
	}
	return out
}

func TestNumbersAtTheirExtremes(t *testing.T) {
	n := numbersServe(t)
	n.join("alice", "sink")
	methods := reprisev1.File_reprise_v1_chat_service_proto.Services().ByName("ChatService").Methods()
	for _, room := range numbersRooms {
		w := &numbersWorld{node: n, room: room, holder: n.open("alice", &reprisev1.OpenRequest{}).caughtUp()}
		w.frames = n.connect("alice", &reprisev1.OpenRequest{}).caughtUp()
		for i := range methods.Len() {
			method := methods.Get(i)
			inputs := []protoreflect.MessageDescriptor{method.Input()}
			if method.IsStreamingClient() { // Connect: its first frames
				inputs = []protoreflect.MessageDescriptor{
					new(reprisev1.OpenRequest).ProtoReflect().Descriptor(), new(reprisev1.ResumeRequest).ProtoReflect().Descriptor(),
				}
			}
			for _, input := range inputs {
				for _, f := range numbersFields(input, nil) {
					t.Run(fmt.Sprintf("%s/%s/%s.%s", room, method.Name(), input.Name(), f), func(t *testing.T) { w.try(t, method, input, f) })
				}
			}
		}
	}
	numbersRest(t)
	if got := n.room("alice", "full").GetHead(); got != numbersHead {
		t.Errorf("the room has %d events, had %d", got, numbersHead)
	}
}

// try gives a field of a request each of its extremes.
func (w *numbersWorld) try(t *testing.T, method protoreflect.MethodDescriptor, input protoreflect.MessageDescriptor, f numbersField) {
	ask := func(v protoreflect.Value) string {
		w.made += w.made % 2 // the one made next is the first of a pair
		m := w.request(t, input)
		f.set(m.ProtoReflect(), v)
		answer := strings.ReplaceAll(w.ask(t, method, m), v.String(), "N")
		if made, ok := m.(*reprisev1.CreateRoomRequest); ok { // not to be in each Welcome
			_, _ = w.LeaveRoom(as(t, "alice"), &reprisev1.LeaveRoomRequest{Room: made.GetRoom()})
		}
		return answer
	}
	for _, v := range numbersSmall(f[len(f)-1]) {
		if got := ask(v); strings.HasPrefix(got, codes.Internal.String()) || strings.HasPrefix(got, codes.DeadlineExceeded.String()) {
			t.Errorf("%v is answered with %s", v, got)
		}
	}
	plain := make(map[string]string)
	for _, v := range f.values(t) {
		if plain[v.plain.String()] == "" {
			plain[v.plain.String()] = ask(v.plain)
		}
		if got, want := ask(v.extreme), plain[v.plain.String()]; got != want || strings.HasPrefix(got, codes.Internal.String()) {
			t.Errorf("%v is answered with\n%s\nand %v with\n%s", v.extreme, got, v.plain, want)
		}
	}
}

// numbersSpread are the values whose combinations are tried.
var numbersSpread = []uint64{0, 1, 5, 1000, math.MaxUint32, 1 << 32, 1 << 53, math.MaxInt64, 1 << 63, math.MaxUint64 - 5, math.MaxUint64 - 1, math.MaxUint64}

// However its numbers combine, a Tail sends what lies in its range, and ends.
func TestNumbersOfTail(t *testing.T) {
	n := numbersServe(t)
	for _, name := range numbersRooms {
		r := n.room("alice", name)
		first := max(r.GetOldest(), 1)
		for _, after := range numbersSpread {
			for _, limit := range numbersSpread {
				for _, last := range []uint32{0, 1, 10_000} {
					in := &reprisev1.TailRequest{Room: name, After: after, Limit: limit, Last: last}
					from := min(after, r.GetHead())
					if last > 0 {
						from = max(r.GetHead()-min(uint64(last), r.GetHead()), first-1)
					}
					want := r.GetHead() - max(from, first-1)
					if limit > 0 {
						want = min(want, limit)
					}
					c, err := n.Tail(as(t, "alice"), in)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := numbersTailed(c); err != io.EOF || got != want {
						t.Fatalf("%v: %d events and %v; want %d", in, got, err, want)
					}
				}
			}
		}
	}
	numbersRest(t)
}

// A Tail that follows waits for what its limit still allows.
func TestNumbersOfTailThatFollows(t *testing.T) {
	n := numbersServe(t)
	var tails []grpc.ServerStreamingClient[reprisev1.ServerFrame]
	for _, name := range numbersRooms {
		for _, after := range []uint64{0, 5, math.MaxUint64} {
			for _, limit := range []uint64{1000, 1 << 63, math.MaxUint64 - 5, math.MaxUint64} {
				c, err := n.Tail(as(t, "alice"), &reprisev1.TailRequest{Room: name, After: after, Limit: limit, Follow: true})
				if err != nil {
					t.Fatal(err)
				}
				tails = append(tails, c)
			}
		}
	}
	for _, c := range tails {
		for {
			f, err := c.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if f.GetCaughtUp() != nil && f.GetCaughtUp().GetRoom() == "" {
				break
			}
		}
	}
	numbersRest(t)
	for _, name := range numbersRooms {
		n.say("alice", name, "one more")
	}
	for _, c := range tails {
		if f, err := c.Recv(); err != nil || len(f.GetEvents().GetEvents()) != 1 {
			t.Fatalf("a new event came as %v, %v", f, err)
		}
	}
}

func numbersTailed(c grpc.ServerStreamingClient[reprisev1.ServerFrame]) (events uint64, err error) {
	for range numbersMost {
		f, err := c.Recv()
		if err != nil {
			return events, err
		}
		events += uint64(len(f.GetEvents().GetEvents()))
	}
	return events, fmt.Errorf("more than %d frames", numbersMost)
}

// However its numbers combine, ListEvents returns what lies in its range.
func TestNumbersOfListEvents(t *testing.T) {
	n := numbersServe(t)
	for _, name := range numbersRooms {
		r := n.room("alice", name)
		first := max(r.GetOldest(), 1)
		for _, after := range numbersSpread {
			for _, before := range numbersSpread {
				for _, limit := range []int32{0, 1, 7, 1000} {
					for _, newest := range []bool{false, true} {
						in := &reprisev1.ListEventsRequest{Room: name, After: after, Before: before, Limit: limit, Newest: newest}
						out, err := n.ListEvents(as(t, "alice"), in)
						if before > 0 && before <= after {
							refused(t, err, codes.InvalidArgument, "INVALID_FIELD")
							continue
						}
						if err != nil {
							t.Fatalf("%v: %v", in, err)
						}
						from, to := max(min(after, r.GetHead()), first-1), r.GetHead()
						if before > 0 {
							to = min(to, before-1)
						}
						want := to - min(from, to)
						if limit > 0 {
							want = min(want, uint64(limit))
						}
						var got uint64
						for _, s := range out.GetStretches() {
							got += uint64(len(s.GetEvents()))
						}
						if got != want || out.GetMore() != (limit > 0 && want < to-min(from, to)) {
							t.Fatalf("%v: %d events, more %v; want %d", in, got, out.GetMore(), want)
						}
					}
				}
			}
		}
	}
}

// Retention at its extremes keeps what it says.
func TestNumbersOfRetention(t *testing.T) {
	n := numbersServe(t)
	for i, r := range []*reprisev1.Retention{
		{MaxEvents: math.MaxUint64}, {MaxEvents: 1 << 63}, {MaxBytes: math.MaxUint64}, {MaxBytes: 1 << 63},
		{MaxAge: &durationpb.Duration{Seconds: 9_164_448_000, Nanos: 999_999_999}},
		{MaxAge: &durationpb.Duration{Seconds: 9_164_448_000}, MaxEvents: math.MaxUint64, MaxBytes: math.MaxUint64},
	} {
		name := fmt.Sprint("kept-", i)
		if _, err := n.CreateRoom(as(t, "alice"), &reprisev1.CreateRoomRequest{Room: name, Retention: r}); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		n.say("alice", name, "a", "b", "c")
	}
	// A room that is emptied later tells that retention came by again.
	if _, err := n.CreateRoom(as(t, "alice"), &reprisev1.CreateRoomRequest{Room: "z-canary", Retention: &reprisev1.Retention{MaxBytes: 1}}); err != nil {
		t.Fatal(err)
	}
	within(t, "retention", func() {
		for r := n.room("alice", "z-canary"); r.GetOldest() <= r.GetHead(); r = n.room("alice", "z-canary") {
			time.Sleep(time.Millisecond)
		}
	})
	for i := range 6 {
		if r := n.room("alice", fmt.Sprint("kept-", i)); r.GetOldest() != 1 || r.GetHead() != 5 {
			t.Errorf("%v: oldest %d, head %d", r.GetRetention(), r.GetOldest(), r.GetHead())
		}
	}
}
