package robustness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/internal/history"
	"github.com/reprise-chat/reprise/internal/history/witness"
)

// settleTimeout bounds how long clients may take to catch up, or a publish to
// be acknowledged, once nothing goes wrong any more.
const settleTimeout = time.Minute

// loadConfig says how much load. The zero value of each field is a default.
type loadConfig struct {
	clients int           // users with an SDK client each; 6
	rooms   int           // 4; every client is in all of them but one
	every   time.Duration // between the publishes of one client; 40 ms
	bytes   int           // of most texts; 256. One in 16 has 32 times as many

	// addresses returns the servers that a client knows, so that a proxy can
	// stand between. Nil: the process.
	addresses func(client int) []string
	// auditor is the address that logs are read through at the end. Empty: the
	// process.
	auditor string
	// trimmed: retention may remove events while the load runs.
	trimmed bool
	// handle, if not nil, is called with each event on its client's handler,
	// before it is written down.
	handle func(client int, e reprise.Event)
}

// load is SDK clients that talk, and what they saw. Its methods are for the
// test's goroutine.
type load struct {
	t       testing.TB
	cfg     loadConfig
	trace   *history.Trace
	clients []*member
	rooms   []string
	auditor *reprise.Client
	started time.Time

	// Talk under way; nil if there is none.
	hushed  context.CancelFunc
	talkers sync.WaitGroup

	moved chan struct{} // capacity 1: somebody was handed something, or a publish was acknowledged

	mu    sync.Mutex
	acked map[string]uint64 // by room: the greatest offset acknowledged

	acknowledged atomic.Uint64
	ledger       ledger // of the windows checked so far
	violations   []history.Violation
	recovery     time.Duration // the slowest
}

// member is one client of a load.
type member struct {
	*witness.Client
	l      *load
	number int
	rooms  []string
	sdk    *reprise.Client
	cancel context.CancelFunc
	ran    chan error
	conns  conns
	sent   atomic.Uint64
}

// newLoad joins the rooms and starts the clients, which listen. The process
// must serve. At the end of the test they are stopped.
func newLoad(t testing.TB, p *process, cfg loadConfig) *load {
	t.Helper()
	setDefault(&cfg.clients, 6)
	setDefault(&cfg.rooms, 4)
	setDefault(&cfg.every, 40*time.Millisecond)
	setDefault(&cfg.bytes, 256)
	setDefault(&cfg.auditor, p.grpc)
	if cfg.addresses == nil {
		cfg.addresses = func(int) []string { return []string{p.grpc} }
	}
	l := &load{
		t: t, cfg: cfg, trace: history.NewTrace(nil), started: time.Now(),
		moved: make(chan struct{}, 1), acked: make(map[string]uint64), ledger: newLedger(),
	}
	t.Cleanup(l.stop)
	for i := range cfg.rooms {
		l.rooms = append(l.rooms, fmt.Sprintf("room-%d", i))
	}
	l.auditor = l.newSDK("auditor", []string{cfg.auditor})
	l.join(l.auditor, l.rooms)
	for i := range cfg.clients {
		l.addMember(i)
	}
	return l
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// newSDK returns an SDK client that gives up waiting sooner than people need.
func (l *load) newSDK(user string, addresses []string, opts ...grpc.DialOption) *reprise.Client {
	l.t.Helper()
	sdk, err := reprise.New(reprise.Config{
		Logger:     slog.New(slog.DiscardHandler),
		Addresses:  addresses,
		Token:      func(context.Context) (string, error) { return "dev:" + user, nil },
		BackoffMin: 20 * time.Millisecond, BackoffMax: 500 * time.Millisecond,
		DialOptions: opts,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return sdk
}

func (l *load) join(sdk *reprise.Client, rooms []string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	for _, room := range rooms {
		if _, err := sdk.Join(ctx, room, 0); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *load) addMember(i int) {
	l.t.Helper()
	m := &member{l: l, number: i, ran: make(chan error, 1)}
	name := fmt.Sprintf("user-%d", i)
	m.Client = witness.New(name, l.trace, func(e reprise.Event) {
		if l.cfg.handle != nil {
			l.cfg.handle(i, e)
		}
	})
	for j, room := range l.rooms {
		if len(l.rooms) == 1 || j != i%len(l.rooms) {
			m.rooms = append(m.rooms, room)
		}
	}
	m.sdk = l.newSDK(name, l.cfg.addresses(i), grpc.WithStreamInterceptor(m.Observe), grpc.WithContextDialer(m.conns.dial))
	l.join(m.sdk, m.rooms)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	l.clients = append(l.clients, m)
	go func() { m.ran <- m.sdk.Run(ctx, m) }()
}

// HandleEvent implements [reprise.Handler].
func (m *member) HandleEvent(ctx context.Context, e reprise.Event) error {
	err := m.Client.HandleEvent(ctx, e)
	m.l.stir()
	return err
}

// HandleRoom implements [reprise.RoomHandler].
func (m *member) HandleRoom(ctx context.Context, s reprise.RoomState) error {
	err := m.Client.HandleRoom(ctx, s)
	m.l.stir()
	return err
}

// HandleGap implements [reprise.Handler].
func (m *member) HandleGap(ctx context.Context, g reprise.Gap) error {
	err := m.Client.HandleGap(ctx, g)
	m.l.stir()
	return err
}

func (l *load) stir() {
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// talk has the clients publish from now on.
func (l *load) talk() {
	if l.hushed != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.hushed = cancel
	for _, m := range l.clients {
		// Two at a time, so that publishes of one client overlap.
		for range 2 {
			l.talkers.Go(func() { m.talk(ctx, 2*l.cfg.every) })
		}
	}
}

// hush has the clients stop publishing, and waits until everything they began
// to publish is acknowledged. The server must serve.
func (l *load) hush() {
	l.t.Helper()
	if l.hushed == nil {
		return
	}
	l.hushed()
	done := make(chan struct{})
	go func() { l.talkers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(settleTimeout):
		l.fail("publishes are not acknowledged within %v", settleTimeout)
	}
	l.hushed = nil
}

func (m *member) talk(ctx context.Context, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(2 * every)):
		}
		m.publish()
	}
}

// publish publishes one message, however long that takes, with the same client
// id for every attempt.
func (m *member) publish() {
	room := m.rooms[rand.IntN(len(m.rooms))]
	n := m.sent.Add(1)
	id := fmt.Sprintf("m%d", n)
	size := m.l.cfg.bytes
	if n%16 == 0 {
		size *= 32
	}
	text := strings.Repeat("x", size)
	for {
		// Each attempt has little time, so that some give up although what they
		// sent is in the log, and the next one must be told so.
		receipt, err := m.Publish(room, id, func() (reprise.Receipt, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			return m.sdk.Send(ctx, room, text, reprise.WithClientID(id))
		})
		switch {
		case err == nil:
			m.l.acknowledge(room, receipt.Offset)
			return
		case errors.Is(err, reprise.ErrClosed):
			return // the test has ended
		case !errors.Is(err, context.DeadlineExceeded):
			m.l.t.Errorf("%s: publishing to %s: %v", m.Name(), room, err)
			return
		}
	}
}

func (l *load) acknowledge(room string, off uint64) {
	l.acknowledged.Add(1)
	l.mu.Lock()
	l.acked[room] = max(l.acked[room], off)
	l.mu.Unlock()
	l.stir()
}

// waitAcknowledged waits until n more publishes were acknowledged.
func (l *load) waitAcknowledged(n uint64) {
	l.t.Helper()
	want := l.acknowledged.Load() + n
	l.wait("publishes are acknowledged", func() string {
		if have := l.acknowledged.Load(); have < want {
			return fmt.Sprintf("%d of %d", have, want)
		}
		return ""
	})
}

// recovered waits until, while the clients talk, something more is
// acknowledged, and then until every client holds everything that has been. It
// counts the time from since, which is when the fault ended, as a recovery.
func (l *load) recovered(since time.Time) time.Duration {
	l.t.Helper()
	if l.hushed != nil {
		l.waitAcknowledged(1)
	}
	l.mu.Lock()
	heads := make(map[string]uint64, len(l.acked))
	for room, off := range l.acked {
		heads[room] = off
	}
	l.mu.Unlock()
	l.waitFor(heads)
	took := time.Since(since)
	l.recovery = max(l.recovery, took)
	return took
}

// head returns the greatest offset of a room that was acknowledged.
func (l *load) head(room string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked[room]
}

// waitFor waits until every client holds at least these offsets of its rooms.
func (l *load) waitFor(heads map[string]uint64) {
	l.t.Helper()
	l.wait("every client catches up", func() string {
		for _, m := range l.clients {
			for _, room := range m.rooms {
				if held, ok := m.Holds(room); !ok || held < heads[room] {
					return fmt.Sprintf("%s holds %d of %s, of %d; it is %v", m.Name(), held, room, heads[room], m.sdk.State())
				}
			}
		}
		return ""
	})
}

// wait waits until missing returns "".
func (l *load) wait(what string, missing func() string) {
	l.t.Helper()
	limit := time.NewTimer(settleTimeout)
	defer limit.Stop()
	for {
		lacks := missing()
		if lacks == "" {
			return
		}
		select {
		case <-l.moved:
		case <-limit.C:
			l.fail("not within %v that %s: %s", settleTimeout, what, lacks)
		}
	}
}

// settle has everybody be quiet and hold everything. Afterwards nothing is
// published or delivered.
func (l *load) settle() {
	l.t.Helper()
	l.hush()
	heads := make(map[string]uint64, len(l.rooms))
	for _, room := range l.rooms {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		r, err := l.auditor.GetRoom(ctx, room)
		cancel()
		if err != nil {
			l.t.Fatal(err)
		}
		heads[room] = r.GetHead()
	}
	l.waitFor(heads)
}

// cut closes every connection of a client from its own end.
func (l *load) cut(client int) { l.clients[client].conns.cut() }

// stop ends the clients; it may be called more than once.
func (l *load) stop() {
	if l.hushed != nil {
		l.hushed()
	}
	for _, m := range l.clients {
		m.cancel()
		if err := <-m.ran; err != nil && !errors.Is(err, context.Canceled) {
			l.t.Errorf("%s: Run ended with %v", m.Name(), err)
		}
		if err := m.sdk.Close(); err != nil {
			l.t.Errorf("%s: Close: %v", m.Name(), err)
		}
	}
	if l.auditor != nil {
		l.auditor.Close()
	}
	l.talkers.Wait()
	l.clients, l.auditor, l.hushed = nil, nil, nil
}

// conns are the connections of a client.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{}
}

// dial is the client's dialer.
func (c *conns) dial(ctx context.Context, address string) (net.Conn, error) {
	inner, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: inner, of: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[*conn]struct{})
	}
	c.open[k] = struct{}{}
	return k, nil
}

func (c *conns) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.open {
		_ = k.Conn.Close()
	}
}

type conn struct {
	net.Conn
	of *conns
}

// Close implements [net.Conn].
func (k *conn) Close() error {
	k.of.mu.Lock()
	delete(k.of.open, k)
	k.of.mu.Unlock()
	return k.Conn.Close()
}
