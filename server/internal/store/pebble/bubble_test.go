package pebble

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// TestBubble works in a bubble of testing/synctest, which panics if Close
// leaves a goroutine behind.
func TestBubble(t *testing.T) {
	for range 2 { // nothing of the first is left in the second
		synctest.Test(t, func(t *testing.T) {
			o := options(t)
			o.FS = vfs.NewMem()
			s := mustOpen(t, "data", o)
			l := logOf(t, s, "r")
			fill(t, l, 100)
			if err := s.db.Flush(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			if st, err := l.Trim(t.Context(), store.Bounds{MaxEvents: 10}); err != nil || st.Oldest != 91 {
				t.Errorf("Trim: %+v, %v", st, err)
			}
			mustClose(t, s)
			s = mustOpen(t, "data", o)
			fill(t, logOf(t, s, "r"), 120)
			mustClose(t, s)
		})
	}
}

// TestDiskReserve refuses appends, and nothing else, while the disk is full.
func TestDiskReserve(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		reserve     int64
		total, want uint64
	}{
		"small disk": {total: 10 * gib, want: gib / 2}, // 5 %
		"large disk": {total: 1000 * gib, want: gib},
		"configured": {reserve: 12345, total: 10 * gib, want: 12345},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { fillDisk(t, c.reserve, c.total, c.want) })
		})
	}
}

func fillDisk(t *testing.T, reserve int64, total, want uint64) {
	t.Helper()
	mem := vfs.NewMem()
	free := func(n uint64) {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: n, TotalBytes: total})
		time.Sleep(2 * reserveEvery)
	}
	o := options(t)
	o.FS, o.Reserve = mem, reserve
	free(want)
	s := mustOpen(t, "data", o)
	l := logOf(t, s, "r")
	fill(t, l, 3)
	wantErr(t, s.Writable(), nil)

	free(want - 1)
	wantErr(t, s.Writable(), store.ErrDiskReserve)
	wantErr(t, appendOne(t, l, 3), store.ErrDiskReserve)
	if p, err := l.Read(t.Context(), 0, 3, 1<<20, nil); err != nil || p.Last != 3 {
		t.Errorf("Read: %d, %v", p.Last, err)
	}
	// A client can resume, and a trim makes room.
	wantErr(t, s.PutSession(t.Context(), store.Session{ID: "s"}, nil), nil)
	wantErr(t, s.SavePositions(t.Context(), "s", 0, 1, []store.Position{{Room: "r", Offset: 3}}), nil)
	_, err := l.Trim(t.Context(), store.Bounds{MaxEvents: 1})
	wantErr(t, err, nil)
	mustClose(t, s)

	s = mustOpen(t, "data", o) // known from the start
	wantErr(t, s.Writable(), store.ErrDiskReserve)
	free(want)
	wantErr(t, s.Writable(), nil)
	fill(t, logOf(t, s, "r"), 5)
	mustClose(t, s)

	o.Reserve = -1
	free(0)
	s = mustOpen(t, "data", o)
	wantErr(t, s.Writable(), nil)
	mustClose(t, s)
}

// TestQueueFull refuses what is too much, and takes what comes when there is
// room again.
func TestQueueFull(t *testing.T) {
	q := newQueue(1000)
	l := &Log{room: &room{name: "r"}}
	for range 3 {
		var put []op
		for i := range 10 {
			o := newAppendOp(l, &store.Append{Events: []store.Event{{Encoded: make([]byte, 300)}}})
			if i < 3 {
				wantErr(t, q.put(o), nil)
				put = append(put, o)
			} else {
				wantErr(t, q.put(o), store.ErrQueueFull)
			}
		}
		if ops := q.take(); !slices.Equal(ops, put) {
			t.Fatalf("took %d of %d, or not in order", len(ops), len(put))
		}
	}
	q.close()
	wantErr(t, q.put(newAppendOp(l, &store.Append{})), store.ErrClosed)
	if len(q.take()) != 0 || q.bytes != 0 {
		t.Errorf("a closed queue goes on; %d bytes", q.bytes)
	}
}

// TestRoomsAreForgotten opens many rooms: those that nobody uses take no
// memory.
func TestRoomsAreForgotten(t *testing.T) {
	o := options(t)
	o.FS = vfs.NewMem()
	s := mustOpen(t, "data", o)
	defer mustClose(t, s)
	kept := logOf(t, s, "kept")
	fill(t, kept, 1)
	for i := range 20 {
		for j := range 2 * minRooms {
			logOf(t, s, string(rune('A'+i))+string(rune('A'+j)))
		}
		runtime.GC()
	}
	s.roomsMu.Lock()
	n := len(s.rooms)
	s.roomsMu.Unlock()
	if n > 6*minRooms {
		t.Errorf("%d rooms are held", n)
	}
	if again := logOf(t, s, "kept"); again.room != kept.room {
		t.Error("a room that is in use was forgotten")
	}
	fill(t, kept, 2)
}

// TestTrimLeavesNothing counts what is stored for a room that was trimmed.
func TestTrimLeavesNothing(t *testing.T) {
	o := options(t)
	o.FS = vfs.NewMem()
	s := mustOpen(t, "data", o)
	defer mustClose(t, s)
	l := logOf(t, s, "r")
	fill(t, l, 100)
	if _, err := l.Trim(t.Context(), store.Bounds{MaxEvents: 10}); err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]byte{"events": prefixEvent, "client ids": prefixClientID} {
		n := 0
		err := scan(s.db, []byte{kind}, []byte{kind + 1}, func(_, _ []byte) (bool, error) {
			n++
			return true, nil
		})
		if err != nil || n != 10 {
			t.Errorf("%d %s are stored, %v; want 10", n, name, err)
		}
	}
}

// TestLargeAppend appends more at once than fits into a batch of Pebble's
// usual kind.
func TestLargeAppend(t *testing.T) {
	o := options(t)
	o.FS = vfs.NewMem()
	s := mustOpen(t, "data", o)
	l := logOf(t, s, "r")
	a := &store.Append{Create: &store.Meta{Name: "r"}}
	for i := range uint64(20) {
		a.Events = append(a.Events, store.Event{Encoded: element(i+1, strings.Repeat("a", 1<<20), "")})
	}
	done := make(chan error, 1)
	a.Done = func(err error) { done <- err }
	wantErr(t, l.Append(a), nil)
	wantErr(t, <-done, nil)
	fill(t, l, 22)
	for range 2 {
		if p, err := l.Read(t.Context(), 0, 22, 1<<30, nil); err != nil || p.Last != 22 || len(p.Data) < 20<<20 {
			t.Fatalf("read up to %d, %d bytes: %v", p.Last, len(p.Data), err)
		}
		mustClose(t, s)
		s = mustOpen(t, "data", o)
		l = logOf(t, s, "r")
	}
	mustClose(t, s)
}
