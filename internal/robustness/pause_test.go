package robustness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/internal/history"
	"github.com/reprise-chat/reprise/internal/history/witness"
)

// successor is the client that takes over the session of a stopped holder, as a
// restored snapshot of its machine would: from a copy of its positions.
type successor struct {
	*witness.Client
	sdk    *reprise.Client
	live   chan fence // once it has caught up
	cancel context.CancelFunc
	ran    chan error
}

// fence is an attach number, and when everything older is known to be fenced.
type fence struct {
	attach uint64
	at     int64 // on the trace's clock
}

func succeed(t *testing.T, trace *history.Trace, do task) *successor {
	t.Helper()
	store, err := reprise.OpenFile(do.Positions)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &successor{Client: witness.New(do.User+"/"+filepath.Base(do.Positions), trace, nil), live: make(chan fence, 1), ran: make(chan error, 1)}
	for _, p := range saved.Places {
		at := p.Position
		trace.Add(history.Record{P: s.Name(), K: history.Place, Room: at.Room, Inc: at.Incarnation, Off: at.Offset})
	}
	s.sdk, err = reprise.New(reprise.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Addresses: []string{do.Address}, Positions: store,
		Token:       func(context.Context) (string, error) { return "dev:" + do.User, nil },
		DialOptions: []grpc.DialOption{grpc.WithStreamInterceptor(s.Observe)},
		Takeover:    reprise.TakeoverTakeOver,
		OnState: func(state reprise.State) {
			if state.Phase == reprise.Live {
				select {
				case s.live <- fence{state.Attach, trace.Now()}:
				default:
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.ran <- s.sdk.Run(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		s.sdk.Close()
		store.Close()
	})
	return s
}

func (s *successor) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	if err := <-s.ran; err != nil {
		t.Errorf("%s: Run: %v", s.Name(), err)
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err := errors.Join(err, os.WriteFile(to, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// takeOver stops a holder, has another client take its session over, and wakes
// the holder.
func takeOver(t *testing.T, l *load, do task) {
	t.Helper()
	h := startHolder(t, l.trace, do)
	h.await("a call that succeeds", func(r history.Record) bool { return r.K == acknowledgement && r.Ph == history.OK })
	h.signal(syscall.SIGSTOP)
	next := do
	next.Positions += "-next"
	copyFile(t, next.Positions, do.Positions)
	s := succeed(t, l.trace, next)
	fence := <-s.live
	for n := range 10 {
		id := fmt.Sprintf("%s-%d", filepath.Base(next.Positions), n)
		end := begin(l.trace, next, id, nil)
		receipt, err := s.sdk.Send(t.Context(), do.Room, "text of "+id, reprise.WithClientID(id))
		if err != nil {
			t.Fatal(err)
		}
		end(history.OK, receipt.Incarnation, receipt.Offset)
	}
	h.signal(syscall.SIGCONT)
	h.wait()
	s.stop(t)
	checkFence(t, h.all(), fence)
	l.trace.Merge(h.all())
}

// checkFence requires that a holder did not get past a fence, and was refused
// what it acknowledged behind it. Its publishes are the checker's business.
func checkFence(t *testing.T, records []history.Record, fence fence) {
	t.Helper()
	refused, late := 0, false
	for _, r := range records {
		switch {
		case r.Attach >= fence.attach:
			t.Errorf("the holder was taken over as %d and got further: %v", fence.attach, r)
		case r.K != acknowledgement:
		case r.Ph == history.Call: // one at a time
			late = r.T > fence.at
		case r.Ph == history.Fail:
			refused++
		case late:
			t.Errorf("the holder was taken over as %d and has acknowledged: %v", fence.attach, r)
		}
	}
	if refused < refusals {
		t.Errorf("%d acknowledgements were refused, of at least %d", refused, refusals)
	}
}

// TestP5_PausedHolder has the holder of a session stopped, taken over, and
// woken: whatever it says then is refused.
func TestP5_PausedHolder(t *testing.T) {
	needFaults(t)
	t.Parallel()
	rounds := times(t, "REPRISE_PAUSES", 3)
	p := newProcess(t, tags())
	p.start()
	l := newLoad(t, p, loadConfig{clients: 3})
	dir := t.TempDir()
	for round := range rounds {
		l.talk()
		takeOver(t, l, task{
			Address: p.grpc, User: "holder", Room: l.rooms[0], Stubborn: true,
			Positions: filepath.Join(dir, fmt.Sprintf("holder-%d", round)),
		})
		l.check()
	}
	l.finish("holder of a session stopped, taken over, and woken", rounds)
}

// longestPause is how long something stands still: 2 s at most, or what
// REPRISE_PAUSE says.
func longestPause(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("REPRISE_PAUSE")
	if s == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second {
		t.Fatalf("REPRISE_PAUSE=%q: want a duration of a second or more", s)
	}
	return d
}

// TestPausedServer has the server stand still, under load: its clients wait or
// come back.
func TestPausedServer(t *testing.T) {
	needFaults(t)
	t.Parallel()
	pauses, longest := times(t, "REPRISE_PAUSES", 3), longestPause(t)
	p := newProcess(t, "")
	p.start()
	l := newLoad(t, p, loadConfig{clients: 4})
	for range pauses {
		l.talk()
		l.waitAcknowledged(20)
		p.pause()
		time.Sleep(time.Second + rand.N(longest-time.Second+1))
		p.resume()
		l.recovered(time.Now())
	}
	l.finish("server stopped for a while", pauses)
}

// TestPausedClient has a client stand still, whose session nobody takes over:
// it wakes up, at its place.
func TestPausedClient(t *testing.T) {
	needFaults(t)
	t.Parallel()
	pauses, longest := times(t, "REPRISE_PAUSES", 3), longestPause(t)
	p := newProcess(t, "")
	p.start()
	l := newLoad(t, p, loadConfig{clients: 3})
	room := l.rooms[0]
	h := startHolder(t, l.trace, task{
		Address: p.grpc, User: "sleeper", Room: room, Positions: filepath.Join(t.TempDir(), "sleeper"),
	})
	for range pauses {
		l.talk()
		h.awaitMore("deliveries", 20, func(r history.Record) bool { return r.K == history.Deliver })
		h.signal(syscall.SIGSTOP)
		time.Sleep(time.Second + rand.N(longest-time.Second+1))
		l.waitAcknowledged(20)
		h.signal(syscall.SIGCONT)
		began, head := time.Now(), l.head(room)
		h.await("the head", func(r history.Record) bool { return r.K == history.Deliver && r.Room == room && r.Off >= head })
		l.recovery = max(l.recovery, time.Since(began))
	}
	h.stop()
	l.trace.Merge(h.all())
	l.finish("client stopped for a while", pauses)
}

// TestP5_PausedHolderCanFail: a server that listens to a holder after it was
// taken over is caught.
func TestP5_PausedHolderCanFail(t *testing.T) {
	needFaults(t)
	t.Parallel()
	mustNotice(t, "ignore-fence", "TestP5_PausedHolder", "P5 fenced", "REPRISE_PAUSES=1")
}
