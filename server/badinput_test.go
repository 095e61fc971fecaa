package server_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// badInputCase is one mistake. What exists as a call and as a frame is tried
// as both.
type badInputCase struct {
	name    string
	message proto.Message
	want    badInputWant
}

func badInputField(field, says string) badInputWant {
	return badInputWant{codes.InvalidArgument, "INVALID_FIELD", field, says}
}

var (
	badInputNoRoom    = badInputWant{codes.NotFound, "ROOM_NOT_FOUND", "", "no such room, or you are not a member of it"}
	badInputNoSession = badInputWant{codes.NotFound, "SESSION_NOT_FOUND", "", "no such session of yours"}
	badInputBeyond    = badInputWant{codes.FailedPrecondition, "ACK_BEYOND_SENT", "", "positions[0] is beyond what was sent on this attachment, up to offset 4"}
	badInputLong      = strings.Repeat("x", 129)
)

// badInputIDs are the ways in which an id of at most bound characters can be
// wrong.
func badInputIDs(field string, bound int, build func(string) proto.Message) []badInputCase {
	const plain = `may only have A-Z a-z 0-9 and "_.:-`
	return []badInputCase{
		{field + " too long", build(strings.Repeat("x", bound+1)), badInputField(field, fmt.Sprintf("to %d characters, has %d", bound, bound+1))},
		{field + " with a control character", build("a\nb"), badInputField(field, plain)},
		{field + " with a space", build("a b"), badInputField(field, plain)},
		{field + " with a NUL", build("a\x00"), badInputField(field, plain)},
		{field + " not ASCII", build("caf\u00e9"), badInputField(field, "not '\u00e9'")},
		{field + " not UTF-8", build(badInputNotUTF8), badInputField(field, plain)},
	}
}

// badInputNames are the ways in which the name of a room or a user can be
// wrong.
func badInputNames(field string, build func(string) proto.Message) []badInputCase {
	want := func(says string) badInputWant { return badInputField(field, says) }
	return []badInputCase{
		{field + " empty", build(""), want("must have 1 to 128 bytes, has 0")},
		{field + " too long", build(badInputLong), want("must have 1 to 128 bytes, has 129")},
		{field + " with a control character", build("a\nb"), want(`not '\n'`)},
		{field + " with a space", build("a b"), want("without spaces, not ' '")},
		{field + " with a NUL", build("a\x00"), want(`not '\x00'`)},
		{field + " that writes backwards", build("a\u202eb"), want(`not '\u202e'`)},
		{field + " not in its normal form", build("cafe\u0301"), want("must be in its normal form (RFC 8265), which is \"caf\u00e9\"")},
		{field + " not UTF-8", build(badInputNotUTF8), want("must be valid UTF-8")},
	}
}

func badInputRooms(build func(string) proto.Message) []badInputCase {
	return append(badInputNames("room", build),
		badInputCase{"room unknown", build("nowhere"), badInputNoRoom},
		badInputCase{"room of others", build("theirs"), badInputNoRoom},
	)
}

func badInputPublishes() []badInputCase {
	const most = 64 << 10
	message := func(text string) proto.Message { return &reprisev1.SendMessageRequest{Room: "mine", Text: text} }
	custom := func(kind, data string) proto.Message {
		return &reprisev1.SendCustomRequest{Room: "mine", Type: kind, Data: data}
	}
	cases := []badInputCase{
		{"text empty", message(""), badInputField("text", "must not be empty")},
		{"text too long", message(strings.Repeat("x", most+1)), badInputField("text", "must have at most 65536 bytes, has 65537")},
		{"text not UTF-8", message("ab" + badInputNotUTF8), badInputField("text", "must be valid UTF-8")},
		{"data too long", custom("t", strings.Repeat("x", most+1)), badInputField("data", "must have at most 65536 bytes, has 65537")},
		{"data not UTF-8", custom("t", badInputNotUTF8), badInputField("data", "must be valid UTF-8")},
		{"type empty", custom("", "d"), badInputField("type", "must have 1 to 64 characters, has 0")},
	}
	cases = append(cases, badInputRooms(func(s string) proto.Message { return &reprisev1.SendMessageRequest{Room: s, Text: "x"} })...)
	cases = append(cases, badInputRooms(func(s string) proto.Message { return &reprisev1.SendCustomRequest{Room: s, Type: "t"} })...)
	cases = append(cases, badInputIDs("client_id", 64, func(s string) proto.Message {
		return &reprisev1.SendMessageRequest{Room: "mine", Text: "x", ClientId: s}
	})...)
	return append(cases, badInputIDs("type", 64, func(s string) proto.Message { return custom(s, "") })...)
}

func badInputAcks(w *badInputWorld) []badInputCase {
	one := func(p *reprisev1.Position) proto.Message {
		return &reprisev1.AckRequest{Positions: []*reprisev1.Position{p}}
	}
	earlier := make([]*reprisev1.Stretch, 9)
	for i := range earlier {
		earlier[i] = &reprisev1.Stretch{Incarnation: fmt.Sprint("i_", i), Offset: 1}
	}
	bad := []*reprisev1.Stretch{{Incarnation: "a b", Offset: 1}}
	const notOurs = "is not one that the server gave out"
	cases := badInputRooms(func(s string) proto.Message { return one(&reprisev1.Position{Room: s, Offset: 1}) })
	// Rooms that one is not in count for nothing.
	cases = slices.DeleteFunc(cases, func(c badInputCase) bool { return c.want.field == "" })
	for i := range cases {
		cases[i].want.field = "positions[0].room"
	}
	return append(cases, []badInputCase{
		{"never sent", one(&reprisev1.Position{Room: "mine", Incarnation: w.latest.GetIncarnation(), Offset: w.latest.GetOffset() + 1}), badInputBeyond},
		{"never sent, huge", one(&reprisev1.Position{Room: "mine", Offset: math.MaxUint64}), badInputBeyond},
		{"another incarnation", one(&reprisev1.Position{Room: "mine", Incarnation: "i_other", Offset: w.latest.GetOffset()}), badInputBeyond},
		{"named twice", &reprisev1.AckRequest{Positions: []*reprisev1.Position{w.latest, w.latest}}, badInputField("positions[1].room", "is named twice")},
		{"too many", &reprisev1.AckRequest{Positions: make([]*reprisev1.Position, 1001)}, badInputField("positions", "at most 1000 entries, has 1001")},
		{"incarnation not ours", one(&reprisev1.Position{Room: "mine", Incarnation: "a\tb"}), badInputField("positions[0].incarnation", notOurs)},
		{"incarnation too long", one(&reprisev1.Position{Room: "mine", Incarnation: badInputLong}), badInputField("positions[0].incarnation", "more than 64 characters")},
		{"too many earlier", one(&reprisev1.Position{Room: "mine", Earlier: earlier}), badInputField("positions[0].earlier", "at most 8 entries, has 9")},
		{"earlier not ours", one(&reprisev1.Position{Room: "mine", Earlier: bad}), badInputField("positions[0].earlier[0].incarnation", notOurs)},
	}...)
}

func badInputMemberships() []badInputCase {
	create := func(change func(*reprisev1.CreateRoomRequest)) proto.Message {
		r := &reprisev1.CreateRoomRequest{Room: "new"}
		change(r)
		return r
	}
	age := func(d *durationpb.Duration) proto.Message {
		return create(func(r *reprisev1.CreateRoomRequest) { r.Retention = &reprisev1.Retention{MaxAge: d} })
	}
	exists := badInputWant{codes.AlreadyExists, "ROOM_EXISTS", "", "that name is taken"}
	cases := []badInputCase{
		{"title too long", create(func(r *reprisev1.CreateRoomRequest) { r.Title = strings.Repeat("x", 257) }), badInputField("title", "at most 256 bytes, has 257")},
		{"title of two lines", create(func(r *reprisev1.CreateRoomRequest) { r.Title = "a\r\nb" }), badInputField("title", `must be one line without control characters, has '\r'`)},
		{"title of two lines", create(func(r *reprisev1.CreateRoomRequest) { r.Title = "a\u2028b" }), badInputField("title", `must be one line without control characters, has '\u2028'`)},
		{"title with NUL", create(func(r *reprisev1.CreateRoomRequest) { r.Title = "\x00" }), badInputField("title", `must be one line without control characters, has '\x00'`)},
		{"title not UTF-8", create(func(r *reprisev1.CreateRoomRequest) { r.Title = badInputNotUTF8 }), badInputField("title", "must be valid UTF-8")},
		{"access unknown", create(func(r *reprisev1.CreateRoomRequest) { r.Access = 9 }), badInputField("access", "has no value 9")},
		{"too many members", create(func(r *reprisev1.CreateRoomRequest) { r.Members = make([]string, 101) }), badInputField("members", "at most 100 entries, has 101")},
		{"a member's name", create(func(r *reprisev1.CreateRoomRequest) { r.Members = []string{"ok", "not ok"} }), badInputField("members[1]", "without spaces")},
		{"age negative", age(durationpb.New(-time.Second)), badInputField("retention.max_age", "from 0 to 290 years")},
		{"age huge", age(&durationpb.Duration{Seconds: math.MaxInt64}), badInputField("retention.max_age", "from 0 to 290 years")},
		{"age invalid", age(&durationpb.Duration{Seconds: 1, Nanos: -1}), badInputField("retention.max_age", "from 0 to 290 years")},
		{"exists", create(func(r *reprisev1.CreateRoomRequest) { r.Room = "mine" }), exists},
		{"private", &reprisev1.JoinRoomRequest{Room: "theirs"}, exists},
		{"private taken", create(func(r *reprisev1.CreateRoomRequest) { r.Room = "theirs" }), exists},
		{"guest", &reprisev1.InviteMemberRequest{Room: "mine", User: "not ok"}, badInputField("user", "without spaces")},
		{"guest empty", &reprisev1.InviteMemberRequest{Room: "mine"}, badInputField("user", "1 to 128 bytes, has 0")},
		{"history", &reprisev1.JoinRoomRequest{Room: "mine", History: 1001}, badInputField("history", "must be at most 1000, is 1001")},
		{"history huge", &reprisev1.JoinRoomRequest{Room: "mine", History: math.MaxUint32}, badInputField("history", "must be at most 1000, is 4294967295")},
	}
	cases = append(cases, badInputNames("room", func(s string) proto.Message { return &reprisev1.CreateRoomRequest{Room: s} })...)
	cases = append(cases, badInputNames("room", func(s string) proto.Message { return &reprisev1.JoinRoomRequest{Room: s} })...)
	cases = append(cases, badInputRooms(func(s string) proto.Message { return &reprisev1.InviteMemberRequest{Room: s, User: "carol"} })...)
	return append(cases, badInputRooms(func(s string) proto.Message { return &reprisev1.LeaveRoomRequest{Room: s} })...)
}

// twins returns a request as a call and as a frame.
func (w *badInputWorld) twins(m proto.Message) (method, prefix string, frame *reprisev1.ClientFrame) {
	frame = &reprisev1.ClientFrame{RequestId: "bad"}
	switch m := m.(type) {
	case *reprisev1.SendMessageRequest:
		method, prefix, frame.Frame = "SendMessage", "send_message.", &reprisev1.ClientFrame_SendMessage{SendMessage: m}
	case *reprisev1.SendCustomRequest:
		method, prefix, frame.Frame = "SendCustom", "send_custom.", &reprisev1.ClientFrame_SendCustom{SendCustom: m}
	case *reprisev1.AckRequest:
		m.Via = &reprisev1.Via{SessionId: w.alice.welcome.GetSessionId(), Attach: w.alice.welcome.GetAttach()}
		method, prefix, frame.Frame = "Ack", "ack.", &reprisev1.ClientFrame_Ack{Ack: m}
	case *reprisev1.CreateRoomRequest:
		method, prefix, frame.Frame = "CreateRoom", "create_room.", &reprisev1.ClientFrame_CreateRoom{CreateRoom: m}
	case *reprisev1.JoinRoomRequest:
		method, prefix, frame.Frame = "JoinRoom", "join_room.", &reprisev1.ClientFrame_JoinRoom{JoinRoom: m}
	case *reprisev1.InviteMemberRequest:
		method, prefix, frame.Frame = "InviteMember", "invite_member.", &reprisev1.ClientFrame_InviteMember{InviteMember: m}
	case *reprisev1.LeaveRoomRequest:
		method, prefix, frame.Frame = "LeaveRoom", "leave_room.", &reprisev1.ClientFrame_LeaveRoom{LeaveRoom: m}
	}
	return method, prefix, frame
}

// TestBadInputTwins makes every mistake by call and by frame: both get the
// same answer, the stream goes on, and nothing else notices.
func TestBadInputTwins(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	before := w.snapshot(t)
	for kind, cases := range map[string][]badInputCase{
		"publish": badInputPublishes(), "ack": badInputAcks(w), "membership": badInputMemberships(),
	} {
		for _, c := range cases {
			method, prefix, frame := w.twins(c.message)
			t.Run(kind+"/"+method+"/"+c.name, func(t *testing.T) {
				err := w.call(t, "alice", method, badInputEncode(t, c.message), new(emptypb.Empty))
				c.want.checkStatus(t, "", err)
				w.alice.send(t, badInputEncode(t, frame))
				answer := w.alice.answer(t)
				c.want.checkFault(t, prefix, answer, "bad")
				if got := strings.TrimPrefix(answer.GetFault().GetMessage(), prefix); got != status.Convert(err).Message() {
					t.Errorf("the call says %q, the frame %q", status.Convert(err).Message(), got)
				}
				w.unharmed(t, before)
			})
		}
	}
}

// unharmed checks that nothing stored has changed and streams still work.
func (w *badInputWorld) unharmed(t *testing.T, before string) {
	t.Helper()
	w.alice.alive(t)
	w.bob.alive(t)
	if now := w.snapshot(t); now != before {
		t.Errorf("what is stored has changed:\n%s\nwas\n%s", now, before)
	}
}

// TestBadInputFrames makes the mistakes that only frames can make.
func TestBadInputFrames(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	before := w.snapshot(t)
	ack := &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{}}
	open := &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}
	second := badInputWant{codes.FailedPrecondition, "SECOND_OPEN", "", "open and resume may only be the first frame"}
	resume := &reprisev1.ClientFrame_Resume{Resume: &reprisev1.ResumeRequest{
		SessionId: w.alice.welcome.GetSessionId(), ResumeKey: w.alice.welcome.GetResumeKey(),
	}}
	large := &reprisev1.ClientFrame_SendMessage{SendMessage: &reprisev1.SendMessageRequest{Room: "mine", Text: strings.Repeat("x", 1<<20)}}
	encode := func(id string, f *reprisev1.ClientFrame) badInputRaw {
		f.RequestId = id
		return badInputEncode(t, f)
	}
	truncated := encode("bad", &reprisev1.ClientFrame{Frame: large})[:100]
	tooLarge := badInputWant{codes.ResourceExhausted, "FRAME_TOO_LARGE", "", "at most 1048576 are taken"}
	malformed := badInputWant{codes.InvalidArgument, "MALFORMED", "", "the bytes are not an encoded reprise.v1.ClientFrame"}
	// Unknown to this contract, as from a client of a later one.
	unknown := append(encode("bad", &reprisev1.ClientFrame{}), 0xa2, 0x06, 0x00)
	for _, c := range []struct {
		name string
		raw  badInputRaw
		id   string
		want badInputWant
	}{
		{"second open", encode("bad", &reprisev1.ClientFrame{Frame: open}), "bad", second},
		{"second resume", encode("bad", &reprisev1.ClientFrame{Frame: resume}), "bad", second},
		{"not set", encode("bad", &reprisev1.ClientFrame{}), "bad", badInputField("frame", "must be set to a frame that this server knows")},
		{"unknown", unknown, "bad", badInputField("frame", "must be set to a frame that this server knows")},
		{"empty", badInputRaw{}, "", badInputField("frame", "must be set")},
		{"request_id too long", encode(badInputLong, &reprisev1.ClientFrame{Frame: ack}), "", badInputField("request_id", "must have at most 64 characters, has 129")},
		{"request_id with a control character", encode("a\x1bb", &reprisev1.ClientFrame{Frame: ack}), "", badInputField("request_id", "may only have printable ASCII")},
		{"request_id not UTF-8", encode(badInputNotUTF8, &reprisev1.ClientFrame{Frame: ack}), "", badInputField("request_id", "may only have printable ASCII")},
		{"too large", encode("bad", &reprisev1.ClientFrame{Frame: large}), "bad", tooLarge},
		{"too large, bad request_id", encode("a\nb", &reprisev1.ClientFrame{Frame: large}), "", tooLarge},
		{"cut off", truncated, "bad", malformed},
		{"garbage", badInputRaw("\xff\xff\xff\xff garbage"), "", malformed},
		{"garbage after an id", append(encode("bad", &reprisev1.ClientFrame{}), 0xff), "bad", malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.alice.send(t, c.raw)
			c.want.checkFault(t, "", w.alice.answer(t), c.id)
			w.unharmed(t, before)
		})
	}
}

// TestBadInputFrameFarTooLarge sends frames beyond every limit: they are
// refused, and their stream goes on.
func TestBadInputFrameFarTooLarge(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	before := w.snapshot(t)
	want := badInputWant{codes.ResourceExhausted, "FRAME_TOO_LARGE", "", "at most 1048576 are taken"}
	for _, size := range []int{2<<20 + 1, 20 << 20} {
		w.alice.send(t, bytes.Repeat([]byte{0x0a}, size))
		want.checkFault(t, "", w.alice.answer(t), "")
		w.unharmed(t, before)
	}
}
