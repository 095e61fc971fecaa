package listen

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reprise-chat/reprise/server/internal/forwarded"
)

// log counts its lines. Safe for concurrent use.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(b))
	return len(b), nil
}

func (l *lines) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// serve accepts until the test ends, and holds what it accepts.
func serve(t *testing.T, o Options) (l *Listener, accepted chan net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, accepted = New(inner, o), make(chan net.Conn, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l, accepted
}

// dial connects from an address, and reports whether the other side keeps the
// connection.
func dial(t *testing.T, l *Listener, from string, accepted chan net.Conn) (server net.Conn) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ended := make(chan struct{})
	go func() {
		_, _ = c.Read(make([]byte, 1))
		close(ended)
	}()
	select {
	case server = <-accepted:
		return server
	case <-ended:
		return nil
	case <-time.After(time.Minute):
		t.Fatal("the connection is neither accepted nor refused")
		return nil
	}
}

func TestBounds(t *testing.T) {
	log := new(lines)
	l, accepted := serve(t, Options{Total: 5, PerAddress: 3, Logger: slog.New(slog.NewTextHandler(log, nil))})
	var kept []net.Conn
	for range 3 {
		c := dial(t, l, "127.0.0.1", accepted)
		if _, bare := c.(*net.TCPConn); !bare {
			t.Fatalf("a connection within the bounds is %T", c)
		}
		kept = append(kept, c)
	}
	if dial(t, l, "127.0.0.1", accepted) != nil {
		t.Error("a fourth connection of one address is accepted")
	}
	for range 2 {
		kept = append(kept, dial(t, l, "127.0.0.2", accepted))
	}
	if dial(t, l, "127.0.0.3", accepted) != nil {
		t.Error("a sixth connection is accepted")
	}
	if l.Open() != 5 || log.count("refused a connection") != 1 {
		t.Errorf("%d are open, and the log has %d lines", l.Open(), log.count("refused a connection"))
	}
	// What is closed makes room.
	if err := kept[0].Close(); err != nil {
		t.Fatal(err)
	}
	if dial(t, l, "127.0.0.1", accepted) == nil {
		t.Error("no connection is accepted in place of one that was closed")
	}
	for _, c := range kept {
		_ = c.Close()
	}
	if n := l.Open(); n != 1 {
		t.Errorf("%d are open, not the last one", n)
	}
}

// TestProxiesAreBoundedInAll: the bound by address is not for proxies, which have many
// clients' connections, and the total is. Connections of theirs that come and go fast are
// not taken for open ones.
func TestProxiesAreBoundedInAll(t *testing.T) {
	proxies, err := forwarded.Parse([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	const total, per = 8, 2
	l, accepted := serve(t, Options{Total: total, PerAddress: per, Proxies: proxies, Logger: slog.New(slog.DiscardHandler)})
	for i := range 5 * total {
		c := dial(t, l, "127.0.0.1", accepted)
		if c == nil {
			t.Fatalf("the proxy is refused after %d connections, all of them closed", i)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(from string) bool {
		c := dial(t, l, from, accepted)
		if c != nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return c != nil
	}
	for range per {
		if !keep("127.0.0.2") {
			t.Error("an address that is no proxy has fewer connections than it may")
		}
	}
	if keep("127.0.0.2") {
		t.Error("an address that is no proxy has more connections than it may")
	}
	for i := range total - per {
		if !keep("127.0.0.1") {
			t.Fatalf("the proxy may have no more than %d connections", i)
		}
	}
	if keep("127.0.0.1") {
		t.Error("the proxy has more connections than there may be in all")
	}
}

// TestClosedAreForgotten: with bounds that nobody reaches, what is kept does not grow with
// the connections there have been.
func TestClosedAreForgotten(t *testing.T) {
	l := New(nil, Options{Total: 1 << 30, PerAddress: 1 << 30})
	for range 20 * firstSweep {
		a, b := net.Pipe()
		_ = b.Close()
		l.admit("10.0.0.1", closed{a})
	}
	if l.count > 2*firstSweep {
		t.Errorf("%d connections are remembered", l.count)
	}
}

// closed is a connection whose descriptor is gone.
type closed struct{ net.Conn }

func (closed) SyscallConn() (syscall.RawConn, error) { return nil, os.ErrClosed }

// exhausted is a listener that the system has nothing for, at first.
type exhausted struct {
	net.Listener
	left int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.left--; e.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return nil, io.EOF
}

func (e *exhausted) Addr() net.Addr { return &net.TCPAddr{} }

func TestOutOfDescriptors(t *testing.T) {
	log := new(lines)
	l := New(&exhausted{left: 5}, Options{Total: -1, PerAddress: -1, Logger: slog.New(slog.NewTextHandler(log, nil))})
	began := time.Now()
	if _, err := l.Accept(); !errors.Is(err, io.EOF) {
		t.Errorf("the listener ends with %v", err)
	}
	if took := time.Since(began); took < 5*pause {
		t.Errorf("it tried five times within %v", took)
	}
	if n := log.count("out of descriptors"); n != 1 {
		t.Errorf("five failures in a row made %d lines", n)
	}
}

func TestDivide(t *testing.T) {
	for _, c := range []struct {
		descriptors, grpc, http int
		want                    Shares
		fails                   bool
	}{
		{1024, 0, 0, Shares{1024, 256, 352, 352}, false},
		{256, 0, 0, Shares{256, 64, 64, 64}, false},
		{100, 0, 0, Shares{}, true},
		{1 << 20, 0, 0, Shares{1 << 20, 1000, 16384, 8192}, false},
		{unlimited, 0, 0, Shares{unlimited, 1000, 16384, 8192}, false},
		{1024, 600, 0, Shares{1024, 256, 600, 104}, false},
		{1024, 700, 0, Shares{}, true},
		{1024, 0, 600, Shares{1024, 256, 104, 600}, false},
		{1024, 300, 500, Shares{}, true},
		{1024, 300, 4, Shares{1024, 256, 300, 4}, false},
		{1 << 20, 100_000, 9000, Shares{1 << 20, 1000, 100_000, 9000}, false},
	} {
		got, err := Divide(c.descriptors, c.grpc, c.http)
		if (err != nil) != c.fails || !c.fails && got != c.want {
			t.Errorf("%d descriptors, %d and %d connections: %+v, %v", c.descriptors, c.grpc, c.http, got, err)
		}
	}
	if n := Descriptors(); n < 256 {
		t.Errorf("this test may open %d files", n)
	}
}
