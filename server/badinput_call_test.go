package server_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server"
)

// badInputReads are the mistakes in calls that have no frame, by method.
func badInputReads() map[string][]badInputCase {
	var events, rooms, members []badInputCase
	for _, n := range []int32{-1, math.MinInt32, 1001, math.MaxInt32} {
		says := fmt.Sprintf("must be at most 1000, is %d", n)
		if n < 0 {
			says = fmt.Sprintf("must not be negative, is %d", n)
		}
		name := fmt.Sprint("size ", n)
		events = append(events, badInputCase{name, &reprisev1.ListEventsRequest{Room: "mine", Limit: n}, badInputField("limit", says)})
		rooms = append(rooms, badInputCase{name, &reprisev1.ListRoomsRequest{PageSize: n}, badInputField("page_size", says)})
		members = append(members, badInputCase{name, &reprisev1.ListMembersRequest{Room: "mine", PageSize: n}, badInputField("page_size", says)})
	}
	encoded := func(s string) string { return "pt_" + base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for i, token := range []string{"x", "pt", "pt_!", "pt_" + badInputNotUTF8, encoded("mine") + "=", encoded("mine") + "\n"} {
		name, want := fmt.Sprint("token ", i), badInputField("page_token", "is not one that the server gave out (next_page_token)")
		rooms = append(rooms, badInputCase{name, &reprisev1.ListRoomsRequest{PageToken: token}, want})
		members = append(members, badInputCase{name, &reprisev1.ListMembersRequest{Room: "mine", PageToken: token}, want})
	}
	for _, r := range [][2]uint64{{5, 5}, {5, 4}, {math.MaxUint64, 1}} {
		events = append(events, badInputCase{
			fmt.Sprint("range ", r), &reprisev1.ListEventsRequest{Room: "mine", After: r[0], Before: r[1]},
			badInputField("before", fmt.Sprintf("must be greater than after (%d), or 0", r[0])),
		})
	}
	events = append(events, badInputRooms(func(s string) proto.Message { return &reprisev1.ListEventsRequest{Room: s} })...)
	members = append(members, badInputRooms(func(s string) proto.Message { return &reprisev1.ListMembersRequest{Room: s} })...)
	return map[string][]badInputCase{
		"ListEvents": events, "ListRooms": rooms, "ListMembers": members,
		"GetRoom": badInputRooms(func(s string) proto.Message { return &reprisev1.GetRoomRequest{Room: s} }),
	}
}

// badInputVias are the mistakes that a Via adds to the calls that take one.
func badInputVias(foreign string) []badInputCase {
	const notOurs = `is not one that the server gave out: those begin with "s_"`
	var cases []badInputCase
	for _, c := range []struct {
		name, session string
		want          badInputWant
	}{
		{"empty", "", badInputField("via.session_id", "must be set; it is in the Welcome")},
		{"not ours", "x", badInputField("via.session_id", notOurs)},
		{"control character", "s_\x00", badInputField("via.session_id", notOurs)},
		{"not UTF-8", "s_" + badInputNotUTF8, badInputField("via.session_id", notOurs)},
		{"too long", "s_" + badInputLong, badInputField("via.session_id", "must have at most 64 characters, has 131")},
		{"unknown", "s_aaaaaaaaaaaaaaaa", badInputNoSession},
		{"of another user", foreign, badInputNoSession},
	} {
		cases = append(cases, badInputCase{c.name, &reprisev1.SendMessageRequest{Via: &reprisev1.Via{SessionId: c.session}, Room: "mine", Text: "x"}, c.want})
	}
	return cases
}

func badInputSessions(foreign string) []badInputCase {
	var cases []badInputCase
	for _, c := range badInputVias(foreign) {
		c.message = &reprisev1.EndSessionRequest{SessionId: c.message.(*reprisev1.SendMessageRequest).GetVia().GetSessionId()}
		c.want.field = strings.TrimPrefix(c.want.field, "via.")
		cases = append(cases, c)
	}
	return cases
}

// TestBadInputCalls makes the mistakes that only calls can make.
func TestBadInputCalls(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	before := w.snapshot(t)
	methods := badInputReads()
	methods["SendMessage"] = append(badInputVias(w.bob.welcome.GetSessionId()), badInputCase{
		"too large", &reprisev1.SendMessageRequest{Room: "mine", Text: strings.Repeat("x", 1<<20)},
		// Each method has its own limit; this one's is about twice a text's.
		badInputWant{codes.ResourceExhausted, "FRAME_TOO_LARGE", "", "at most 13"},
	})
	methods["EndSession"] = badInputSessions(w.bob.welcome.GetSessionId())
	methods["Ack"] = []badInputCase{{"no via", &reprisev1.AckRequest{}, badInputField("via", "must be set")}}
	methods["JoinRoom"] = []badInputCase{{"history without via", &reprisev1.JoinRoomRequest{Room: "mine", History: 1}, badInputField("history", "needs via")}}
	for method, cases := range methods {
		for _, c := range cases {
			t.Run(method+"/"+c.name, func(t *testing.T) {
				err := w.call(t, "alice", method, badInputEncode(t, c.message), new(emptypb.Empty))
				c.want.checkStatus(t, "", err)
				w.unharmed(t, before)
			})
		}
	}
	t.Run("garbage", func(t *testing.T) {
		err := w.call(t, "alice", "GetRoom", badInputRaw("\xff garbage"), new(emptypb.Empty))
		want := badInputWant{codes.InvalidArgument, "MALFORMED", "", "are not an encoded reprise.v1.GetRoomRequest"}
		want.checkStatus(t, "", err)
	})
}

// TestBadInputSameAnswer compares all of what a stranger is told of a thing of
// others with what is said of a thing that is not there.
func TestBadInputSameAnswer(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	via := func(id string) *reprisev1.Via { return &reprisev1.Via{SessionId: id, Attach: 1} }
	theirs, none := w.bob.welcome.GetSessionId(), "s_aaaaaaaaaaaaaaaa"
	for _, c := range []struct {
		method           string
		hidden, notThere proto.Message
	}{
		{"GetRoom", &reprisev1.GetRoomRequest{Room: "theirs"}, &reprisev1.GetRoomRequest{Room: "nowhere"}},
		{"ListEvents", &reprisev1.ListEventsRequest{Room: "theirs"}, &reprisev1.ListEventsRequest{Room: "nowhere"}},
		{"ListMembers", &reprisev1.ListMembersRequest{Room: "theirs"}, &reprisev1.ListMembersRequest{Room: "nowhere"}},
		{"LeaveRoom", &reprisev1.LeaveRoomRequest{Room: "theirs"}, &reprisev1.LeaveRoomRequest{Room: "nowhere"}},
		{"InviteMember", &reprisev1.InviteMemberRequest{Room: "theirs", User: "eve"}, &reprisev1.InviteMemberRequest{Room: "nowhere", User: "eve"}},
		{"SendMessage", &reprisev1.SendMessageRequest{Room: "theirs", Text: "x", ClientId: "1"}, &reprisev1.SendMessageRequest{Room: "nowhere", Text: "x", ClientId: "1"}},
		{"EndSession", &reprisev1.EndSessionRequest{SessionId: theirs}, &reprisev1.EndSessionRequest{SessionId: none}},
		{"Ack", &reprisev1.AckRequest{Via: via(theirs)}, &reprisev1.AckRequest{Via: via(none)}},
		{"JoinRoom", &reprisev1.JoinRoomRequest{Via: via(theirs), Room: "mine"}, &reprisev1.JoinRoomRequest{Via: via(none), Room: "mine"}},
	} {
		hidden := status.Convert(w.call(t, "alice", c.method, badInputEncode(t, c.hidden), new(emptypb.Empty)))
		notThere := status.Convert(w.call(t, "alice", c.method, badInputEncode(t, c.notThere), new(emptypb.Empty)))
		if hidden.Code() != codes.NotFound || !proto.Equal(hidden.Proto(), notThere.Proto()) {
			t.Errorf("%s says %v of what is hidden, and %v of what is not there", c.method, hidden, notThere)
		}
	}
	// A key of another user says the same whether the session is there or not.
	var answers []*status.Status
	for _, id := range []string{theirs, none} {
		r := &reprisev1.ResumeRequest{SessionId: id, ResumeKey: w.bob.welcome.GetResumeKey()}
		answers = append(answers, status.Convert(w.stream(t, badInputContext(t, "Bearer dev:alice"), "Resume", badInputEncode(t, r)).end(t)))
	}
	if !proto.Equal(answers[0].Proto(), answers[1].Proto()) {
		t.Errorf("%v of a session that is hidden, %v of one that is not there", answers[0], answers[1])
	}
}

// badInputAttaches are the mistakes in open and resume.
func badInputAttaches(own, other *reprisev1.Welcome) []badInputCase {
	resume := func(change func(*reprisev1.ResumeRequest)) proto.Message {
		r := &reprisev1.ResumeRequest{SessionId: own.GetSessionId(), ResumeKey: own.GetResumeKey()}
		change(r)
		return r
	}
	at := func(ps ...*reprisev1.Position) func(*reprisev1.ResumeRequest) {
		return func(r *reprisev1.ResumeRequest) { r.Positions = ps }
	}
	key := func(s string) proto.Message { return resume(func(r *reprisev1.ResumeRequest) { r.ResumeKey = s }) }
	notKey := badInputField("resume_key", `is not one that the server gave out: those begin with "rk_"`)
	checkpoint := func(s string) proto.Message { return resume(func(r *reprisev1.ResumeRequest) { r.Checkpoint = s }) }
	mine := &reprisev1.Position{Room: "mine", Offset: 1}
	cases := []badInputCase{
		{"history", &reprisev1.OpenRequest{History: 1001}, badInputField("history", "must be at most 1000, is 1001")},
		{"too many in focus", &reprisev1.OpenRequest{Focus: make([]string, 101)}, badInputField("focus", "at most 100 entries, has 101")},
		{"focus", &reprisev1.OpenRequest{Focus: []string{"mine", "a b"}}, badInputField("focus[1]", "without spaces, not ' '")},
		{"no session", resume(func(r *reprisev1.ResumeRequest) { r.SessionId = "" }), badInputField("session_id", "must be set")},
		{"not a session", resume(func(r *reprisev1.ResumeRequest) { r.SessionId = "s_ " }), badInputField("session_id", "is not one that the server gave out")},
		{"session too long", resume(func(r *reprisev1.ResumeRequest) { r.SessionId = "s_" + badInputLong }), badInputField("session_id", "at most 64 characters")},
		{"key of another user", key(other.GetResumeKey()), badInputWant{codes.PermissionDenied, "RESUME_KEY_NOT_YOURS", "", "this resume key belongs to another user"}},
		{"no key", key(""), badInputField("resume_key", "must be set; it is in the Welcome")},
		{"not a key", key("key"), notKey},
		{"key cut off", key(own.GetResumeKey()[:20]), notKey},
		{"key and more", key(own.GetResumeKey() + "A"), notKey},
		{"key not UTF-8", key("rk_" + badInputNotUTF8), notKey},
		{"takeover", resume(func(r *reprisev1.ResumeRequest) { r.Takeover = 9 }), badInputField("takeover", "has no value 9")},
		{"too many positions", resume(at(make([]*reprisev1.Position, 8001)...)), badInputField("positions", "at most 8000 entries, has 8001")},
		{"named twice", resume(at(mine, mine)), badInputField("positions[1].room", "is named twice")},
		{"position of no room", resume(at(&reprisev1.Position{Offset: 1})), badInputField("positions[0].room", "1 to 128 bytes, has 0")},
		{"checkpoint not ours", checkpoint("17"), badInputField("checkpoint", `those begin with "cp_"`)},
		{"checkpoint with a space", checkpoint("cp_ 1"), badInputField("checkpoint", "is not one that the server gave out")},
		{"checkpoint too long", checkpoint("cp_" + badInputLong), badInputField("checkpoint", "at most 64 characters, has 132")},
		{"checkpoint unknown", checkpoint("cp_zzzzz"), badInputWant{codes.FailedPrecondition, "POSITIONS_NEEDED", "", "resume with all your positions and no checkpoint"}},
	}
	return append(cases, badInputIDs("instance_id", 64, func(s string) proto.Message { return &reprisev1.OpenRequest{InstanceId: s} })...)
}

// TestBadInputAttach makes mistakes in open and resume, as a call and as a
// first frame.
func TestBadInputAttach(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	before := w.snapshot(t)
	for _, c := range badInputAttaches(w.alice.welcome, w.bob.welcome) {
		t.Run(c.name, func(t *testing.T) {
			method, prefix, frame := "Open", "open.", new(reprisev1.ClientFrame)
			switch m := c.message.(type) {
			case *reprisev1.OpenRequest:
				frame.Frame = &reprisev1.ClientFrame_Open{Open: m}
			case *reprisev1.ResumeRequest:
				method, prefix = "Resume", "resume."
				frame.Frame = &reprisev1.ClientFrame_Resume{Resume: m}
			}
			ctx := badInputContext(t, "Bearer dev:alice")
			c.want.checkStatus(t, "", w.stream(t, ctx, method, badInputEncode(t, c.message)).end(t))
			c.want.checkStatus(t, prefix, w.stream(t, ctx, "Connect", badInputEncode(t, frame)).end(t))
			w.unharmed(t, before)
		})
	}
}

func TestBadInputFirstFrame(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	before := w.snapshot(t)
	first := badInputWant{codes.FailedPrecondition, "FIRST_FRAME", "", "the first frame must be open or resume"}
	send := &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_SendMessage{SendMessage: &reprisev1.SendMessageRequest{Room: "mine", Text: "x"}}}
	badID := &reprisev1.ClientFrame{RequestId: "a\nb", Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{}}}
	for name, c := range map[string]struct {
		raw  badInputRaw
		want badInputWant
	}{
		"another frame": {badInputEncode(t, send), first},
		"bye":           {badInputEncode(t, &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_Bye{Bye: &reprisev1.Bye{}}}), first},
		"not set":       {badInputRaw{}, first},
		"nothing":       {nil, first},
		"request_id":    {badInputEncode(t, badID), badInputField("request_id", "may only have printable ASCII")},
		"garbage":       {badInputRaw("\xff"), badInputWant{codes.InvalidArgument, "MALFORMED", "", "are not an encoded reprise.v1.ClientFrame"}},
		"too large":     {make(badInputRaw, 1<<20+1), badInputWant{codes.ResourceExhausted, "FRAME_TOO_LARGE", "", "has 1048577 bytes; at most 1048576"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.stream(t, badInputContext(t, "Bearer dev:alice"), "Connect")
			if c.raw == nil {
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
			} else {
				s.send(t, c.raw)
			}
			c.want.checkStatus(t, "", s.end(t))
			w.unharmed(t, before)
		})
	}
}

func TestBadInputTail(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	tail := func(r *reprisev1.TailRequest) *badInputStream {
		return w.stream(t, badInputContext(t, "Bearer dev:alice"), "Tail", badInputEncode(t, r))
	}
	for _, c := range append(badInputRooms(func(s string) proto.Message { return &reprisev1.TailRequest{Room: s} }),
		badInputCase{"last", &reprisev1.TailRequest{Room: "mine", Last: 10001}, badInputField("last", "must be at most 10000, is 10001")},
		badInputCase{"last huge", &reprisev1.TailRequest{Room: "mine", Last: math.MaxUint32}, badInputField("last", "must be at most 10000")},
		badInputCase{"incarnation", &reprisev1.TailRequest{Room: "mine", Incarnation: "a b"}, badInputField("incarnation", "is not one that the server gave out")},
	) {
		t.Run(c.name, func(t *testing.T) { c.want.checkStatus(t, "", tail(c.message.(*reprisev1.TailRequest)).end(t)) })
	}
	// A position that is not in the log is no mistake.
	for _, r := range []*reprisev1.TailRequest{
		{Room: "mine", After: math.MaxUint64, Limit: math.MaxUint64},
		{Room: "mine", After: math.MaxUint64, Incarnation: w.latest.GetIncarnation()},
		{Room: "mine", After: 1, Incarnation: "i_other"},
	} {
		s := tail(r)
		if f := s.next(t).GetRewind(); f == nil || f.GetTo() > w.latest.GetOffset() {
			t.Errorf("%v is answered with %v", r, f)
		}
		if err := s.end(t); !errors.Is(err, io.EOF) {
			t.Errorf("%v ends with %v", r, err)
		}
	}
	// Nor is a range without events.
	var events reprisev1.ListEventsResponse
	for _, after := range []uint64{math.MaxUint64, math.MaxUint64 - 1, w.latest.GetOffset()} {
		r := &reprisev1.ListEventsRequest{Room: "mine", After: after, Newest: after%2 == 0}
		if err := w.call(t, "alice", "ListEvents", badInputEncode(t, r), &events); err != nil || len(events.GetStretches()) > 0 || events.GetMore() {
			t.Errorf("ListEvents after %d: %v, %v", after, &events, err)
		}
	}
}

func TestBadInputToken(t *testing.T) {
	t.Parallel()
	w := badInputStart(t)
	missing := badInputWant{codes.Unauthenticated, "TOKEN_MISSING", "", `send metadata "authorization: Bearer TOKEN"`}
	invalid := badInputWant{codes.Unauthenticated, "TOKEN_INVALID", "", `send one metadata "authorization: Bearer TOKEN"`}
	notAUser := func(says string) badInputWant {
		return badInputWant{codes.Unauthenticated, "TOKEN_INVALID", "", says}
	}
	for _, c := range []struct {
		name   string
		tokens []string
		want   badInputWant
	}{
		{"none", nil, missing},
		{"empty", []string{"Bearer "}, missing},
		{"no scheme", []string{"dev:alice"}, invalid},
		{"another scheme", []string{"Basic dev:alice"}, invalid},
		{"not a token", []string{"Bearer alice"}, invalid},
		{"no name", []string{"Bearer dev:"}, notAUser("must have 1 to 128 bytes, has 0")},
		{"name with a space", []string{"Bearer dev:al ice"}, notAUser("ASCII without spaces, not ' '")},
		{"name too long", []string{"Bearer dev:" + badInputLong}, notAUser("must have 1 to 128 bytes, has 129")},
		{"name with an encoded NUL", []string{"Bearer dev:a%00"}, notAUser(`not '\x00'`)},
		{"half an escape", []string{"Bearer dev:a%f"}, invalid},
		{"token too long", []string{"Bearer dev:" + strings.Repeat("x", 9<<10)}, invalid},
		{"two", []string{"Bearer dev:alice", "Bearer dev:bob"}, invalid},
		{"the same twice", slices.Repeat([]string{"Bearer dev:alice"}, 2), invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := badInputContext(t, c.tokens...)
			c.want.checkStatus(t, "", w.conn.Invoke(ctx, "/reprise.v1.ChatService/ListRooms", badInputRaw{}, new(emptypb.Empty)))
			for _, method := range []string{"Connect", "Open", "Resume", "Tail"} {
				c.want.checkStatus(t, "", w.stream(t, ctx, method).end(t))
			}
		})
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "bearer dev:alice")
	if err := w.conn.Invoke(ctx, "/reprise.v1.ChatService/ListRooms", badInputRaw{}, new(emptypb.Empty)); err != nil {
		t.Errorf("a scheme in small letters: %v", err)
	}
}

// TestBadInputRangeBeforeOldest asks for a range that retention has removed:
// the Gap covers what was asked for and no more.
func TestBadInputRangeBeforeOldest(t *testing.T) {
	t.Parallel()
	w := badInputServe(t, server.Options{TrimEvery: time.Millisecond})
	w.must(t, "alice", "CreateRoom", &reprisev1.CreateRoomRequest{Room: "mine", Retention: &reprisev1.Retention{MaxEvents: 1}})
	for range 8 {
		w.must(t, "alice", "SendMessage", &reprisev1.SendMessageRequest{Room: "mine", Text: "x"})
	}
	list := func(r *reprisev1.ListEventsRequest) *reprisev1.ListEventsResponse {
		out := new(reprisev1.ListEventsResponse)
		if err := w.call(t, "alice", "ListEvents", badInputEncode(t, r), out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	whole := list(&reprisev1.ListEventsRequest{Room: "mine"})
	for whole.GetOldest() != 10 { // trimming runs in the background
		whole = list(&reprisev1.ListEventsRequest{Room: "mine"})
	}
	if g := whole.GetGap(); g.GetFirst() != 1 || g.GetLast() != 9 || g.GetIncarnation() == "" {
		t.Errorf("the gap of the whole room is %v", g)
	}
	part := list(&reprisev1.ListEventsRequest{Room: "mine", After: 2, Before: 5})
	if g := part.GetGap(); g.GetFirst() != 3 || g.GetLast() != 4 || len(part.GetStretches()) > 0 || part.GetMore() {
		t.Errorf("the range (2, 5) is answered with %v", part)
	}
}

// TestBadInputTooManyRooms has as many rooms as one may have: another is
// refused, and joining one of them again is not.
func TestBadInputTooManyRooms(t *testing.T) {
	t.Parallel()
	w := badInputServe(t, server.Options{Limits: server.Limits{RoomsPerUser: 1}})
	w.must(t, "alice", "JoinRoom", &reprisev1.JoinRoomRequest{Room: "first"})
	want := badInputWant{codes.ResourceExhausted, "TOO_MANY_ROOMS", "", "at most 1 are allowed: leave one (LeaveRoom)"}
	for method, m := range map[string]proto.Message{
		"JoinRoom": &reprisev1.JoinRoomRequest{Room: "second"}, "CreateRoom": &reprisev1.CreateRoomRequest{Room: "second"},
	} {
		want.checkStatus(t, "", w.call(t, "alice", method, badInputEncode(t, m), new(emptypb.Empty)))
	}
	w.must(t, "alice", "JoinRoom", &reprisev1.JoinRoomRequest{Room: "first"})
}
