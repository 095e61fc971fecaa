package reprise

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// sending is a Send in the background.
type sending struct {
	receipt Receipt
	err     error
	done    chan struct{}
}

func send(ctx context.Context, c *Client, text string, opts ...SendOption) *sending {
	return sendTo(ctx, c, "a", text, opts...)
}

func sendTo(ctx context.Context, c *Client, room, text string, opts ...SendOption) *sending {
	s := &sending{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.receipt, s.err = c.Send(ctx, room, text, opts...)
	}()
	return s
}

func (s *sending) ok(t *testing.T, offset uint64) {
	t.Helper()
	<-s.done
	if s.err != nil || s.receipt.Offset != offset {
		t.Errorf("got %+v, %v; want offset %d", s.receipt, s.err, offset)
	}
}

// P4: over lost streams the client id stays the same, until there is a
// receipt.
func TestP4_SendIsRetriedWithOneClientID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.accept()
		p := send(t.Context(), c, "hello") // waits for the attachment
		synctest.Wait()
		s.welcome(1)
		frame := s.recv()
		id := frame.GetSendMessage().GetClientId()
		if frame.GetSendMessage().GetText() != "hello" || id == "" || frame.GetRequestId() == "" || frame.GetSendMessage().GetVia() != nil {
			t.Errorf("sent %v", frame)
		}
		for i := range 3 {
			f.cut()
			s = f.welcome(uint64(i + 2))
			frame = s.recv()
			want(t, "client id", frame.GetSendMessage().GetClientId(), id)
		}
		s.send(fault(frame.GetRequestId(), codes.ResourceExhausted, "RATE_LIMITED", 7*time.Second))
		before := time.Now()
		frame = s.recv()
		if waited := time.Since(before); waited != 7*time.Second {
			t.Errorf("waited %v, want the 7s of retry_after", waited)
		}
		want(t, "client id", frame.GetSendMessage().GetClientId(), id)
		s.send(sent(frame.GetRequestId(), 12))
		p.ok(t, 12)
		want(t, "client id", p.receipt.ClientID, id)
	})
}

func TestSendEndsWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		for reason, want := range map[string]error{
			"ROOM_NOT_FOUND": ErrRoomNotFound, "CLIENT_ID_REUSED": ErrClientIDReused, "INVALID_FIELD": ErrInvalid,
		} {
			code := map[string]codes.Code{
				"ROOM_NOT_FOUND": codes.NotFound, "CLIENT_ID_REUSED": codes.AlreadyExists, "INVALID_FIELD": codes.InvalidArgument,
			}[reason]
			p := send(t.Context(), c, "x", WithClientID("mine"))
			frame := s.recv()
			if frame.GetSendMessage().GetClientId() != "mine" {
				t.Errorf("sent %v", frame)
			}
			s.send(fault(frame.GetRequestId(), code, reason, 0))
			<-p.done
			var e *Error
			if !errors.Is(p.err, want) || !errors.As(p.err, &e) || e.Reason != reason {
				t.Errorf("got %v, want %v", p.err, want)
			}
		}
	})
}

func TestSendWhoseContextEndsHasAnUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := send(ctx, c, "x", WithClientID("mine"))
		s.recv()
		<-p.done
		var unknown *UnknownOutcomeError
		if !errors.As(p.err, &unknown) || unknown.ClientID != "mine" || !errors.Is(p.err, context.DeadlineExceeded) {
			t.Errorf("got %v", p.err)
		}
		// Nobody waits for the late receipt, and it harms nobody.
		s.send(sent("1", 1), heartbeat())
		s.recv()
		p = send(t.Context(), c, "y")
		s.send(sent(s.recv().GetRequestId(), 2))
		p.ok(t, 2)
	})
}

// Without Run a send is a call of its own, and is retried too.
func TestSendWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		var ids []string
		f.sendMessage = func(_ context.Context, r *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error) {
			if r.GetVia() != nil {
				t.Errorf("via %v", r.GetVia())
			}
			if ids = append(ids, r.GetClientId()); len(ids) < 3 {
				return nil, unavailable
			}
			return &reprisev1.SendMessageResponse{Room: "a", Offset: 5, Duplicate: true}, nil
		}
		c := f.client(f.config("one", "two"))
		p := send(t.Context(), c, "x")
		time.Sleep(time.Minute) // nobody listens
		f.start("two")
		p.ok(t, 5)
		if !p.receipt.Duplicate || len(ids) != 3 || ids[0] != ids[2] {
			t.Errorf("receipt %+v, client ids %v", p.receipt, ids)
		}
	})
}

func TestSendsInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		var all []*sending
		for range 40 {
			all = append(all, send(t.Context(), c, "x"))
		}
		for done := range all {
			synctest.Wait()
			if n := len(s.in) + min(done, 0); n > maxInFlight {
				t.Fatalf("%d frames in flight", n)
			}
			s.send(sent(s.recv().GetRequestId(), uint64(done+1)))
		}
		for _, p := range all {
			<-p.done
			if p.err != nil {
				t.Error(p.err)
			}
		}
	})
}

// Sequential sends are in order even if streams break in between.
func TestSequentialSendsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 50 {
				if _, err := c.Send(t.Context(), "a", fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			}
		}()
		var log []string // the server's, deduplicated by client id
		seen := map[string]bool{}
		s := f.welcome(1)
		for i := 0; ; i++ {
			var m *reprisev1.ClientFrame
			select {
			case m = <-s.in:
			case <-done:
				if len(log) != 50 {
					t.Errorf("stored %d messages", len(log))
				}
				for i, text := range log {
					want(t, "order", text, fmt.Sprint(i))
				}
				s.serveBye()
				return
			}
			if id := m.GetSendMessage().GetClientId(); !seen[id] {
				seen[id] = true
				log = append(log, m.GetSendMessage().GetText())
			}
			if i%7 == 3 { // it is stored, but the receipt is lost
				f.cut()
				s = f.welcome(uint64(i + 2))
				continue
			}
			s.send(sent(m.GetRequestId(), uint64(len(log))))
		}
	})
}

// A handler may send: when the frames before the receipt wait for the very
// handler, the same message goes as a call.
func TestHandlerMaySendWhileTheHandOverIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Window = 64 // bytes: one event fills it
		c := f.client(cfg)
		called := 0
		f.sendMessage = func(_ context.Context, r *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error) {
			called++
			if r.GetVia().GetSessionId() != "s_1" || r.GetVia().GetAttach() != 1 {
				t.Errorf("via %v", r.GetVia())
			}
			return &reprisev1.SendMessageResponse{Room: "a", Offset: 90}, nil
		}
		h := &recorder{}
		h.call = func(e Event) error {
			if e.Offset == 1 {
				receipt, err := c.Send(t.Context(), "a", "echo")
				if err == nil && receipt.Offset != 90 {
					err = fmt.Errorf("receipt %+v", receipt)
				}
				return err
			}
			return nil
		}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), events("a", "i1", 0, 1), events("a", "i1", 1, 2), events("a", "i1", 2, 3), events("a", "i1", 3, 4))
		want(t, "handled", h.take(), "a1r a2r a3r a4r")
		if called != 1 {
			t.Errorf("%d calls", called)
		}
	})
}

// P6: a slow handler costs bounded memory: the client stops reading, and the
// server stops sending. Nothing is lost.
func TestP6_SlowHandlerIsBoundedAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Window = -1 // the server does not hold back by itself
		c := f.client(cfg)
		h := &recorder{hold: make(chan struct{})}
		start(t, c, h)
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0))
		const total = 12000
		var mu sync.Mutex
		sentFrames := 0
		go func() {
			for i := range uint64(total) {
				s.trySend(events("a", "i1", i, i+1))
				mu.Lock()
				sentFrames++
				mu.Unlock()
			}
		}()
		synctest.Wait()
		mu.Lock()
		stuck := sentFrames
		mu.Unlock()
		// Each frame is about 50 bytes: hand-over, stream window, send quota and
		// the in-memory connection hold well under a megabyte together.
		if stuck >= total/2 {
			t.Errorf("the server could send %d of %d events to a client that handles none", stuck, total)
		}
		time.Sleep(time.Hour) // not reading is not silence of the server
		if got := c.State().Phase; got != Replaying && got != Live {
			t.Errorf("phase %v", got)
		}
		f.none(time.Minute)
		close(h.hold)
		synctest.Wait()
		if len(h.events) != total {
			t.Fatalf("handled %d of %d events", len(h.events), total)
		}
		for i, e := range h.events {
			if e.Offset != uint64(i+1) {
				t.Fatalf("event %d has offset %d", i, e.Offset)
			}
		}
	})
}

func TestCloseReleasesSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		c := f.client(f.config("one"))
		r := start(t, c, &recorder{})
		p := send(t.Context(), c, "x")
		synctest.Wait()
		c.Close()
		<-p.done
		if !errors.Is(p.err, ErrClosed) {
			t.Errorf("got %v", p.err)
		}
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := c.Send(t.Context(), "a", "x"); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSendCustom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r, err := c.SendCustom(t.Context(), "a", "poll.vote", `{"choice":1}`)
			if err != nil || r.Offset != 3 {
				t.Errorf("got %+v, %v", r, err)
			}
		}()
		frame := s.recv()
		if m := frame.GetSendCustom(); m.GetType() != "poll.vote" || m.GetData() != `{"choice":1}` || m.GetClientId() == "" {
			t.Errorf("sent %v", frame)
		}
		s.send(receipt(frame.GetRequestId(), &reprisev1.Receipt{Result: &reprisev1.Receipt_SendCustom{
			SendCustom: &reprisev1.SendCustomResponse{Room: "a", Offset: 3},
		}}))
		<-done
	})
}

// An acknowledgement that is refused as a whole, because one room was left,
// goes again room by room.
func TestRefusedAcknowledgementIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), roomState("b", "i1", 0), caughtUp("", "", 0), events("a", "i1", 0, 1), events("b", "i1", 0, 1))
		s.send(fault(s.recv().GetRequestId(), codes.NotFound, "ROOM_NOT_FOUND", 0))
		got := map[string]string{}
		for range 2 {
			for room, p := range s.ack() {
				got[room] = p
			}
		}
		if got["a"] != "i1/1" || got["b"] != "i1/1" {
			t.Errorf("acknowledged %v", got)
		}
		s.idle()
	})
}

// What came on an attachment is acknowledged at once when it fills half the
// window, else within ackDelay.
func TestAcknowledgementsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		cfg := f.config("one")
		cfg.Window = 4096
		c := f.client(cfg)
		start(t, c, &recorder{})
		s := f.welcome(1)
		s.send(roomState("a", "i1", 0), caughtUp("", "", 0))
		before := time.Now()
		for i := range uint64(10) {
			s.send(events("a", "i1", i, i+1))
		}
		s.idle()
		want(t, "acknowledged", s.ack()["a"], "i1/10")
		if waited := time.Since(before); waited != ackDelay {
			t.Errorf("acknowledged after %v", waited)
		}
		before = time.Now()
		for i := range uint64(70) {
			s.send(events("a", "i1", i+10, i+11))
		}
		s.ack()
		if waited := time.Since(before); waited != 0 {
			t.Errorf("half a window was acknowledged after %v", waited)
		}
	})
}
