package rpc

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

func encoded(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func zipped(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func reasonOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.reason.Name()
	}
	return ""
}

// TestBadFrames: a frame that cannot be taken is refused under the request_id
// that it begins with, however the transport has cut it up, and the next one
// is read; what is too large is not held.
func TestBadFrames(t *testing.T) {
	id := strings.Repeat("i", 64)
	frame := &reprisev1.ClientFrame{RequestId: id, Frame: &reprisev1.ClientFrame_SendMessage{
		SendMessage: &reprisev1.SendMessageRequest{Text: strings.Repeat("x", 5*testMaxFrame)},
	}}
	large := encoded(t, frame)
	bomb := append(encoded(t, &reprisev1.ClientFrame{RequestId: id}), 0x32, 0x90, 0x4e) // field 6, ack, of 10,000 bytes
	bomb = append(bomb, bytes.Repeat([]byte{0x12, 0}, 5000)...)
	good := &reprisev1.ClientFrame{RequestId: "good", Frame: &reprisev1.ClientFrame_Bye{Bye: &reprisev1.Bye{}}}
	for _, c := range []struct {
		flag         byte
		compression  string
		b            []byte
		id, reason   string
		at           string // field
		readsAtATime int
	}{
		{0, "", large, id, "FRAME_TOO_LARGE", "", 16 << 10},
		{0, "", large[:200], id, "MALFORMED", "", 200},
		{0, "", bomb, id, "INVALID_FIELD", "ack.positions", len(bomb)},
		{0, "", []byte{0xff}, "", "MALFORMED", "", 1},
		{1, "gzip", zipped(t, large[:testMaxFrame+1]), "", "FRAME_TOO_LARGE", "", 16 << 10},
		{1, "gzip", zipped(t, bomb), id, "INVALID_FIELD", "ack.positions", 16 << 10},
		{1, "gzip", bomb, "", "MALFORMED", "", len(bomb)},
		{1, "", bomb, "", "MALFORMED", "", len(bomb)},
		{2, "gzip", zipped(t, bomb), "", "MALFORMED", "", 16 << 10},
	} {
		for _, cut := range []int{1, 3, 66, 0} {
			w := &wire{compression: c.compression, sent: message(message(nil, c.flag, c.b), 0, encoded(t, good)), cut: cut}
			got := new(reprisev1.ClientFrame)
			r := readerOf(edge(0), w, got, true)
			var bad *badFrameError
			if err := r.next(got); !errors.As(err, &bad) || bad.reason.Name() != c.reason || bad.requestID != c.id {
				t.Fatalf("%s, cut at %d: %v", c.reason, cut, err)
			}
			if c.at != "" && (len(bad.fields) != 1 || bad.fields[0].GetField() != c.at) {
				t.Errorf("%s: the fields are %v", c.reason, bad.fields)
			}
			if w.most > c.readsAtATime {
				t.Errorf("%s: %d bytes were read at once", c.reason, w.most)
			}
			if err := r.next(got); err != nil || !proto.Equal(got, good) {
				t.Fatalf("%s, cut at %d: the next frame is %v, %v", c.reason, cut, got, err)
			}
			if err := r.next(got); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		}
	}
}

// TestRequestsAreBounded: a call's request that cannot be taken ends it before
// it is read, or before it is decoded.
func TestRequestsAreBounded(t *testing.T) {
	get := &reprisev1.GetRoomRequest{Room: "lobby"}
	room := message(nil, 0, encoded(t, get))
	for _, c := range []struct {
		name   string
		sent   []byte
		reason string
		taken  int
	}{
		{"too large", message(nil, 0, make([]byte, minRequest+1)), "FRAME_TOO_LARGE", 0},
		{"none", nil, "CARDINALITY", 0},
		{"two", append(bytes.Clone(room), room...), "CARDINALITY", len(room) - prefixLen},
		{"cut off", room[:len(room)-1], "MALFORMED", 0},
		{"cut off in its prefix", room[:3], "MALFORMED", 0},
		{"good", room, "", len(room) - prefixLen},
	} {
		w := &wire{sent: c.sent}
		got := new(reprisev1.GetRoomRequest)
		err := readerOf(edge(0), w, got, false).single(got)
		if reasonOf(err) != c.reason || w.taken != c.taken {
			t.Errorf("%s: %v, after %d bytes", c.name, err, w.taken)
		}
		if c.reason == "" && (err != nil || !proto.Equal(got, get)) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

// TestLimitsOfMethods: each method has the limit that its request needs.
func TestLimitsOfMethods(t *testing.T) {
	s := edge(0)
	for name, want := range map[string][2]int{
		"GetRoom":     {minRequest, minRequest},
		"LeaveRoom":   {minRequest, minRequest},
		"SendMessage": {2 * s.opts.MaxMessage, 2*s.opts.MaxMessage + 8<<10},
		"Ack":         {200 << 10, testMaxFrame},
		"Connect":     {testMaxFrame, testMaxFrame},
	} {
		if m := s.method("reprise.v1.ChatService", name, false); m.limit < want[0] || m.limit > want[1] {
			t.Errorf("%s takes %d bytes, not %v", name, m.limit, want)
		}
	}
}

// TestBudgets: what is read, and what is decoded, waits for its address's part
// of the budget, and is refused with a time to come again.
func TestBudgets(t *testing.T) {
	s := edge(0)
	s.decoding = budget{limit.NewBudget("bytes", 100<<10, 100<<10, time.Millisecond)}
	frame := &reprisev1.ClientFrame{Frame: &reprisev1.ClientFrame_SendMessage{
		SendMessage: &reprisev1.SendMessageRequest{Room: "lobby", Text: strings.Repeat("x", 60<<10)},
	}}
	sent := message(nil, 0, encoded(t, frame))
	first := readerOf(s, &wire{sent: append(bytes.Clone(sent), sent...)}, frame, true)
	got := new(reprisev1.ClientFrame)
	if err := first.next(got); err != nil || !proto.Equal(got, frame) {
		t.Fatal(err)
	}
	if used := s.decoding.Used(); used < 60<<10 || used > 70<<10 {
		t.Errorf("a text of 60 KiB counts as %d bytes", used)
	}
	var bad *badFrameError
	if err := receive(s, got, sent[prefixLen:], 0); !errors.As(err, &bad) || bad.reason != reason.RateLimited || bad.retry <= 0 {
		t.Fatalf("beyond the budget: %v", err)
	}
	// The first one's is given back when the next one is read.
	if err := first.next(got); err != nil {
		t.Fatal(err)
	}
	first.done()
	s.reading = budget{limit.NewBudget("bytes", 100<<10, 100<<10, time.Millisecond)}
	held, err := s.reading.lease(t.Context(), 100<<10)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{sent: sent}
	if err := readerOf(s, w, got, true).next(got); !errors.As(err, &bad) || bad.retry <= 0 || w.most > 16<<10 {
		t.Fatalf("beyond the budget: %v, after a read of %d", err, w.most)
	}
	held.Release()
	if s.decoding.Used() != 0 || s.reading.Used() != 0 {
		t.Errorf("%d and %d bytes are still held", s.reading.Used(), s.decoding.Used())
	}
}

// TestPenalty: refusals that cost little are answered at once only so often a
// second, and a user whose large requests are refused is not looked into
// further.
func TestPenalty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := edge(0)
		began := time.Now()
		for range 2 * freeRefusals {
			_ = receive(s, new(reprisev1.GetRoomRequest), []byte{0xff}, 0)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the first refusals took %v", took)
		}
		if err := receive(s, new(reprisev1.GetRoomRequest), []byte{0xff}, 0); reasonOf(err) != "MALFORMED" || time.Since(began) < penaltyTime/2 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := receive(s, new(reprisev1.GetRoomRequest), []byte("\x0a\x01a"), 0); err != nil || time.Since(began) != 0 {
			t.Errorf("a good one, after %v: %v", time.Since(began), err)
		}
		large := &reprisev1.ResumeRequest{Positions: make([]*reprisev1.Position, 8000)}
		sent := message(nil, 0, encoded(t, large))
		for i := range 2*freeLarge + 1 {
			got := new(reprisev1.ResumeRequest)
			r := readerOf(s, &wire{sent: sent}, got, false)
			err := r.single(got)
			if i < 2*freeLarge {
				if err != nil {
					t.Fatal(err)
				}
				err = checkResume(got, "", s.opts.maxPositions())
			} else if reasonOf(err) != "RATE_LIMITED" || len(got.GetPositions()) > 0 {
				t.Errorf("beyond the free ones: %v, with %d positions", err, len(got.GetPositions()))
			}
			synctest.Wait()
			go r.ended(err) // which waits
			synctest.Wait()
		}
		time.Sleep(time.Minute)
	})
}
