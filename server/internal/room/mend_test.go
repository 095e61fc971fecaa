package room_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// faulty is a store with faults that come and go.
type faulty struct {
	store.Store
	conflicts atomic.Int32            // of the coming appends, so many are refused at their turn
	opening   func(name string) error // asked before a log is opened; may be nil
	trimming  func(name string) error // asked before a log is trimmed; may be nil
	removing  func(name string) error // asked before a room is removed; may be nil
}

func (s *faulty) OpenLog(ctx context.Context, name string) (store.Log, error) {
	if s.opening != nil {
		if err := s.opening(name); err != nil {
			return nil, err
		}
	}
	l, err := s.Store.OpenLog(ctx, name)
	return faultyLog{l, s, name}, err
}

func (s *faulty) RemoveRoom(ctx context.Context, e store.EmptyRoom) (bool, error) {
	if s.removing != nil {
		if err := s.removing(e.Name); err != nil {
			return false, err
		}
	}
	return s.Store.RemoveRoom(ctx, e)
}

type faultyLog struct {
	store.Log
	s    *faulty
	name string
}

// Append has the engine refuse an append at its turn by giving it another head
// than the room has.
func (l faultyLog) Append(a *store.Append) error {
	if l.s.conflicts.Load() > 0 && l.s.conflicts.Add(-1) >= 0 {
		a.Expect += 1 << 20
	}
	return l.Log.Append(a)
}

func (l faultyLog) Trim(ctx context.Context, b store.Bounds) (store.State, error) {
	if l.s.trimming != nil {
		if err := l.s.trimming(l.name); err != nil {
			return l.State(), err
		}
	}
	return l.Log.Trim(ctx, b)
}

// faultyHub returns a hub over a faulty store, whose syncs take as long as those
// of a disk, so that appends queue up.
func faultyHub(t *testing.T, o room.Options, po pebble.Options) (*room.Hub, *faulty) {
	t.Helper()
	if po.FS == nil {
		po.FS = vfs.NewMem()
	}
	po.FS = errorfs.Wrap(po.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}))
	po.Logger = slog.New(slog.DiscardHandler)
	st, err := pebble.Open("data", po)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Store: st}
	o.CreateOnJoin, o.Logger = true, po.Logger
	h := room.NewHub(f, o)
	t.Cleanup(func() {
		h.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, f
}

// reader follows a room from its start and checks that nothing is missing or
// comes twice.
type reader struct {
	t    *testing.T
	c    room.Cursor
	wake chan struct{}
	head uint64
	ids  map[string]uint64 // offsets by client id
}

func newReader(t *testing.T, r *room.Room) *reader {
	d := &reader{t: t, wake: make(chan struct{}, 1), ids: make(map[string]uint64)}
	d.c.Init(r, d, 0)
	t.Cleanup(d.c.Close)
	return d
}

func (d *reader) Wake(int) {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// until reads until the room's head is reached.
func (d *reader) until(head uint64) {
	d.t.Helper()
	for d.head < head {
		b, err := d.c.Next(d.t.Context(), 0, 1<<20)
		if err != nil {
			d.t.Fatal(err)
		}
		if b.Last == 0 {
			<-d.wake
			continue
		}
		events, err := event.DecodeAll(b.Data)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, e := range events {
			if e.GetAfter() != d.head {
				d.t.Fatalf("offset %d comes after %d, and %d is held", e.GetOffset(), e.GetAfter(), d.head)
			}
			d.head = e.GetOffset()
			if id := e.GetClientId(); id != "" {
				if before := d.ids[id]; before != 0 {
					d.t.Errorf("%s is at %d and at %d", id, before, d.head)
				}
				d.ids[id] = d.head
			}
		}
	}
}

// publishID publishes under a client id until it is not refused for a passing
// reason, and returns how often it was.
func publishID(t *testing.T, r *room.Room, id uint64, passing ...error) (rec room.Receipt, refusals int) {
	for {
		type answer struct {
			room.Receipt
			error
		}
		done := make(chan answer, 1)
		r.Publish(t.Context(), message(id), func(rec room.Receipt, err error) { done <- answer{rec, err} })
		a := <-done
		if a.error == nil {
			return a.Receipt, refusals
		}
		known := false
		for _, p := range passing {
			known = known || errors.Is(a.error, p)
		}
		if !known || refusals > 1000 {
			t.Errorf("publish %d, after %d refusals: %v", id, refusals, a.error)
			return a.Receipt, refusals
		}
		refusals++
		time.Sleep(time.Duration(min(refusals, 50)) * time.Millisecond)
	}
}

func clientID(id uint64) string { return message(id).Event.GetClientId() }

// TestP1_DiskReserve crosses the disk's reserve under load: the busy room takes
// writes again as soon as there is space, its readers go on, and every event is
// there once.
func TestP1_DiskReserve(t *testing.T) {
	mem := vfs.NewMem()
	const gib = 1 << 30
	free := func(n uint64) { mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: n, TotalBytes: 10 * gib}) }
	free(9 * gib)
	h, f := faultyHub(t, room.Options{}, pebble.Options{FS: mem, Reserve: gib})
	r := acquire(t, h, "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	d := newReader(t, r)
	var next, refused atomic.Uint64
	var receipts sync.Map
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := next.Add(1)
				rec, n := publishID(t, r, id, store.ErrDiskReserve)
				receipts.Store(clientID(id), rec.Offset)
				refused.Add(uint64(n))
			}
		})
	}
	for range 3 { // the disk is looked at once a second
		free(gib / 2)
		until(t, "the full disk refuses writes", func() bool { return f.Writable() != nil })
		free(9 * gib)
		until(t, "the disk that has room takes them", func() bool { return f.Writable() == nil })
		if _, err := publish(t.Context(), r, "after", nil); err != nil {
			t.Fatalf("the disk has room again, and the room refuses: %v", err)
		}
	}
	close(stop)
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("no publish was refused")
	}
	info, err := r.Info()
	if err != nil {
		t.Fatal(err)
	}
	d.until(info.Head)
	receipts.Range(func(id, offset any) bool {
		if d.ids[id.(string)] != offset.(uint64) {
			t.Errorf("%s was acknowledged at %d and is at %d", id, offset, d.ids[id.(string)])
		}
		return true
	})
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestP4_RefusedAppendHarmsNoOther has the engine refuse appends at their turn
// while many wait behind them: the room opens itself anew, who waited is told to
// try again, and nothing is missing, twice, or shown without being durable.
func TestP4_RefusedAppendHarmsNoOther(t *testing.T) {
	h, f := faultyHub(t, room.Options{}, pebble.Options{Reserve: -1})
	f.conflicts.Store(1)
	r := acquire(t, h, "lobby")
	// The creation is refused too: the room is not taken for one that exists.
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); !errors.Is(err, room.ErrUnavailable) {
		t.Fatalf("a creation that the engine refused: %v", err)
	}
	again(t, func() error { _, err := r.Join(t.Context(), "alice", room.Checks{}); return err })
	d := newReader(t, r)
	const publishers, each = 32, 40
	var refused atomic.Int64
	var wg sync.WaitGroup
	for p := range uint64(publishers) {
		wg.Go(func() {
			for i := range uint64(each) {
				if p == 0 && i%4 == 0 {
					f.conflicts.Add(1)
				}
				_, n := publishID(t, r, p*each+i+1, room.ErrUnavailable)
				refused.Add(int64(n))
			}
		})
		wg.Go(func() { // members come and go meanwhile
			user := fmt.Sprint("user", p)
			again(t, func() error { _, err := r.Join(t.Context(), user, room.Checks{}); return err })
			if p%2 == 0 {
				again(t, func() error { _, err := r.Leave(t.Context(), user, room.Checks{}); return err })
			}
		})
	}
	wg.Wait()
	if refused.Load() < 10 {
		t.Errorf("only %d publishes were refused", refused.Load())
	}
	if _, n := publishID(t, r, 1<<40); n != 0 {
		t.Error("refused at the end")
	}
	info, err := r.Info()
	if err != nil {
		t.Fatal(err)
	}
	d.until(info.Head)
	if len(d.ids) != publishers*each+1 {
		t.Errorf("%d events of %d publishes", len(d.ids), publishers*each+1)
	}
	if want := uint32(1 + publishers/2); info.Members != want {
		t.Errorf("%d members, want %d", info.Members, want)
	}
	for p := range publishers {
		err := r.Entitled(t.Context(), fmt.Sprint("user", p))
		if left := p%2 == 0; left != errors.Is(err, room.ErrNotFound) || !left && err != nil {
			t.Errorf("user%d, who left: %t: %v", p, left, err)
		}
	}
}

// again calls do until it is not refused for a passing reason.
func again(t *testing.T, do func() error) {
	t.Helper()
	for {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, room.ErrUnavailable) {
			t.Errorf("%v", err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestP1_QueueFull has more publishers than the engine's queue takes.
func TestP1_QueueFull(t *testing.T) {
	h, _ := faultyHub(t, room.Options{}, pebble.Options{Reserve: -1, MaxQueued: 1000})
	r := acquire(t, h, "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	d := newReader(t, r)
	const publishers, each = 64, 10
	var refused atomic.Int64
	var wg sync.WaitGroup
	for p := range uint64(publishers) {
		wg.Go(func() {
			for i := range uint64(each) {
				_, n := publishID(t, r, p*each+i+1, store.ErrQueueFull)
				refused.Add(int64(n))
			}
		})
	}
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("the queue was never full")
	}
	d.until(1 + 1 + publishers*each) // the creation, the join, and all of them once
	if info, _ := r.Info(); info.Head != d.head || len(d.ids) != publishers*each {
		t.Errorf("head %d, %d events, %d client ids", info.Head, d.head, len(d.ids))
	}
}

// TestAcquireAgain has a room that cannot be read for a while: who asks is told,
// nobody is told for longer than it lasts, and nobody waits for a slow disk
// longer than their context.
func TestAcquireAgain(t *testing.T) {
	h, f := faultyHub(t, room.Options{}, pebble.Options{Reserve: -1})
	slow, went := make(chan struct{}), make(chan struct{}, 8)
	var failing atomic.Bool
	failing.Store(true)
	f.opening = func(string) error {
		went <- struct{}{}
		<-slow
		if failing.Load() {
			return fmt.Errorf("%w: input/output error", store.ErrRead)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := h.Acquire(ctx, "lobby")
		first <- err
	}()
	<-went
	waiting := make(chan error, 1)
	go func() {
		_, err := h.Acquire(t.Context(), "lobby")
		waiting <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("whoever came first, and went: %v", err)
	}
	close(slow)
	if err := <-waiting; !errors.Is(err, room.ErrUnavailable) || !errors.Is(err, store.ErrRead) {
		t.Errorf("whoever waited: %v", err)
	}
	failing.Store(false)
	if _, err := acquire(t, h, "lobby").Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Errorf("when the disk reads again: %v", err)
	}
}

// TestMendAgain has a room whose write failed and that cannot be opened anew for
// a while.
func TestMendAgain(t *testing.T) {
	h, f := faultyHub(t, room.Options{}, pebble.Options{Reserve: -1})
	r := acquire(t, h, "lobby")
	if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
		t.Fatal(err)
	}
	var left atomic.Int32
	left.Store(3)
	f.opening = func(string) error {
		if left.Add(-1) >= 0 {
			return fmt.Errorf("%w: input/output error", store.ErrRead)
		}
		return nil
	}
	f.conflicts.Store(1)
	if _, n := publishID(t, r, 1, room.ErrUnavailable); n == 0 || left.Load() >= 0 {
		t.Errorf("refused %d times, opened %d times in vain", n, 3-left.Load())
	}
}

// TestTrimOthers applies retention to the other rooms when it fails for one.
func TestTrimOthers(t *testing.T) {
	h, f := faultyHub(t, room.Options{Retention: store.Retention{MaxEvents: 1}, TrimEvery: time.Hour}, pebble.Options{Reserve: -1})
	for _, name := range []string{"a", "b", "c"} {
		r := acquire(t, h, name)
		if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
			t.Fatal(err)
		}
	}
	f.trimming = func(name string) error {
		if name == "b" {
			return fmt.Errorf("%w: input/output error", store.ErrRead)
		}
		return nil
	}
	if err := h.TrimAll(t.Context()); !errors.Is(err, store.ErrRead) {
		t.Errorf("TrimAll: %v", err)
	}
	for name, want := range map[string]uint64{"a": 2, "b": 1, "c": 2} {
		if got := acquire(t, h, name).Oldest(); got != want {
			t.Errorf("oldest of %s is %d, want %d", name, got, want)
		}
	}
	f.trimming = nil
	if err := h.TrimAll(t.Context()); err != nil || acquire(t, h, "b").Oldest() != 2 {
		t.Errorf("when the disk reads again: oldest %d, %v", acquire(t, h, "b").Oldest(), err)
	}
}

// TestSweepOthers removes the other empty rooms when it fails for one.
func TestSweepOthers(t *testing.T) {
	h, f := faultyHub(t, room.Options{EmptyRooms: 50 * time.Millisecond}, pebble.Options{Reserve: -1})
	var failing atomic.Bool
	failing.Store(true)
	f.removing = func(name string) error {
		if name == "a" && failing.Load() {
			return fmt.Errorf("%w: input/output error", store.ErrRead)
		}
		return nil
	}
	for _, name := range []string{"a", "b", "c"} {
		r, err := h.Acquire(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Join(t.Context(), "alice", room.Checks{}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Leave(t.Context(), "alice", room.Checks{}); err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
	names := func() int {
		rooms, err := f.Rooms(t.Context(), "", 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(rooms)
	}
	until(t, "the rooms that can be removed are", func() bool { return names() <= 1 })
	failing.Store(false)
	until(t, "the other one is when it can be", func() bool { return names() == 0 })
}
