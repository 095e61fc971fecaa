package reprise

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

func TestNewChecksItsConfig(t *testing.T) {
	for _, test := range []struct {
		cfg Config
		ok  bool
	}{
		{Config{}, false},
		{Config{Addresses: []string{"127.0.0.1:9090", "localhost:1", "[::1]:2", "unix:/tmp/x", "dns:///localhost:3"}}, true},
		{Config{Addresses: []string{"127.0.0.1:9090", "chat.example.com:443"}}, false},
		{Config{Addresses: []string{"10.0.0.1:9090"}}, false},
		{Config{Addresses: []string{"localhost.example.com:9090"}}, false},
		{Config{Addresses: []string{"chat.example.com:443"}, TLS: &tls.Config{}}, true},
		{Config{Addresses: []string{"chat.example.com:443"}, Insecure: true}, true},
		{Config{Addresses: []string{"127.0.0.1:9090"}, BackoffMin: -1}, false},
	} {
		c, err := New(test.cfg)
		if (err == nil) != test.ok {
			t.Errorf("New(%v): %v", test.cfg.Addresses, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

// Via is set while attached; a call for an attachment that was replaced is
// made again for the new one.
func TestCallsSpeakForTheAttachment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		var vias []string
		f.joinRoom = func(_ context.Context, r *reprisev1.JoinRoomRequest) (*reprisev1.JoinRoomResponse, error) {
			vias = append(vias, fmt.Sprint(r.GetVia().GetAttach(), "/", r.GetHistory()))
			if r.GetVia().GetAttach() == 1 {
				return nil, refused(codes.FailedPrecondition, "FENCED", 0)
			}
			return &reprisev1.JoinRoomResponse{Room: &reprisev1.Room{Name: r.GetRoom()}}, nil
		}
		if _, err := c.Join(t.Context(), "a", 0); err != nil {
			t.Error(err)
		}
		if _, err := c.Join(t.Context(), "a", 5); !errors.Is(err, ErrNotRunning) { // nobody to show history to
			t.Errorf("history without Run: %v", err)
		}
		start(t, c, &recorder{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			room, err := c.Join(t.Context(), "a", 5)
			if err != nil || room.GetName() != "a" {
				t.Errorf("got %v, %v", room, err)
			}
		}()
		s := f.welcome(1)
		synctest.Wait()
		s.end(unavailable)
		f.welcome(2)
		<-done
		want(t, "calls", strings.Join(vias, " "), "0/0 1/5 2/5")
	})
}

func TestReadsTryEachAddressAndRefreshTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "three")
		cfg := f.config("one", "two", "three")
		tokens := 0
		cfg.Token = func(context.Context) (string, error) { tokens++; return fmt.Sprint("t", tokens), nil }
		c := f.client(cfg)
		f.listRooms = func(_ context.Context, r *reprisev1.ListRoomsRequest) (*reprisev1.ListRoomsResponse, error) {
			switch {
			case tokens < 4:
				return nil, refused(codes.Unauthenticated, "TOKEN_INVALID", 0)
			case r.GetPageToken() == "":
				return &reprisev1.ListRoomsResponse{Rooms: []*reprisev1.Room{{Name: "a"}, {Name: "b"}}, NextPageToken: "p2"}, nil
			default:
				return &reprisev1.ListRoomsResponse{Rooms: []*reprisev1.Room{{Name: "c"}}}, nil
			}
		}
		var names []string
		for room, err := range c.ListRooms(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, room.GetName())
		}
		want(t, "rooms", strings.Join(names, " "), "a b c")

		tokens = -100
		for _, err := range c.ListRooms(t.Context()) {
			if !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("got %v", err)
			}
		}
		f.stop("three")
		for _, err := range c.ListRooms(t.Context()) {
			if code := codeOf(err); code != codes.Unavailable {
				t.Errorf("got %v, want Unavailable without a server", err)
			}
		}
	})
}

func codeOf(err error) codes.Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return codes.OK
}

func TestTailResumesAfterWhatWasHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		var asked []string
		f.tail = func(r *reprisev1.TailRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
			asked = append(asked, fmt.Sprintf("%s/%d last %d limit %d", r.GetIncarnation(), r.GetAfter(), r.GetLast(), r.GetLimit()))
			switch len(asked) {
			case 1:
				s.Send(gapFrame("a", "i1", 1, 6))
				s.Send(events("a", "i1", 6, 7, 8))
				return unavailable
			case 2:
				s.Send(rewindFrame("a", "i0", 5))
				s.Send(caughtUp("a", "i0", 5))
				s.Send(events("a", "i2", 5, 6))
				s.Send(events("a", "i2", 7, 8)) // a hole
				<-s.Context().Done()
				return unavailable
			default:
				s.Send(events("a", "i2", 6, 7))
				return nil
			}
		}
		h := &fullRecorder{}
		if err := c.Tail(t.Context(), "a", TailOptions{Last: 2, Limit: 4, Follow: true}, h); err != nil {
			t.Error(err)
		}
		want(t, "handled", h.take(), "gap:a1-6 a7r a8r rewind:a5 caughtup:a a6 a7r")
		want(t, "asked", strings.Join(asked, ", "), "/0 last 2 limit 4, i1/8 last 0 limit 2, i2/6 last 0 limit 1")
	})
}

func TestTailEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "one")
		c := f.client(f.config("one"))
		f.tail = func(r *reprisev1.TailRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
			s.Send(events("a", "i1", 0, 1))
			<-s.Context().Done()
			return s.Context().Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Tail(ctx, "a", TailOptions{Follow: true}, &recorder{}); err != nil {
			t.Errorf("after its context ended: %v", err)
		}
		broken := errors.New("broken")
		if err := c.Tail(t.Context(), "a", TailOptions{}, &recorder{fail: map[uint64]error{1: broken}}); err != broken {
			t.Errorf("got %v, want the handler's error", err)
		}
		f.tail = func(*reprisev1.TailRequest, grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
			return refused(codes.NotFound, "ROOM_NOT_FOUND", 0)
		}
		if err := c.Tail(t.Context(), "a", TailOptions{Follow: true}, &recorder{}); !errors.Is(err, ErrRoomNotFound) {
			t.Errorf("got %v", err)
		}
		f.stop("one")
		if err := c.Tail(t.Context(), "a", TailOptions{Follow: true}, &recorder{}); codeOf(err) != codes.Unavailable {
			t.Errorf("without a server: %v", err)
		}
	})
}

// TestTailTriesEachServer: the first ones are not there.
func TestTailTriesEachServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "three")
		c := f.client(f.config("one", "two", "three"))
		f.tail = func(_ *reprisev1.TailRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
			s.Send(events("a", "i1", 0, 1))
			return nil
		}
		h := &recorder{}
		if err := c.Tail(t.Context(), "a", TailOptions{}, h); err != nil {
			t.Error(err)
		}
		want(t, "handled", h.take(), "a1r")
	})
}
