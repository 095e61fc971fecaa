package gateway

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/reprise-chat/reprise/server/internal/forwarded"
	"github.com/reprise-chat/reprise/server/internal/limit"
)

// listener accepts connections within the bounds and keeps track of them.
type listener struct {
	net.Listener
	conns        *connSet
	writeTimeout time.Duration
	proxies      forwarded.Proxies
	refused      func(addr string)
}

// Accept returns the next connection within the bounds. One beyond them is
// closed: letting it wait would let one address hold up all others.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := limit.Address(nc.RemoteAddr().String())
		if l.proxies.TrustsPeer(nc.RemoteAddr()) {
			address = everybody
		}
		if c := l.conns.add(nc, address, l.writeTimeout); c != nil {
			l.conns.log.Debug("connection opened", "port", "http", "peer", nc.RemoteAddr().String())
			return c, nil
		}
		l.refused(limit.Address(nc.RemoteAddr().String()))
		nc.Close()
	}
}

// connSet holds every open connection, hijacked ones too, which http.Server
// forgets about.
type connSet struct {
	tally *tally
	log   *slog.Logger

	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

func newConnSet(t *tally, log *slog.Logger) *connSet {
	return &connSet{tally: t, log: log, open: make(map[*conn]struct{})}
}

// add wraps nc, or returns nil if there are too many or all were closed.
func (s *connSet) add(nc net.Conn, address string, writeTimeout time.Duration) *conn {
	c := newConn(nc, s, address, writeTimeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.tally.take(c.address) {
		return nil
	}
	s.open[c] = struct{}{}
	return c
}

func (s *connSet) remove(c *conn) {
	s.mu.Lock()
	_, ok := s.open[c]
	delete(s.open, c)
	s.mu.Unlock()
	if ok {
		s.tally.give(c.address)
		s.log.Debug("connection closed", "port", "http", "peer", c.RemoteAddr().String())
	}
}

// all returns what is open.
func (s *connSet) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	return open
}

// closeAll closes what is open and refuses what comes.
func (s *connSet) closeAll() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, c := range s.all() {
		_ = c.kill()
	}
}

// sweep ends connections to dead peers until stop is closed. One goroutine
// does it for all: a timer a connection would cost each write.
func (s *connSet) sweep(every time.Duration, stop <-chan struct{}) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			for _, c := range s.all() {
				c.sweep(now)
			}
		case <-stop:
			return
		}
	}
}
