package reprise

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// What no server would take is refused at once, with the field, and nothing is
// sent: here nobody listens, so whatever was sent would wait for ever.
func TestWhatNobodyTakesIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		c := f.client(f.config("one"))
		ctx := t.Context()
		for name, call := range map[string]func() error{
			"room":        func() error { _, err := c.Send(ctx, "a b", "x"); return err },
			"room empty":  func() error { _, err := c.Send(ctx, "", "x"); return err },
			"room long":   func() error { _, err := c.Send(ctx, strings.Repeat("x", 129), "x"); return err },
			"room form":   func() error { _, err := c.Send(ctx, "cafe\u0301", "x"); return err },
			"text":        func() error { _, err := c.Send(ctx, "a", "caf\xe9"); return err },
			"text empty":  func() error { _, err := c.Send(ctx, "a", ""); return err },
			"client_id":   func() error { _, err := c.Send(ctx, "a", "x", WithClientID("é")); return err },
			"client_id 2": func() error { _, err := c.Send(ctx, "a", "x", WithClientID(strings.Repeat("x", 65))); return err },
			"type":        func() error { _, err := c.SendCustom(ctx, "a", "\xff", "x"); return err },
			"type empty":  func() error { _, err := c.SendCustom(ctx, "a", "", "x"); return err },
			"data":        func() error { _, err := c.SendCustom(ctx, "a", "t", "\xff"); return err },
			"room join":   func() error { _, err := c.Join(ctx, "\xff", 0); return err },
			"history":     func() error { _, err := c.Join(ctx, "a", 1001); return err },
			"room leave":  func() error { return c.Leave(ctx, "a\x00") },
			"title":       func() error { _, err := c.Create(ctx, "a", CreateOptions{Title: "\xff"}); return err },
			"title 2":     func() error { _, err := c.Create(ctx, "a", CreateOptions{Title: "a\nb"}); return err },
			"retention 2": func() error {
				_, err := c.Create(ctx, "a", CreateOptions{Retention: &Retention{MaxAge: durationpb.New(math.MaxInt64)}})
				return err
			},
			"members": func() error { _, err := c.Create(ctx, "a", CreateOptions{Members: []string{"b", " "}}); return err },
			"retention": func() error {
				_, err := c.Create(ctx, "a", CreateOptions{Retention: &Retention{MaxAge: durationpb.New(-1)}})
				return err
			},
			"room get":    func() error { _, err := c.GetRoom(ctx, "\xff"); return err },
			"room events": func() error { _, err := c.ListEvents(ctx, "\xff", Range{}); return err },
			"limit":       func() error { _, err := c.ListEvents(ctx, "a", Range{Limit: 1001}); return err },
			"room members": func() error {
				for _, err := range c.ListMembers(ctx, "\xff") {
					return err
				}
				return nil
			},
			"session_id":  func() error { return c.EndSession(ctx, "s_\xff") },
			"room tail":   func() error { return c.Tail(ctx, "\xff", TailOptions{}, &recorder{}) },
			"last":        func() error { return c.Tail(ctx, "a", TailOptions{Last: 10_001}, &recorder{}) },
			"incarnation": func() error { return c.Tail(ctx, "a", TailOptions{Incarnation: "\xff"}, &recorder{}) },
		} {
			err := call()
			var e *Error
			field, _, _ := strings.Cut(name, " ")
			if !errors.Is(err, ErrInvalid) || !errors.As(err, &e) || len(e.Fields) != 1 || !strings.HasPrefix(e.Fields[0].Field, field) {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.dials) > 0 {
			t.Errorf("dialed %v", f.dials)
		}
	})
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"rooms":   func(c *Config) { c.Rooms = []string{"a", "b c"} },
		"focus":   func(c *Config) { c.Focus = []string{"\xff"} },
		"history": func(c *Config) { c.History = 1001 },
	} {
		cfg := Config{Addresses: []string{"127.0.0.1:1"}}
		change(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A token that cannot be sent ends Run and each call, instead of being tried
// for ever.
func TestBadTokenEndsRun(t *testing.T) {
	for _, token := range []string{"dev:josé", "a\nb", "\x00"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, "one")
			cfg := f.config("one")
			cfg.Token = func(context.Context) (string, error) { return token, nil }
			c := f.client(cfg)
			r := start(t, c, &recorder{})
			if err := r.wait(); !errors.Is(err, ErrInvalid) {
				t.Errorf("Run: %v", err)
			}
			if _, err := c.Send(t.Context(), "a", "x"); !errors.Is(err, ErrInvalid) {
				t.Errorf("Send: %v", err)
			}
			if _, err := c.Join(t.Context(), "a", 0); !errors.Is(err, ErrInvalid) {
				t.Errorf("Join: %v", err)
			}
		})
	}
}

// What a store has loaded and what nobody would take ends Run.
func TestBadPositionsEndRun(t *testing.T) {
	for name, saved := range map[string]Saved{
		"room":    {Places: []Place{{Position: Position{Room: "\xff"}}}},
		"twice":   {Places: []Place{{Position: Position{Room: "a"}}, {Position: Position{Room: "a"}}}},
		"earlier": {Places: []Place{{Position: Position{Room: "a", Earlier: []Stretch{{Incarnation: "\xff"}}}}}},
		"session": {Session: SessionKey{ID: "s_\xff"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, "one")
			cfg := f.config("one")
			store := NewMemoryStore()
			cfg.Positions = &loadedStore{store, saved}
			if err := f.client(cfg).Run(t.Context(), &recorder{}); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

type loadedStore struct {
	PositionStore
	saved Saved
}

func (l *loadedStore) Load(context.Context) (Saved, error) { return l.saved, nil }

// The server's own limits go before the usual ones, and what does not fit a
// frame goes by itself: the stream is not the server's to end for it.
func TestSendKeepsToTheServersLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		calls := 0
		f.sendMessage = func(context.Context, *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error) {
			calls++
			return nil, refused(codes.ResourceExhausted, "FRAME_TOO_LARGE", 0)
		}
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		f.welcome(1) // a server that says nothing of its limits
		p := send(t.Context(), c, strings.Repeat("x", 1<<20))
		<-p.done
		if !errors.Is(p.err, ErrTooLarge) || calls != 1 {
			t.Errorf("%d calls, %v", calls, p.err)
		}
		f.cut()
		s := f.welcome(2, func(w *reprisev1.Welcome) { w.Limits = &reprisev1.Limits{MessageBytes: 10, FrameBytes: 60} })
		synctest.Wait()
		for text, want := range map[string]error{strings.Repeat("x", 11): ErrInvalid, strings.Repeat("x", 10): ErrTooLarge} {
			p := send(t.Context(), c, text, WithClientID(strings.Repeat("i", 60)))
			<-p.done
			if !errors.Is(p.err, want) {
				t.Errorf("%d bytes: %v, want %v", len(text), p.err, want)
			}
		}
		p = send(t.Context(), c, "short", WithClientID("i"))
		s.send(sent(s.recv().GetRequestId(), 3))
		p.ok(t, 3)
	})
}

// Should a send be what ends the streams it goes on, it goes by itself after a
// few, and the others are served.
func TestSendThatEndsStreamsGoesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		alone := make(chan struct{})
		f.sendMessage = func(_ context.Context, r *reprisev1.SendMessageRequest) (*reprisev1.SendMessageResponse, error) {
			if r.GetText() != "poison" || r.GetVia() == nil {
				t.Errorf("a call for %v", r)
			}
			close(alone)
			return nil, refused(codes.InvalidArgument, "INVALID_FIELD", 0)
		}
		c := f.client(f.config("one"))
		start(t, c, &recorder{})
		bad := send(t.Context(), c, "poison")
		streams := 0
		for {
			streams++
			s := f.welcome(uint64(streams))
			select {
			case frame := <-s.in:
				if frame.GetSendMessage().GetText() == "poison" {
					s.end(unavailable)
				}
				continue
			case <-alone:
			}
			<-bad.done
			p := send(t.Context(), c, "good")
			s.send(sent(s.recv().GetRequestId(), 5))
			p.ok(t, 5)
			break
		}
		if streams != maxLosses+1 || !errors.Is(bad.err, ErrInvalid) {
			t.Errorf("%d streams, and then %v", streams, bad.err)
		}
	})
}
