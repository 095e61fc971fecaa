package lean

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/test.Service/Call"

// serve serves one method with grpc-go and returns where.
func serve(t *testing.T, handler grpc.StreamHandler) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Service", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Call", Handler: handler, ServerStreams: true, ClientStreams: true}},
	}, nil)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

func newLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// listener gathers what comes.
type listener struct {
	messages chan []byte
	end      chan error
	err      error // for Message to return
}

func newListener() *listener {
	return &listener{messages: make(chan []byte, 1<<16), end: make(chan error, 1)}
}

func (l *listener) Message(b []byte) error {
	l.messages <- bytes.Clone(b)
	return l.err
}

func (l *listener) End(code int, message string, _ []byte) {
	l.end <- fmt.Errorf("%d %s", code, message)
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

// begin opens a stream over a new connection.
func begin(t *testing.T, l *Loop, addr netip.AddrPort, window uint32, on *listener) *Stream {
	t.Helper()
	opened := make(chan *Stream, 1)
	l.Do(func() {
		l.Dial(addr, &H2{Window: window, Ready: func(h *H2) { opened <- h.Open(method, "dev:ann", on) }, Gone: func(err error) {
			select {
			case on.end <- err:
			default:
			}
		}})
	})
	return receive(t, opened)
}

func text(n int, c byte) *wrapperspb.BytesValue {
	return wrapperspb.Bytes(bytes.Repeat([]byte{c}, n))
}

// echo sends back what comes, and ends with a status when nothing more does.
func echo(_ any, s grpc.ServerStream) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); md.Get("authorization")[0] != "Bearer dev:ann" {
		return status.Error(codes.Unauthenticated, "who")
	}
	for {
		var m wrapperspb.BytesValue
		if err := s.RecvMsg(&m); err != nil {
			return status.Error(codes.DataLoss, "at the end")
		}
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
}

// TestMessages sends messages of all sizes both ways, the larger ones beyond
// the server's windows and over many frames.
func TestMessages(t *testing.T) {
	l, on := newLoop(t), newListener()
	s := begin(t, l, serve(t, echo), Generous, on)
	sizes := []int{0, 1, 5, 16<<10 - 5, 16 << 10, 64 << 10, 300 << 10, 7}
	l.Do(func() {
		for i, n := range sizes {
			// A BytesValue: field 1 with a length.
			b := bytes.Repeat([]byte{byte('a' + i)}, n)
			s.Send(encode(b), i == len(sizes)-1)
		}
	})
	for i, n := range sizes {
		if got, want := receive(t, on.messages), encode(bytes.Repeat([]byte{byte('a' + i)}, n)); !bytes.Equal(got, want) {
			t.Fatalf("message %d has %d bytes, want %d", i, len(got), len(want))
		}
	}
	if got := receive(t, on.end).Error(); got != "15 at the end" {
		t.Error("the stream ended with ", got)
	}
}

func encode(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	out := []byte{0x0a}
	n := len(b)
	for ; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(append(out, byte(n)), b...)
}

// TestWindowStalls has a server send without end to a client that grants
// nothing: it gets what the window allows, stays connected, and the server is
// held up.
func TestWindowStalls(t *testing.T) {
	var sent atomic.Int64
	stuck := make(chan struct{})
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		timer := time.AfterFunc(500*time.Millisecond, func() { close(stuck) })
		for s.SendMsg(text(1000, 'x')) == nil {
			sent.Add(1000)
			timer.Reset(500 * time.Millisecond)
		}
		return nil
	})
	l, on := newLoop(t), newListener()
	begin(t, l, addr, 64<<10, on)
	receive(t, stuck)
	if n := sent.Load(); n < 64_000 || n > 200_000 {
		t.Errorf("the server could send %d bytes to a client that grants 64 KiB", n)
	}
	if n := len(on.messages); n < 60 || n > 66 {
		t.Errorf("%d messages of 1000 bytes came through a window of 64 KiB", n)
	}
	select {
	case err := <-on.end:
		t.Error("the stream ended: ", err)
	default:
	}
}

// TestGenerousWindow has a server send more than the windows that a client
// usually has.
func TestGenerousWindow(t *testing.T) {
	const messages = 5000
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		for range messages {
			if err := s.SendMsg(text(1000, 'x')); err != nil {
				return err
			}
		}
		return nil
	})
	l, on := newLoop(t), newListener()
	begin(t, l, addr, Generous, on)
	for range messages {
		receive(t, on.messages)
	}
	if got := receive(t, on.end).Error(); got != "0 " {
		t.Error("the stream ended with ", got)
	}
}

// TestHandlerErrorEndsConnection: what a benchmark finds wrong is not passed
// over.
func TestHandlerErrorEndsConnection(t *testing.T) {
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		if err := s.SendMsg(text(10, 'x')); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	})
	l, on := newLoop(t), newListener()
	on.err = errors.New("out of order")
	begin(t, l, addr, Generous, on)
	if got := receive(t, on.end).Error(); got != "14 out of order" {
		t.Error("the stream ended with ", got)
	}
}

func TestDialFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(listener.Addr().String())
	listener.Close()
	l := newLoop(t)
	gone := make(chan error, 1)
	l.Do(func() { l.Dial(addr, &H2{Window: Generous, Gone: func(err error) { gone <- err }}) })
	if err := receive(t, gone); err == nil {
		t.Error("a connection to nobody")
	}
}

// TestAfter holds that timers come in order, not early, and hardly late.
func TestAfter(t *testing.T) {
	l := newLoop(t)
	began := time.Now()
	fired := make(chan int, 4)
	l.Do(func() {
		for _, n := range []int{3, 1, 2} {
			l.After(began.Add(time.Duration(n)*10*time.Millisecond), func() {
				if time.Since(began) < time.Duration(n)*10*time.Millisecond {
					t.Error("timer ", n, " is early")
				}
				fired <- n
			})
		}
		l.After(time.Time{}, func() { fired <- 0 })
	})
	for want := range 4 {
		if got := receive(t, fired); got != want {
			t.Fatalf("timer %d came, want %d", got, want)
		}
	}
}

func TestCloseEndsAll(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	on := newListener()
	addr := serve(t, func(_ any, s grpc.ServerStream) error {
		<-s.Context().Done()
		return context.Cause(s.Context())
	})
	begin(t, l, addr, Generous, on)
	closed := false
	l.Call(func() { l.OnClose(func() { closed = true }) })
	l.Close()
	if !closed {
		t.Error("OnClose's function did not run")
	}
	if receive(t, on.end) == nil {
		t.Error("the stream did not end")
	}
	l.Do(func() { t.Error("a closed loop runs things") })
	l.Call(func() { t.Error("a closed loop runs things") })
}

// TestIdle has a loop with an idle connection sleep: one that is told again and
// again that a socket would take bytes keeps a processor from the server.
func TestIdle(t *testing.T) {
	l, on := newLoop(t), newListener()
	s := begin(t, l, serve(t, echo), Generous, on)
	l.Do(func() { s.Send(encode([]byte("hello")), false) })
	receive(t, on.messages)
	var before, after int
	l.Call(func() { before = l.turns })
	time.Sleep(100 * time.Millisecond)
	l.Call(func() { after = l.turns })
	if after-before > 10 { // the Call, and what the server says by itself
		t.Errorf("%d turns in a tenth of a second", after-before)
	}
}
