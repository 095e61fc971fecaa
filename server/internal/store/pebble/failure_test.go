package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
	"github.com/reprise-chat/reprise/server/internal/store/storetest"
)

// logOf opens a room's log.
func logOf(tb testing.TB, s *Store, name string) *Log {
	tb.Helper()
	l, err := s.OpenLog(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return l.(*Log)
}

// appendOne appends an event and waits; the first one creates the room.
func appendOne(tb testing.TB, l *Log, expect uint64) error {
	tb.Helper()
	id := fmt.Sprint("c", expect+1)
	a := &store.Append{
		Expect: expect,
		Events: []store.Event{{Encoded: element(expect+1, "alice", id), Sender: "alice", ClientID: id}},
	}
	if expect == 0 {
		a.Create = &store.Meta{Name: l.room.name}
	}
	done := make(chan error, 1)
	a.Done = func(err error) { done <- err }
	if err := l.Append(a); err != nil {
		return err
	}
	return <-done
}

func fill(tb testing.TB, l *Log, n uint64) {
	tb.Helper()
	for head := l.State().Head; head < n; head++ {
		if err := appendOne(tb, l, head); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestP1_PowerLossTornWrites cuts the power when half of what was not synced
// is on the disk.
func TestP1_PowerLossTornWrites(t *testing.T) {
	t.Parallel()
	if lost := storetest.CrashLoss(t, inMemory(t, options(t), 50), 6); lost != 0 {
		t.Fatalf("%d acknowledged or visible writes were lost", lost)
	}
}

// TestP4_PowerLossKeepsClientIDs cuts the power: each event that is there is
// found by its client id.
func TestP4_PowerLossKeepsClientIDs(t *testing.T) {
	t.Parallel()
	if lost := storetest.CrashLoss(t, inMemory(t, options(t), 0), 4); lost != 0 {
		t.Fatalf("%d acknowledged or visible writes were lost", lost)
	}
}

// TestP5_PowerLossKeepsTheFence attaches a session again and cuts the power:
// what the older attachment says is refused afterwards too.
func TestP5_PowerLossKeepsTheFence(t *testing.T) {
	t.Parallel()
	h := inMemory(t, options(t), 0)
	ctx := t.Context()
	session := store.Session{ID: "s", User: "alice", Attach: 1}
	if err := h.Store.PutSession(ctx, session, nil); err != nil {
		t.Fatal(err)
	}
	session.Revision, session.Attach = 1, 2
	if err := h.Store.PutSession(ctx, session, nil); err != nil {
		t.Fatal(err)
	}
	s := h.Crash()
	wantErr(t, s.SavePositions(ctx, "s", 1, 1, nil), store.ErrConflict)
	wantErr(t, s.SavePositions(ctx, "s", 2, 1, nil), nil)
	if got, err := s.Session(ctx, "s"); err != nil || got.Attach != 2 {
		t.Errorf("attach number %d, %v", got.Attach, err)
	}
}

// TestP1_PowerLossNegativeControl shows that the test of power loss can fail.
func TestP1_PowerLossNegativeControl(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Sync = SyncNever
	if lost := storetest.CrashLoss(t, inMemory(t, o, 0), 3); lost == 0 {
		t.Fatal("nothing was lost without syncs")
	}
}

// TestP1_FailedSync fails the n-th sync of the log: the process is told to
// exit, the append is not acknowledged nor visible, and neither is any later
// write. What was acknowledged before is there after a loss of power.
func TestP1_FailedSync(t *testing.T) {
	for n := uint64(1); n <= 8; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) { failSync(t, n) })
	}
}

func failSync(t *testing.T, n uint64) {
	t.Helper()
	mem := crashfs.New()
	var broken atomic.Bool
	injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
		isSync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		if broken.Load() && isSync && strings.HasSuffix(op.Path, ".log") {
			return errorfs.ErrInjected
		}
		return nil
	})
	var fatal atomic.Int32
	o := options(t)
	o.FS = errorfs.Wrap(mem, injector)
	o.Fatal = func(error) { fatal.Add(1) }
	s := mustOpen(t, "data", o)
	l := logOf(t, s, "r")
	fill(t, l, n)

	broken.Store(true)
	wantErr(t, appendOne(t, l, n), store.ErrClosed)
	broken.Store(false) // the disk seems to be well again: never trust it
	<-s.Failed()
	wantErr(t, appendOne(t, l, n), store.ErrClosed)
	wantErr(t, appendOne(t, logOf(t, s, "another"), 0), store.ErrClosed)
	wantErr(t, s.PutSession(t.Context(), store.Session{ID: "s"}, nil), store.ErrClosed)
	wantErr(t, s.Writable(), store.ErrClosed)
	if got := fatal.Load(); got != 1 {
		t.Errorf("Fatal was called %d times", got)
	}
	p, err := l.Read(t.Context(), 0, n+1, 1<<20, nil)
	if err != nil || p.Last != n || l.State().Head != n {
		t.Errorf("read up to %d, %v; head %d; acknowledged %d", p.Last, err, l.State().Head, n)
	}
	if offset, err := l.Lookup(t.Context(), "alice", fmt.Sprint("c", n+1)); offset != 0 || err != nil {
		t.Errorf("the client id of what is not durable is at %d, %v", offset, err)
	}

	o = options(t)
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{})
	after := mustOpen(t, "data", o)
	defer mustClose(t, after)
	if head := logOf(t, after, "r").State().Head; head != n {
		t.Errorf("head %d after the loss of power; acknowledged %d", head, n)
	}
	_ = s.Close() // Pebble reports the failed sync again
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v; want %v", err, want)
	}
}

// TestCorruptEvents damages events behind the store's back.
func TestCorruptEvents(t *testing.T) {
	for name, damage := range map[string]func(*Store, *Log) error{
		"missing":      func(s *Store, l *Log) error { return s.db.Delete(eventKey(1, 3), nil) },
		"newest gone":  func(s *Store, l *Log) error { return s.db.Delete(eventKey(1, 5), nil) },
		"cut off":      func(s *Store, l *Log) error { return s.db.Set(eventKey(1, 3), []byte{1, 2, 3}, nil) },
		"nonsense":     func(s *Store, l *Log) error { return s.db.Set(eventKey(1, 3), []byte("12345678nonsense"), nil) },
		"another one":  func(s *Store, l *Log) error { return s.db.Set(eventKey(1, 3), value(4), nil) },
		"from nowhere": func(s *Store, l *Log) error { return s.db.Set(eventKey(1, 3), value(2), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.FS = vfs.NewMem()
			s := mustOpen(t, "data", o)
			defer mustClose(t, s)
			l := logOf(t, s, "r")
			fill(t, l, 5)
			if err := damage(s, l); err != nil {
				t.Fatal(err)
			}
			s.publish(0, nil)
			var corrupt *store.CorruptError
			_, err := l.Read(t.Context(), 0, 5, 1<<20, nil)
			if !errors.As(err, &corrupt) || !errors.Is(err, store.ErrCorrupt) || corrupt.Room != "r" ||
				corrupt.Offset != 3 && corrupt.Offset != 5 {
				t.Fatalf("Read: %v", err)
			}
			if _, err := l.Trim(t.Context(), store.Bounds{MaxEvents: 1}); name != "newest gone" && !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("Trim: %v", err)
			}
		})
	}
}

// value is the record of an event that claims to have that offset.
func value(offset uint64) []byte {
	return append(make([]byte, eventHeaderLen), element(offset, "alice", "")...)
}

// TestCorruptTable flips one bit after another of a table: reads return what
// was written or ErrCorrupt, and the store stays in service.
func TestCorruptTable(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, options(t))
	l := logOf(t, s, "r")
	fill(t, l, 300)
	want, err := l.Read(t.Context(), 0, 300, 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	detected := 0
	for i := range 20 {
		undo := flip(t, tables[0], i)
		if readAfterDamage(t, dir, want.Data) {
			detected++
		}
		undo()
	}
	if detected == 0 {
		t.Error("no damage was noticed")
	}
	if readAfterDamage(t, dir, want.Data) {
		t.Error("damage was noticed where there is none")
	}
}

// flip flips a bit in the i-th of 20 parts of the data blocks.
func flip(t *testing.T, file string, i int) (undo func()) {
	t.Helper()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2*i/20] ^= 1 << (i % 8)
	write := func(b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bad)
	return func() { write(good) }
}

// readAfterDamage reports whether the damage was noticed.
func readAfterDamage(t *testing.T, dir string, want []byte) bool {
	t.Helper()
	s, err := Open(dir, options(t))
	if err != nil {
		return true
	}
	defer mustClose(t, s)
	l, err := s.OpenLog(t.Context(), "r")
	if err == nil {
		var p store.Page
		if p, err = l.Read(t.Context(), 0, 300, 1<<20, nil); err == nil && !bytes.Equal(p.Data, want) {
			t.Errorf("damage was read as data")
		}
	}
	if err != nil && !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("error is %v; want %v", err, store.ErrCorrupt)
	}
	return err != nil
}

func TestSyncModes(t *testing.T) {
	for mode, warns := range map[SyncMode]bool{"": false, SyncAlways: false, SyncNever: true} {
		var out bytes.Buffer
		o := options(t)
		o.FS, o.Sync, o.Logger = vfs.NewMem(), mode, slog.New(slog.NewTextHandler(&out, nil))
		mustClose(t, mustOpen(t, "data", o))
		if got := strings.Contains(out.String(), "P1"); got != warns {
			t.Errorf("mode %q: says that P1 is not given: %t\n%s", mode, got, out.String())
		}
	}
	o := options(t)
	o.Sync = "sometimes"
	if _, err := Open(t.TempDir(), o); err == nil || !strings.Contains(err.Error(), string(SyncAlways)) {
		t.Errorf("an unknown mode: %v", err)
	}
}

func TestNewerFormat(t *testing.T) {
	o := options(t)
	o.FS = vfs.NewMem()
	s := mustOpen(t, "data", o)
	if err := s.db.Set(keyFormat, encodeUint64(formatVersion+1), nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	for range 2 { // and the lock is given back
		if _, err := Open("data", o); err == nil || !strings.Contains(err.Error(), "format") {
			t.Fatalf("Open: %v", err)
		}
	}
}

func TestClosed(t *testing.T) {
	o := options(t)
	o.FS = vfs.NewMem()
	s := mustOpen(t, "data", o)
	l := logOf(t, s, "r")
	fill(t, l, 1)
	mustClose(t, s)
	ctx := context.Background()
	wantErr(t, appendOne(t, l, 1), store.ErrClosed)
	wantErr(t, s.Writable(), store.ErrClosed)
	wantErr(t, s.Close(), store.ErrClosed)
	wantErr(t, s.DeleteSession(ctx, "s"), store.ErrClosed)
	_, err := l.Read(ctx, 0, 1, 1, nil)
	wantErr(t, err, store.ErrClosed)
	_, err = s.Rooms(ctx, "", 1)
	wantErr(t, err, store.ErrClosed)
	_, err = s.OpenLog(ctx, "another")
	wantErr(t, err, store.ErrClosed)
}
