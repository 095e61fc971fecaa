// Package listen bounds the connections of a listener, in all and by address,
// and keeps accepting when the process is out of descriptors.
package listen

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/reprise-chat/reprise/server/internal/forwarded"
	"github.com/reprise-chat/reprise/server/internal/limit"
)

// Options of a Listener.
type Options struct {
	// Total bounds open connections, and PerAddress those of one address (IPv6:
	// one /64). Below 0 is no bound; without any, connections are not counted.
	Total, PerAddress int
	// Proxies have the connections of many clients: PerAddress does not bound
	// theirs.
	Proxies forwarded.Proxies
	// Logger gets a line at most once in LogEvery, default 10 s, about
	// connections that were refused, and about a lack of descriptors.
	Logger   *slog.Logger
	LogEvery time.Duration
}

// pause is how long nothing is accepted after the system has refused it.
const pause = 100 * time.Millisecond

// Listener accepts connections within bounds. One beyond them is closed at
// once: letting it wait would let one address hold up all others.
//
// Its connections are what the system's listener returned, and not wrapped:
// gRPC reads a *net.TCPConn without holding a buffer for it, and watches its
// peer by options of the socket. So nobody says when one is closed, and the
// Listener looks: at those of an address that is at its bound, and at all when
// all are or their number has doubled.
type Listener struct {
	net.Listener
	opts Options

	refused, exhausted throttled

	done  chan struct{}
	close sync.Once

	mu      sync.Mutex
	open    map[string][]net.Conn // by address; some are closed by now
	count   int
	sweepAt int
	swept   time.Time
	fresh   int // admitted since then
}

const (
	firstSweep = 1024
	// sweepEvery bounds how often all are looked at because of refusals, unless
	// an eighth of them has come since the last time.
	sweepEvery = 100 * time.Millisecond
)

// New returns a Listener over l, which it owns.
func New(l net.Listener, o Options) *Listener {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.LogEvery == 0 {
		o.LogEvery = 10 * time.Second
	}
	return &Listener{
		Listener: l, opts: o, refused: throttled{every: o.LogEvery}, exhausted: throttled{every: o.LogEvery},
		done: make(chan struct{}), open: make(map[string][]net.Conn), sweepAt: firstSweep,
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		switch {
		case err != nil && Exhausted(err):
			l.lack(err)
			if !l.wait() {
				return nil, net.ErrClosed
			}
			continue
		case err != nil:
			return nil, err
		}
		address := limit.Address(c.RemoteAddr().String())
		if l.admit(address, c) {
			return c, nil
		}
		if n, ok := l.refused.take(); ok {
			l.opts.Logger.Warn("refused a connection: too many are open", "address", address, "listener", l.Addr().String(),
				"limit", l.opts.Total, "address_limit", l.opts.PerAddress, "suppressed", n)
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // nothing of it is to stay in the kernel
		}
		_ = c.Close()
	}
}

// Exhausted says that the system has no descriptor or memory for another
// connection.
func Exhausted(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (l *Listener) lack(err error) {
	if n, ok := l.exhausted.take(); ok {
		l.opts.Logger.Log(context.Background(), slog.LevelWarn, "cannot accept connections: the system is out of descriptors or memory (ulimit -n)",
			"listener", l.Addr().String(), "error", err, "suppressed", n)
	}
}

// wait pauses, and returns false if the listener was closed.
func (l *Listener) wait() bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

// Close implements net.Listener. The connections stay.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// Open returns how many connections are open.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepLocked(time.Now())
	return l.count
}

func (l *Listener) admit(address string, c net.Conn) bool {
	total, per := l.opts.Total, l.opts.PerAddress
	if l.opts.Proxies.TrustsPeer(c.RemoteAddr()) {
		per = -1
	}
	if total < 0 && per < 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	full := total >= 0 && l.count >= total
	if l.count >= l.sweepAt || full && (l.fresh > total/8 || now.Sub(l.swept) >= sweepEvery) {
		l.sweepLocked(now)
	}
	if per >= 0 && len(l.open[address]) >= per {
		l.pruneLocked(address)
	}
	if total >= 0 && l.count >= total || per >= 0 && len(l.open[address]) >= per {
		return false
	}
	l.open[address] = append(l.open[address], c)
	l.count++
	l.fresh++
	return true
}

func (l *Listener) sweepLocked(now time.Time) {
	for address := range l.open {
		l.pruneLocked(address)
	}
	l.sweepAt, l.swept, l.fresh = max(firstSweep, 2*l.count), now, 0
}

// pruneLocked forgets an address's connections that are closed.
func (l *Listener) pruneLocked(address string) {
	all := l.open[address]
	kept := all[:0]
	for _, c := range all {
		if isOpen(c) {
			kept = append(kept, c)
		}
	}
	clear(all[len(kept):])
	l.count -= len(all) - len(kept)
	if len(kept) == 0 {
		delete(l.open, address)
		return
	}
	l.open[address] = kept
}

// isOpen says whether nobody has closed c.
func isOpen(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	return err == nil && raw.Control(func(uintptr) {}) == nil
}

// throttled lets one line through in a while and counts the others.
type throttled struct {
	every time.Duration
	mu    sync.Mutex
	last  time.Time
	left  atomic.Int64
}

// take says whether a line may be written, and how many were not since the
// last one.
func (t *throttled) take() (left int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.last.IsZero() || now.Sub(t.last) >= t.every {
		t.last = now
		return t.left.Swap(0), true
	}
	t.left.Add(1)
	return 0, false
}
