package gosdk

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/server"
)

// talker is a client that runs, in a room, and hears itself.
type talker struct {
	*reprise.Client
	*listener
	attaches func() uint64
}

func newTalker(t *testing.T, n *node, rooms ...string) *talker {
	t.Helper()
	cfg := config(n.addr, "ann")
	cfg.Rooms = rooms
	c := newClient(t, cfg)
	l := newListener()
	run(t, c, l)
	until(t, "live", func() bool { return c.State().Phase == reprise.Live })
	return &talker{c, l, func() uint64 { return c.State().Attach }}
}

// One bad request is refused, and harms nothing else: the others on the same
// stream are answered, and the stream stays.
func TestOneBadSendHarmsNothing(t *testing.T) {
	n := serve(t)
	c := newTalker(t, n, "lobby")
	before := c.attaches()
	var sending sync.WaitGroup
	ctx := withPatience(t)
	for name, bad := range map[string]struct {
		text string
		want error
	}{
		"not UTF-8":      {"caf\xe9", reprise.ErrInvalid},
		"empty":          {"", reprise.ErrInvalid},
		"over the limit": {strings.Repeat("x", 64<<10+1), reprise.ErrInvalid},
		"over a frame":   {strings.Repeat("x", 3<<19), reprise.ErrInvalid},
		"over twice":     {strings.Repeat("x", 3<<20), reprise.ErrInvalid},
		"huge":           {strings.Repeat("x", 20<<20), reprise.ErrInvalid},
	} {
		sending.Go(func() {
			if _, err := c.Send(ctx, "lobby", bad.text); !errors.Is(err, bad.want) {
				t.Errorf("%s: %v, want %v", name, err, bad.want)
			}
			if _, err := c.SendCustom(ctx, "lobby", "t", bad.text); bad.text != "" && !errors.Is(err, bad.want) {
				t.Errorf("%s, custom: %v, want %v", name, err, bad.want)
			}
		})
		sending.Go(func() {
			if _, err := c.Send(ctx, "lobby", "fine"); err != nil {
				t.Errorf("a small send beside: %v", err)
			}
		})
	}
	sending.Wait()
	if after := c.attaches(); after != before {
		t.Errorf("attached %d times more", after-before)
	}
	if _, err := c.Send(ctx, "lobby", strings.Repeat("y", 64<<10)); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
}

// A client that is not attached knows no limits: the server says what is too
// large, for good.
func TestTooLargeIsFinal(t *testing.T) {
	n := serve(t)
	c := newClient(t, config(n.addr, "ann"))
	ctx := withPatience(t)
	if _, err := c.Join(ctx, "lobby", 0); err != nil {
		t.Fatal(err)
	}
	for _, bytes := range []int{64<<10 + 1, 3 << 19, 3 << 20, 20 << 20} {
		began := time.Now()
		_, err := c.Send(ctx, "lobby", strings.Repeat("x", bytes))
		if !errors.Is(err, reprise.ErrInvalid) && !errors.Is(err, reprise.ErrTooLarge) {
			t.Errorf("%d bytes: %v after %v", bytes, err, time.Since(began))
		}
	}
}

// Rooms beyond the user's limit are refused at once.
func TestTooManyRoomsIsFinal(t *testing.T) {
	n := serve(t, func(o *server.Options) { o.Limits.RoomsPerUser = 2 })
	c := newTalker(t, n, "a", "b")
	for _, room := range []string{"a", "b"} { // which waits until Run has joined it
		if _, err := c.Send(withPatience(t), room, "here"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Join(withPatience(t), "c", 0); !errors.Is(err, reprise.ErrTooManyRooms) {
		t.Errorf("the third room of two: %v", err)
	}
}

// FuzzSend: any strings are either refused with a typed error or delivered as
// they are, and the stream stays.
func FuzzSend(f *testing.F) {
	for _, seed := range [][4]string{
		{"lobby", "hello", "", ""}, {"lobby", "caf\xe9", "id", "t"}, {"\xff", "x", "\xff", "\xff"}, {"", "", "", ""},
		{"lobby", "\x00", strings.Repeat("i", 65), "a b"}, {"лобби", "\u2028", "a:b", "type"}, {"cafe\u0301", "x", "i", "é"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	c := fuzzed(f)
	f.Fuzz(func(t *testing.T, room, text, id, typ string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		before := c.attaches()
		refused := func(what string, err error) bool {
			var e *reprise.Error
			if err != nil && (!errors.As(err, &e) || e.Reason == "") {
				t.Errorf("%s: %v", what, err)
			}
			return err != nil
		}
		if _, err := c.Join(ctx, room, 0); refused("Join", err) {
			room = "lobby"
		}
		var options []reprise.SendOption
		if id != "" {
			options = append(options, reprise.WithClientID(id))
		}
		if r, err := c.Send(ctx, room, text, options...); !refused("Send", err) {
			page, err := c.ListEvents(ctx, room, reprise.Range{After: r.Offset - 1, Before: r.Offset + 1})
			if err != nil || len(page.Events) != 1 || page.Events[0].Text() != text {
				t.Errorf("%q was stored as %v, %v", text, page.Events, err)
			}
		}
		_, err := c.SendCustom(ctx, room, typ, text)
		refused("SendCustom", err)
		_, err = c.Create(ctx, room, reprise.CreateOptions{Title: text, Members: []string{id}})
		refused("Create", err)
		if after := c.attaches(); after != before {
			t.Errorf("the stream was lost: %v", c.State())
		}
	})
}

// fuzzed starts what all inputs share.
func fuzzed(f *testing.F) *talker {
	f.Helper()
	n := serve(f, func(o *server.Options) { o.Limits.RoomsPerUser, o.NoSync = 20_000, true })
	cfg := config(n.addr, "ann")
	cfg.Rooms = []string{"lobby"}
	c := newClient(f, cfg)
	l := &discarding{}
	run(f, c, l)
	until(f, "live", func() bool { return c.State().Phase == reprise.Live })
	return &talker{c, nil, func() uint64 { return c.State().Attach }}
}

type discarding struct{}

func (discarding) HandleEvent(context.Context, reprise.Event) error   { return nil }
func (discarding) HandleGap(context.Context, reprise.Gap) error       { return nil }
func (discarding) HandleRewind(context.Context, reprise.Rewind) error { return nil }
