package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

const goodBlock = "content-type: application/grpc-web+proto\r\n"

// After each of these the wrapper returns and leaves the connection open, and
// after most of them a goroutine that nothing ends. The peers here stay as
// long as the server lets them.
func TestBadBeginningsLeaveNothing(t *testing.T) {
	const each = 100
	unmasked := append([]byte{0x82, byte(len(goodBlock))}, goodBlock...)
	attacks := map[string][]byte{
		"text":            webtest.Frame(webtest.OpText, []byte(goodBlock)),
		"not a block":     webtest.Frame(webtest.OpBinary, []byte("no header at all\r\n")),
		"unmasked":        unmasked,
		"no content-type": webtest.Frame(webtest.OpBinary, []byte("authorization: Bearer dev:alice\r\n")),
		"bad timeout":     webtest.Frame(webtest.OpBinary, []byte(goodBlock+"grpc-timeout: soon\r\n")),
		"bad binary":      webtest.Frame(webtest.OpBinary, []byte(goodBlock+"traceparent-bin: %%%\r\n")),
		"text body":       webtest.Frame(webtest.OpBinary, []byte("content-type: application/grpc-web-text\r\n")),
		"large block":     webtest.Frame(webtest.OpBinary, []byte(goodBlock+"user-agent: "+strings.Repeat("x", 64<<10))),
		"endless frame":   webtest.FrameHeader(webtest.OpBinary, 1<<62),
		"continuation":    webtest.Frame(0, []byte(goodBlock)),
		"close":           webtest.Frame(webtest.OpClose, []byte{3, 232}),
		"half a ping":     append(webtest.Frame(webtest.OpBinary, []byte(goodBlock)), webtest.Frame(webtest.OpPing, []byte("xx"))[:7]...),
	}
	f := start(t, &chat{}, func(o *Options) {
		o.MaxConnsPerAddress, o.MaxCallsPerAddress = 10000, 10000
		o.RequestTimeout, o.CloseTimeout = 200*time.Millisecond, 200*time.Millisecond
		o.Metadata = []string{"traceparent-bin"}
	})
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			fds, goroutines := openFiles(t), runtime.NumGoroutine()
			var wg sync.WaitGroup
			for range each {
				wg.Go(func() {
					if err := untilClosed(f.addr, connect, attack); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			eventually(t, "descriptors as before", func() bool { return openFiles(t) <= fds })
			if !within(func() bool { return runtime.NumGoroutine() <= goroutines }) {
				t.Errorf("%d goroutines before, %d after:\n%s", goroutines, runtime.NumGoroutine(), stacks())
			}
			t.Logf("%d times: %d descriptors before, %d after; %d goroutines before, %d after",
				each, fds, openFiles(t), goroutines, runtime.NumGoroutine())
		})
	}
}

// untilClosed upgrades, sends and waits for the server to close.
func untilClosed(addr, method string, send []byte) error {
	r, err := webtest.DialRaw(addr)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Upgrade(method); err != nil {
		return err
	}
	if _, err := r.Write(send); err != nil && !errors.Is(err, net.ErrClosed) && !isReset(err) {
		return err
	}
	_ = r.SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := io.Copy(io.Discard, r.R); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the connection is still open after 8 s")
	}
	return nil
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe")
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(entries)
}

func TestSilenceBeforeTheRequestIsCut(t *testing.T) {
	f := start(t, &chat{}, func(o *Options) {
		o.FirstFrameTimeout = 100 * time.Millisecond
		o.RequestTimeout = 100 * time.Millisecond
	})
	block := webtest.Frame(webtest.OpBinary, []byte(goodBlock))
	message := webtest.Frame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(&reprisev1.OpenRequest{History: 1})...))
	for name, tt := range map[string]struct {
		method string
		send   []byte
	}{
		"after the upgrade":         {connect, nil},
		"inside a frame":            {connect, block[:len(block)-1]},
		"only pings":                {connect, webtest.Frame(webtest.OpPing, nil)},
		"after the block":           {connect, block},
		"after the block, unary":    {getRoom, block},
		"inside a message":          {connect, append(block[:len(block):len(block)], message[:len(message)-2]...)},
		"message without an end":    {open, append(block[:len(block):len(block)], message...)},
		"messages of nothing":       {connect, append(block[:len(block):len(block)], webtest.Frame(webtest.OpBinary, []byte{0})...)},
		"websocket messages, empty": {connect, append(block[:len(block):len(block)], webtest.Frame(webtest.OpBinary, nil)...)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := untilClosed(f.addr, tt.method, tt.send); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("fetch", func(t *testing.T) {
		r, err := webtest.DialRaw(f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, err = io.WriteString(r, "POST "+getRoom+" HTTP/1.1\r\nHost: "+f.addr+"\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 100\r\n\r\nxx")
		if err != nil {
			t.Fatal(err)
		}
		_ = r.SetReadDeadline(time.Now().Add(8 * time.Second))
		if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("still open after 8 s")
		}
	})
	eventually(t, "no call is left", func() bool { return f.calls.count() == 0 })
	if n := f.chat.started.Load(); n != f.chat.ended.Load() {
		t.Errorf("%d handlers started, %d ended", n, f.chat.ended.Load())
	}
}

func TestSilenceAfterTheRequestIsFine(t *testing.T) {
	f := start(t, &chat{}, func(o *Options) {
		o.FirstFrameTimeout, o.RequestTimeout, o.HeaderTimeout = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
		o.IdleTimeout, o.StallTimeout, o.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	})
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 2 {
		if err := errors.Join(w.SendMessage(frame("r1")), w.Recv(&reprisev1.ServerFrame{})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1200 * time.Millisecond) // the silence under test
	}
}

// Clients that send the request and the first frames at once: they are in
// http.Server's reader when the connection is taken over.
func TestFastClients(t *testing.T) {
	f := start(t, &chat{}, nil)
	all := webtest.UpgradeRequest(f.addr, connect) + string(webtest.Frame(webtest.OpBinary, []byte(goodBlock))) +
		string(webtest.Frame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(frame("r1"))...))) +
		string(webtest.Frame(webtest.OpBinary, []byte{1}))
	for i := range 300 {
		r, err := webtest.DialRaw(f.addr)
		if err != nil {
			t.Fatal(err)
		}
		cut := max(len(all)-i, 0) // all at once first, then at many borders
		_, err = io.WriteString(r, all[:cut])
		_, err2 := io.WriteString(r, all[cut:])
		if err := errors.Join(err, err2, r.Switched()); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, 4096)
		var got string
		for !strings.Contains(got, "grpc-status: 0") {
			n, err := r.R.Read(b)
			if err != nil {
				t.Fatalf("cut at %d: %v after %q", cut, err, got)
			}
			got += string(b[:n])
		}
		r.Close()
	}
}

func TestMessagesUpToTheLimit(t *testing.T) {
	const limit = 256 << 10
	f := start(t, &chat{}, func(o *Options) { o.MaxRecvBytes = limit })
	sized := func(n int) *reprisev1.ClientFrame { // encodes to n bytes
		return frame(strings.Repeat("x", n-1-len(binary.AppendUvarint(nil, uint64(n)))))
	}
	for _, tt := range []struct {
		size int
		code codes.Code
	}{{limit, codes.OK}, {limit + 1, codes.ResourceExhausted}, {limit + 60<<10, codes.ResourceExhausted}} {
		w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got reprisev1.ServerFrame
		if err = w.SendMessage(sized(tt.size)); err == nil {
			err = w.Recv(&got)
		}
		if status.Code(err) != tt.code {
			t.Errorf("websocket, %d bytes: %v, want %v", tt.size, err, tt.code)
		}
		w.Close()
		p, err := webtest.Post(ctxOf(t), f.client, f.base, connect, webtest.Options{}, sized(tt.size))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Recv(&got); status.Code(err) != tt.code {
			t.Errorf("fetch, %d bytes: %v, want %v", tt.size, err, tt.code)
		}
		p.Close()
	}
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	err = errors.Join(w.SendMessage(sized(2*limit)), w.Recv(&reprisev1.ServerFrame{}))
	wantReason(t, "twice the limit", err, reason.FrameTooLarge)
}

func TestNoCompression(t *testing.T) {
	f := start(t, &chat{}, nil)
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if ext := w.Response.Header.Get("Sec-WebSocket-Extensions"); ext != "" {
		t.Errorf("agreed to %q", ext)
	}
	if err := errors.Join(w.SendMessage(frame("r1")), w.Recv(&reprisev1.ServerFrame{})); err != nil {
		t.Error(err)
	}
}

func TestSlowAndLargeHeaders(t *testing.T) {
	f := start(t, &chat{}, func(o *Options) { o.HeaderTimeout = 100 * time.Millisecond })
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ")
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a request's header may take for ever")
	}
	large := "GET / HTTP/1.1\r\nHost: " + f.addr + "\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"
	if got := rawStatus(t, f.addr, large); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB: %d, want 431", got)
	}
}

// The websocket library answers each ping; nothing piles up and the call goes
// on.
func TestPingsAreBounded(t *testing.T) {
	f := start(t, &chat{}, func(o *Options) { o.WriteTimeout = time.Second })
	r, err := webtest.DialRaw(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(r.Upgrade(connect), r.WriteFrame(webtest.OpBinary, []byte(goodBlock)),
		r.WriteFrame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(frame("r1"))...))); err != nil {
		t.Fatal(err)
	}
	before := heap()
	ping := webtest.Frame(webtest.OpPing, make([]byte, 125))
	_ = r.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for range 50_000 { // the pongs are not read
		if _, err := r.Write(ping); err != nil {
			break
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	r.Close()
	eventually(t, "the call has ended", func() bool { return f.calls.count() == 0 })
}

// Closing, the library reads a frame that has begun to its end without a
// timeout.
func TestEndlessFrameAtTheEnd(t *testing.T) {
	t.Parallel()
	f := start(t, &chat{onConnect: func(grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		return nil
	}}, func(o *Options) { o.WriteTimeout, o.CloseTimeout = 100*time.Millisecond, 200*time.Millisecond })
	r, err := webtest.DialRaw(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(r.Upgrade(connect), r.WriteFrame(webtest.OpBinary, []byte(goodBlock))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write(webtest.FrameHeader(webtest.OpBinary, 1<<40)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	gone := closed(r)
	for {
		select {
		case <-gone:
			return
		case <-ctx.Done():
			t.Fatal("the connection is still open")
		case <-time.After(50 * time.Millisecond):
			_, _ = r.Write([]byte{0})
		}
	}
}

// A peer that resets right after a beginning that gRPC refuses: the answer
// fails to be written while nobody reads.
func TestBadBeginningsOfPeersThatLeave(t *testing.T) {
	f := start(t, &chat{}, func(o *Options) { o.MaxConnsPerAddress, o.MaxCallsPerAddress = 10000, 10000 })
	all := webtest.UpgradeRequest(f.addr, connect) +
		string(webtest.Frame(webtest.OpBinary, []byte(goodBlock+"grpc-timeout: soon\r\n")))
	goroutines := runtime.NumGoroutine()
	for range 300 {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, all)
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	if !within(func() bool { return f.calls.count() == 0 && runtime.NumGoroutine() <= goroutines }) {
		t.Errorf("%d calls are left, %d goroutines before, %d after:\n%s", f.calls.count(), goroutines, runtime.NumGoroutine(), stacks())
	}
}
