package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// heap is what is in use after a collection.
func heap() int {
	runtime.GC()
	runtime.GC() // what pools kept through the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse)
}

// grpc's ServeHTTP reads on without a bound and pins 16 KiB for each read: a
// handler that is busy while a client sends small frames cost 120 times what
// was sent.
func TestFloodIsBounded(t *testing.T) {
	const budget = 6 << 20
	cause := make(chan error, 1)
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		if _, err := s.Recv(); err != nil {
			return err
		}
		<-s.Context().Done() // busy: receives no more
		cause <- context.Cause(callOf(s.Context()).ctx)
		return nil
	}}, func(o *Options) { o.StallTimeout = 700 * time.Millisecond })
	small := webtest.PrefixedBytes(make([]byte, 123))
	floods := map[string]func(t *testing.T) net.Conn{
		"websocket": func(t *testing.T) net.Conn {
			r := upgraded(t, f)
			return frameWriter{Conn: r, frame: webtest.Frame(webtest.OpBinary, append([]byte{0}, small...))}
		},
		"fetch": func(t *testing.T) net.Conn {
			r, err := webtest.DialRaw(f.addr)
			if err != nil {
				t.Fatal(err)
			}
			first := webtest.Prefixed(frame("first"))
			_, err = fmt.Fprintf(r, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n",
				connect, f.addr, len(first), first)
			if err != nil {
				t.Fatal(err)
			}
			return frameWriter{Conn: r, frame: fmt.Appendf(nil, "%x\r\n%s\r\n", len(small), small)}
		},
	}
	for name, begin := range floods {
		t.Run(name, func(t *testing.T) {
			c := begin(t)
			defer c.Close()
			before := heap()
			stop, peak := make(chan struct{}), make(chan int)
			go func() {
				most := 0
				for {
					select {
					case <-stop:
						peak <- most
						return
					case <-time.After(20 * time.Millisecond):
						most = max(most, heap())
					}
				}
			}()
			sent := 0
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
			for sent < 256<<20 {
				n, err := c.Write(nil)
				sent += n
				if err != nil {
					break
				}
			}
			close(stop)
			grown := <-peak - before
			t.Logf("took %d KiB of a flood, the heap grew by %d KiB", sent>>10, grown>>10)
			if grown > budget {
				t.Errorf("the heap grew by %d KiB, want at most %d", grown>>10, budget>>10)
			}
			select {
			case err := <-cause:
				if !errors.Is(err, errStalled) {
					t.Errorf("the call ended with %v, want %v", err, errStalled)
				}
			case <-time.After(10 * time.Second):
				t.Error("the call goes on")
			}
		})
	}
	eventually(t, "no call is left", func() bool { return f.calls.count() == 0 })
}

// frameWriter writes one frame at each Write.
type frameWriter struct {
	net.Conn
	frame []byte
}

func (w frameWriter) Write([]byte) (int, error) { return w.Conn.Write(w.frame) }

// upgraded begins a Connect call and sends its first frame.
func upgraded(t *testing.T, f *fixture) *webtest.Raw {
	t.Helper()
	r, err := webtest.DialRaw(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if err := errors.Join(r.Upgrade(connect), r.WriteFrame(webtest.OpBinary, []byte(goodBlock)),
		r.WriteFrame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(frame("first"))...))); err != nil {
		t.Fatal(err)
	}
	return r
}

// A client that sends faster than its handler receives is slowed, not cut.
func TestFastSenderIsSlowed(t *testing.T) {
	const messages, size = 2000, 8 << 10 // 16 MiB against a bound of 2
	var received atomic.Int64
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if n := received.Add(1); len(m.GetRequestId()) != size+int(n) {
				return fmt.Errorf("message %d has %d bytes", n, len(m.GetRequestId()))
			}
			if received.Load()%500 == 0 {
				time.Sleep(300 * time.Millisecond) // the handler is slow
			}
		}
	}}, nil)
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range messages {
		if err := w.SendMessage(frame(string(make([]byte, size+i+1)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := w.Recv(&reprisev1.ServerFrame{}); err != io.EOF {
		t.Fatalf("got %v after %d messages, want OK", err, received.Load())
	}
	if received.Load() != messages {
		t.Errorf("the handler received %d messages, want %d", received.Load(), messages)
	}
}

// endless sends until its stream ends, and says how far it came.
func endless(sent *atomic.Int64) func(*reprisev1.OpenRequest, grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
	return func(_ *reprisev1.OpenRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
		for o := uint64(1); ; o++ {
			if s.Context().Err() != nil {
				return nil
			}
			if err := s.Send(event(o, 1024)); err != nil {
				return err
			}
			sent.Add(1)
		}
	}
}

// A peer that takes nothing is ended by the write deadline, its handler with
// it, holds a bounded amount meanwhile, and harms nobody.
func TestStalledReaderIsEnded(t *testing.T) {
	const timeout = 1500 * time.Millisecond
	begin := map[string]func(t *testing.T, f *fixture) net.Conn{
		"websocket": func(t *testing.T, f *fixture) net.Conn {
			r, err := webtest.DialRaw(f.addr)
			if err != nil {
				t.Fatal(err)
			}
			message := append([]byte{0}, webtest.Prefixed(&reprisev1.OpenRequest{})...)
			if err := errors.Join(r.Upgrade(open), r.WriteFrame(webtest.OpBinary, []byte(goodBlock)),
				r.WriteFrame(webtest.OpBinary, message), r.WriteFrame(webtest.OpBinary, []byte{1})); err != nil {
				t.Fatal(err)
			}
			return r
		},
		"fetch": func(t *testing.T, f *fixture) net.Conn {
			c, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			body := webtest.Prefixed(&reprisev1.OpenRequest{})
			_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: %d\r\n\r\n%s", open, f.addr, len(body), body)
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
	}
	for name, begin := range begin {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			f := start(t, &chat{onOpen: endless(&sent)}, func(o *Options) { o.WriteTimeout = timeout })
			other, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			began := time.Now()
			c := begin(t, f)
			defer c.Close()
			worst := time.Duration(0)
			for f.calls.count() > 1 || sent.Load() == 0 {
				at := time.Now()
				if err := errors.Join(other.SendMessage(frame("r")), other.Recv(&reprisev1.ServerFrame{})); err != nil {
					t.Fatal(err)
				}
				worst = max(worst, time.Since(at))
				if time.Since(began) > 4*timeout {
					t.Fatal("the stalled call has not ended")
				}
			}
			if d := time.Since(began); d < timeout {
				t.Errorf("ended after %v, before the timeout of %v", d, timeout)
			}
			held := sent.Load()
			t.Logf("ended after %v with %d KiB sent; the other stream's slowest echo took %v", time.Since(began).Round(time.Millisecond), held, worst)
			if held > 4<<10 { // KiB: the two kernel buffers and one batch
				t.Errorf("a reader that takes nothing was sent %d KiB", held)
			}
		})
	}
}

// A peer that reads, however slowly, is not cut: not even when one write, or
// room for one in the kernel's buffer, takes longer than WriteTimeout.
func TestP6_SlowReaderIsNotCut(t *testing.T) {
	var sent atomic.Int64
	f := start(t, &chat{onOpen: endless(&sent)}, func(o *Options) { o.WriteTimeout = time.Second })
	// A small window from the beginning, so that it opens often.
	dialer := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10)
		})
	}}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return slowConn{c}, nil
	}}}
	defer client.CloseIdleConnections()
	p, err := webtest.Post(ctxOf(t), client, f.base, open, webtest.Options{}, &reprisev1.OpenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	began, offset := time.Now(), uint64(0)
	for time.Since(began) < 5*time.Second {
		var m reprisev1.ServerFrame
		if err := p.Recv(&m); err != nil {
			t.Fatalf("cut after %v, behind offset %d: %v", time.Since(began), offset, err)
		}
		if got := m.GetEvents().GetEvents()[0].GetOffset(); got != offset+1 {
			t.Fatalf("offset %d after %d", got, offset)
		}
		offset++
	}
	// After a cut the kernel would still deliver what it had.
	if n := f.chat.ended.Load(); n != 0 {
		t.Errorf("the call was ended behind offset %d", offset)
	}
	t.Logf("read %d of %d events in %v", offset, sent.Load(), time.Since(began).Round(time.Second))
}

// slowConn reads 20 KiB/s.
type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return c.Conn.Read(p[:min(len(p), 2<<10)])
}

// Without batching each event is two websocket messages and two writes.
func TestEventsAreBatched(t *testing.T) {
	const events = 10_000
	f := start(t, &chat{}, nil)
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, open, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := errors.Join(w.SendMessage(&reprisev1.OpenRequest{History: events}), w.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= events; i++ {
		var m reprisev1.ServerFrame
		if err := w.Recv(&m); err != nil {
			t.Fatal(err)
		}
		if got := m.GetEvents().GetEvents()[0].GetOffset(); got != i {
			t.Fatalf("offset %d, want %d", got, i)
		}
	}
	if n := w.Messages.Load(); n > events/2 {
		t.Errorf("%d websocket messages for %d events", n, events)
	} else {
		t.Logf("%d websocket messages for %d events", n, events)
	}
}

// While nobody reads, because the bound on input is reached, the websocket
// library does not return from a write that has failed.
func TestFloodThatReadsNothing(t *testing.T) {
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		for {
			if err := s.Send(event(1, 1024)); err != nil {
				return err
			}
			if s.Context().Err() != nil {
				return nil
			}
		}
	}}, func(o *Options) { o.StallTimeout, o.WriteTimeout = 2*time.Second, 500*time.Millisecond })
	r := upgraded(t, f)
	small := webtest.Frame(webtest.OpBinary, append([]byte{0}, webtest.PrefixedBytes(make([]byte, 123))...))
	_ = r.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for {
		if _, err := r.Write(small); err != nil {
			break
		}
	}
	eventually(t, "the call has ended", func() bool { return f.calls.count() == 0 && f.conns.tally.count() == 0 })
}

// The handler returns while the bound on input is reached: the status arrives
// all the same, and a peer that vanishes then leaves nothing.
func TestHandlerReturnsDuringAFlood(t *testing.T) {
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		in := callOf(s.Context()).in
		for !in.full() {
			time.Sleep(time.Millisecond)
		}
		return status.Error(codes.PermissionDenied, "enough")
	}}, func(o *Options) { o.CloseTimeout = 500 * time.Millisecond })
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 200 {
		if err := w.SendMessage(frame("flood")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Recv(&reprisev1.ServerFrame{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, want PERMISSION_DENIED", err)
	}
	r := upgraded(t, f) // never answers the Close
	flood := webtest.Frame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(frame("flood"))...))
	for range 200 {
		if _, err := r.Write(flood); err != nil {
			break
		}
	}
	w.Close()
	eventually(t, "both calls have ended", func() bool { return f.calls.count() == 0 && f.conns.tally.count() == 0 })
}
