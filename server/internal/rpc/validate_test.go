package rpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// validate makes every check of a frame that needs no core.
func validate(s *Service, f *reprisev1.ClientFrame) error {
	switch w := f.GetFrame().(type) {
	case *reprisev1.ClientFrame_Open:
		return errors.Join(checkFirst(f), checkOpen(w.Open, "open."))
	case *reprisev1.ClientFrame_Resume:
		return errors.Join(checkFirst(f), checkResume(w.Resume, "resume.", s.opts.maxPositions()))
	case *reprisev1.ClientFrame_SendMessage:
		return errors.Join(checkFrame(f), checkMessage(w.SendMessage, "send_message.", s.opts.MaxMessage))
	case *reprisev1.ClientFrame_SendCustom:
		return errors.Join(checkFrame(f), checkCustom(w.SendCustom, "send_custom.", s.opts.MaxMessage))
	case *reprisev1.ClientFrame_Ack:
		return errors.Join(checkFrame(f), checkAck(w.Ack, "ack."))
	case *reprisev1.ClientFrame_CreateRoom:
		return errors.Join(checkFrame(f), checkCreate(w.CreateRoom, "create_room."))
	case *reprisev1.ClientFrame_JoinRoom:
		return errors.Join(checkFrame(f), checkJoin(w.JoinRoom, "join_room.", true))
	case *reprisev1.ClientFrame_InviteMember:
		return errors.Join(checkFrame(f), checkInvite(w.InviteMember, "invite_member."))
	case *reprisev1.ClientFrame_LeaveRoom:
		return errors.Join(checkFrame(f), checkLeave(w.LeaveRoom, "leave_room."))
	default:
		return checkFrame(f)
	}
}

// FuzzClientFrame decodes and validates what a client might send. Nothing
// panics; what is valid is plain text that encodes again, and is valid again;
// a refusal can be sent, as a Fault and as a status.
func FuzzClientFrame(f *testing.F) {
	for _, frame := range []*reprisev1.ClientFrame{
		{RequestId: "1", Frame: &reprisev1.ClientFrame_Open{Open: &reprisev1.OpenRequest{InstanceId: "i", History: 10, Focus: []string{"lobby"}, Window: 1}}},
		{Frame: &reprisev1.ClientFrame_Resume{Resume: &reprisev1.ResumeRequest{
			SessionId: "s_a", ResumeKey: "rk_a", Checkpoint: "cp_1", Takeover: 3,
			Positions: []*reprisev1.Position{{Room: "lobby", Incarnation: "i_a", Offset: 7, Earlier: []*reprisev1.Stretch{{Incarnation: "i_b", Offset: 1}}}},
		}}},
		{RequestId: "2", Frame: &reprisev1.ClientFrame_SendMessage{SendMessage: &reprisev1.SendMessageRequest{Room: "lobby", ClientId: "1", Text: "hello"}}},
		{RequestId: "3", Frame: &reprisev1.ClientFrame_SendCustom{SendCustom: &reprisev1.SendCustomRequest{Room: "lobby", Type: "t", Data: "{}"}}},
		{RequestId: "4", Frame: &reprisev1.ClientFrame_Ack{Ack: &reprisev1.AckRequest{Positions: []*reprisev1.Position{{Room: "lobby", Offset: 1}}}}},
		{RequestId: "5", Frame: &reprisev1.ClientFrame_CreateRoom{CreateRoom: &reprisev1.CreateRoomRequest{Room: "lobby", Title: "Lobby", Members: []string{"bob"}, Retention: &reprisev1.Retention{MaxEvents: 1}}}},
		{RequestId: "6", Frame: &reprisev1.ClientFrame_JoinRoom{JoinRoom: &reprisev1.JoinRoomRequest{Room: "lobby", History: 10}}},
		{RequestId: "8", Frame: &reprisev1.ClientFrame_InviteMember{InviteMember: &reprisev1.InviteMemberRequest{Room: "lobby", User: "bob"}}},
		{RequestId: "7", Frame: &reprisev1.ClientFrame_LeaveRoom{LeaveRoom: &reprisev1.LeaveRoomRequest{Room: "lobby"}}},
		{Frame: &reprisev1.ClientFrame_Bye{Bye: &reprisev1.Bye{EndSession: true}}},
	} {
		b, err := proto.Marshal(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 0xff))
	}
	f.Add([]byte("\x0a\x01\xff"))
	s := patient()
	f.Fuzz(func(t *testing.T, b []byte) {
		frame := new(reprisev1.ClientFrame)
		err := receive(s, frame, b, 7)
		if err == nil {
			err = validate(s, frame)
		}
		if err != nil {
			checkRefusal(t, err)
			return
		}
		clearVia(frame)
		again, err := proto.Marshal(frame)
		if err != nil {
			t.Fatalf("valid, but: %v", err)
		}
		second := new(reprisev1.ClientFrame)
		if err := receive(s, second, again, 0); err != nil || !proto.Equal(frame, second) || validate(s, second) != nil {
			t.Fatalf("%v comes back as %v, %v", frame, second, validate(s, second))
		}
	})
}

// clearVia removes the one field that nobody looks at in a frame: the stream
// says who speaks.
func clearVia(f *reprisev1.ClientFrame) {
	m := f.ProtoReflect()
	if fd := m.WhichOneof(m.Descriptor().Oneofs().ByName("frame")); fd != nil {
		if via := fd.Message().Fields().ByName("via"); via != nil {
			m.Mutable(fd).Message().Clear(via)
		}
	}
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	r := refuse(err)
	if r.reason == reason.Internal {
		t.Fatalf("bad input is called the server's fault: %v", err)
	}
	if _, err := proto.Marshal(r.fault("id")); err != nil {
		t.Fatalf("the Fault cannot be sent: %v", err)
	}
	if s := r.GRPCStatus(); len(s.Details()) == 0 {
		t.Fatalf("the status has no details: %v", s)
	}
}

// FuzzPositions: positions that are valid are within every bound.
func FuzzPositions(f *testing.F) {
	for _, ps := range [][]*reprisev1.Position{
		{{Room: "lobby", Incarnation: "i_a", Offset: 7}},
		{{Room: "a"}, {Room: "a"}},
		{{Room: "a", Earlier: make([]*reprisev1.Stretch, 9)}},
		make([]*reprisev1.Position, 4),
	} {
		b, err := proto.Marshal(&reprisev1.AckRequest{Positions: ps})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(3))
	}
	s := patient()
	f.Fuzz(func(t *testing.T, b []byte, bound byte) {
		r := new(reprisev1.AckRequest)
		if err := receive(s, r, b, 0); err != nil {
			checkRefusal(t, err)
			return
		}
		var v violations
		v.positions(r.GetPositions(), int(bound))
		if err := v.err(); err != nil {
			checkRefusal(t, err)
			return
		}
		var rooms []string
		for _, p := range r.GetPositions() {
			rooms = append(rooms, p.GetRoom())
			if len(p.GetRoom()) > 128 || len(p.GetIncarnation()) > maxIncarnation || len(p.GetEarlier()) > maxEarlier {
				t.Fatalf("valid: %v", p)
			}
		}
		slices.Sort(rooms)
		if len(rooms) > int(bound) || len(slices.Compact(rooms)) != len(r.GetPositions()) {
			t.Fatalf("valid under the bound %d: %q", bound, rooms)
		}
	})
}

// FuzzPageToken: every token that is taken is the one that was given out.
func FuzzPageToken(f *testing.F) {
	f.Add(pageToken("lobby"))
	f.Add("pt_")
	f.Add("pt_bG9i\nYnk")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		var v violations
		from := v.token(token)
		if err := v.err(); err != nil {
			checkRefusal(t, err)
		} else if last, ok := strings.CutSuffix(from, "\x00"); token != "" && (!ok || pageToken(last) != token) {
			t.Fatalf("%q is taken for what begins at %q, whose token is %q", token, from, pageToken(last))
		}
	})
}

// TestRefusals: every error of the core that is known has its own code and
// reason, and says what to do.
func TestRefusals(t *testing.T) {
	for _, k := range known {
		r := refuse(errors.Join(errors.New("context"), k.err))
		s := status.Convert(r)
		if r.reason != k.reason || s.Code() != k.reason.Code() || s.Code() == codes.Unknown || len(s.Message()) < 20 {
			t.Errorf("%v is %v", k.err, r)
		}
		if fault := r.fault("").GetFault(); (fault.GetRetryAfter() != nil) != k.reason.Retries() {
			t.Errorf("%v: again after %v", k.err, fault.GetRetryAfter())
		}
	}
	if r := refuse(errors.New("secret")); r.reason != reason.Internal || r.message == "secret" || r.cause == nil {
		t.Errorf("an unknown error is %v", r)
	}
}

// TestViolationsFitIntoHeaders: however much is wrong, and whatever the names
// are, the details stay small enough for clients that take 8 KiB of headers,
// and say how much they leave out. A positions list of 1,000 bad entries made
// 70 KB.
func TestViolationsFitIntoHeaders(t *testing.T) {
	for name, bad := range map[string]string{"short": "a b", "long": strings.Repeat("\u8a9e ", 500), "not UTF-8": strings.Repeat("\xff", 300)} {
		var positions []*reprisev1.Position
		for range 1000 {
			positions = append(positions, &reprisev1.Position{Room: bad, Incarnation: bad})
		}
		v := violations{prefix: "resume."}
		v.positions(positions, minPositions)
		r := refuse(v.err())
		s := r.GRPCStatus()
		b, err := proto.Marshal(s.Proto())
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 4<<10 {
			t.Errorf("%s: the details have %d bytes", name, len(b))
		}
		// Each position has two bad fields, and all but the first are named
		// twice.
		said := fmt.Sprintf("; and %d more violations, beyond the %d named", 3*1000-1-len(r.fields), len(r.fields))
		if !strings.HasSuffix(s.Message(), said) || len(r.fields) == 0 || len(r.fields) > 20 {
			t.Errorf("%s: %d named, and the message is %q", name, len(r.fields), s.Message())
		}
		if _, err := proto.Marshal(r.fault("id")); err != nil {
			t.Errorf("%s: the Fault cannot be sent: %v", name, err)
		}
	}
	var v violations
	for i := range 20 {
		v.add(fmt.Sprint("f", i), "is wrong")
	}
	if r := refuse(v.err()); len(r.fields) != 20 || r.message != "f0 is wrong" {
		t.Errorf("20 violations: %d named, %q", len(r.fields), r.message)
	}
}
