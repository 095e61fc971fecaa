package pebble

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
)

// faultEvery is which operations TestP1_DiskFaults fails: every n-th.
var faultEvery = flag.Int("every", 25, "TestP1_DiskFaults fails every n-th operation of the file system; 1: each")

// diskFault is a way in which an operation of the file system fails.
type diskFault struct {
	name string
	err  error
	hits func(errorfs.OpKind) bool
	// torn: half of what is written is written before it fails.
	torn bool
	// reads: reading may fail too.
	reads bool
}

func isSync(k errorfs.OpKind) bool {
	return k == errorfs.OpFileSync || k == errorfs.OpFileSyncData || k == errorfs.OpFileSyncTo
}

func isWrite(k errorfs.OpKind) bool { return k == errorfs.OpFileWrite || k == errorfs.OpFileWriteAt }

func takesSpace(k errorfs.OpKind) bool {
	switch k {
	case errorfs.OpCreate, errorfs.OpMkdirAll, errorfs.OpRename, errorfs.OpLink, errorfs.OpFilePreallocate, errorfs.OpFileFlush:
		return true
	}
	return isWrite(k) || isSync(k)
}

var diskFaults = []diskFault{
	{name: "ENOSPC", err: syscall.ENOSPC, hits: takesSpace},
	{name: "EIO on write", err: syscall.EIO, hits: func(k errorfs.OpKind) bool {
		return k.ReadOrWrite() == errorfs.OpIsWrite && k != errorfs.OpLock
	}},
	{name: "EIO on read", err: syscall.EIO, reads: true, hits: func(k errorfs.OpKind) bool {
		return k.ReadOrWrite() == errorfs.OpIsRead && k != errorfs.OpGetDiskUsage
	}},
	{name: "failed sync", err: syscall.EIO, hits: isSync},
	{name: "short write", err: io.ErrShortWrite, hits: isWrite, torn: true},
}

// TestP1_DiskFaults fails the operations of the file system in turn, each once,
// and each with all that follow until the fault is lifted. Whatever fails:
// nothing is acknowledged that is not durable, reads go on, the operator is
// told, and when the fault is lifted, or the process was started again, writes
// go on.
func TestP1_DiskFaults(t *testing.T) {
	t.Parallel()
	base := faultBase(t)
	var tried, stopped, refused atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, f := range diskFaults {
			for _, forever := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, forever=%t", f.name, forever), func(t *testing.T) {
					t.Parallel()
					n := runFault(t, base, f, 0, forever).count
					if n < 10 {
						t.Fatalf("only %d operations can fail", n)
					}
					for at := 1 + rand.Int64N(int64(*faultEvery)); at <= n; at += int64(*faultEvery) {
						r := runFault(t, base, f, at, forever)
						tried.Add(1)
						if r.failed {
							stopped.Add(1)
						}
						if r.openErr != nil {
							refused.Add(1)
						}
					}
				})
			}
		}
	})
	t.Logf("%d operations failed: %d times the store stopped, %d times it did not open, and the rest of the times it went on",
		tried.Load(), stopped.Load(), refused.Load())
	if stopped.Load() == 0 || refused.Load() == 0 {
		t.Error("no fault did anything")
	}
}

// TestOpenFullDisk opens a directory on a disk without a free byte: there is an
// error that says so, and when there is space it opens, in the same process.
func TestOpenFullDisk(t *testing.T) {
	t.Parallel()
	mem := faultBase(t)
	var full atomic.Bool
	full.Store(true)
	o := options(t)
	o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && takesSpace(op.Kind) {
			return syscall.ENOSPC
		}
		return nil
	}))
	failed := make(chan error, 1)
	go func() {
		_, err := Open("data", o)
		failed <- err
	}()
	select {
	case err := <-failed:
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk is full") {
			t.Errorf("Open: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no end")
	}
	full.Store(false)
	s := mustOpen(t, "data", o)
	defer mustClose(t, s)
	for _, room := range faultRooms {
		if head := logOf(t, s, room).State().Head; head != 6 {
			t.Errorf("head %d", head)
		}
	}
}

// faultBase is a directory after a crash, with tables and a log.
func faultBase(t *testing.T) *crashfs.FS {
	t.Helper()
	mem := crashfs.New()
	o := options(t)
	o.FS = mem
	s := mustOpen(t, "data", o)
	for _, room := range faultRooms {
		fill(t, logOf(t, s, room), 3)
	}
	must(s.db.Flush())
	for _, room := range faultRooms {
		fill(t, logOf(t, s, room), 6)
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	mustClose(t, s)
	return clone
}

var faultRooms = []string{"a", "b"}

// faultRun is one life of a store on a disk with a fault.
type faultRun struct {
	t     *testing.T
	fault diskFault
	at    int64 // the first operation that fails; 0: none
	mem   *crashfs.FS
	out   lockedBuffer

	// Of the fault.
	count    int64 // operations it could hit; atomic
	injected int64 // times it hit; atomic
	forever  bool
	lifted   atomic.Bool
	enough   chan struct{} // closed when it has hit so often that it may be lifted
	once     sync.Once
	once2    sync.Once
	cuts     []*crashfs.FS // what may be left

	// What came of it.
	openErr error
	failed  bool
	fatal   atomic.Bool
	refusal error         // why something was not acknowledged
	died    chan struct{} // closed where the process exits

	mu     sync.Mutex
	frozen bool              // the process is dead
	heads  map[string]uint64 // acknowledged
	tried  map[string]uint64 // appended, acknowledged or not
	attach uint64            // acknowledged
}

// tolerated is how often the fault hits before the operator lifts it.
const tolerated = 12

// hit reports whether an operation is to fail.
func (r *faultRun) hit(k errorfs.OpKind) bool {
	if !r.fault.hits(k) || r.lifted.Load() {
		return false
	}
	n := atomic.AddInt64(&r.count, 1)
	if r.at == 0 || n < r.at || n > r.at && !r.forever {
		return false
	}
	if atomic.AddInt64(&r.injected, 1) >= tolerated {
		r.once.Do(func() { close(r.enough) })
	}
	return true
}

func (r *faultRun) fs() vfs.FS {
	if r.fault.torn {
		return tornFS{r.mem, r}
	}
	return errorfs.Wrap(r.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !r.hit(op.Kind) {
			return nil
		}
		if r.fatal.Load() && doomed() {
			r.die()
		}
		return r.fault.err
	}))
}

// doomed reports whether the caller is Pebble where it panics next. A real
// process has exited before.
func doomed() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "atomicfs.(*Marker).Move") || strings.HasSuffix(f.Function, "(*DB).rotateWAL") {
			return true
		}
		if !more {
			return false
		}
	}
}

// die is the end of the process, for the goroutine that calls it.
func (r *faultRun) die() {
	r.once2.Do(func() { close(r.died) })
	select {}
}

// clone is the disk after the loss of power.
func (r *faultRun) clone(percent int) *crashfs.FS {
	return r.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(rand.Uint64(), 1))})
}

// errorf reports what is wrong, if the process lives.
func (r *faultRun) errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.frozen {
		r.t.Errorf(format, args...)
	}
}

// freeze is the death of the process.
func (r *faultRun) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = true
}

// note changes what is known, if the process lives.
func (r *faultRun) note(change func()) (alive bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.frozen {
		change()
	}
	return !r.frozen
}

func (r *faultRun) options(fs vfs.FS) Options {
	o := options(r.t)
	o.FS, o.Reserve = fs, -1
	o.Logger = slog.New(slog.NewTextHandler(&r.out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.Fatal = func(err error) {
		o.Logger.Error("fatal", "error", err)
		r.fatal.Store(true)
		r.die()
	}
	return o
}

func runFault(t *testing.T, base *crashfs.FS, f diskFault, at int64, forever bool) *faultRun {
	t.Helper()
	r := &faultRun{
		t: t, fault: f, at: at, forever: forever, enough: make(chan struct{}), died: make(chan struct{}),
		mem:   base.CrashClone(vfs.CrashCloneCfg{}),
		heads: map[string]uint64{"a": 6, "b": 6}, tried: map[string]uint64{"a": 6, "b": 6},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.live()
	}()
	select {
	case <-done:
	case <-r.died:
		r.failed = true
	case <-time.After(20 * time.Second):
		t.Fatalf("%s at %d: no end", f.name, at)
	}
	r.after()
	if at != 0 && t.Failed() {
		t.Fatalf("%s at operation %d, forever=%t; stopped: %t, open: %v\n%s", f.name, at, forever, r.failed, r.openErr, r.out.String())
	}
	return r
}

// live is the workload, and what must hold while the process lives.
func (r *faultRun) live() {
	s, err := Open("data", r.options(r.fs()))
	if err != nil {
		r.openErr = err
		return
	}
	r.work(s)
	r.readAll(s, r.fault.reads && !r.lifted.Load())
	r.lifted.Store(true)
	// The fault is over: service goes on without a restart.
	r.appends(s, 2, true)
	r.readAll(s, false)
	if r.refusal != nil && r.out.String() == "" && !r.fault.reads {
		r.errorf("the operator is not told of %v", r.refusal)
	}
	r.note(func() { r.cuts = append(r.cuts, r.clone(50)) })
	if err := s.Close(); err != nil {
		r.errorf("Close: %v", err)
	}
	r.note(func() { r.cuts = append(r.cuts, r.mem) })
}

// after opens what is left after the loss of power, at once or while the
// process ended, and after a kill.
func (r *faultRun) after() {
	r.freeze()
	r.lifted.Store(true)
	next := &faultRun{t: r.t, heads: r.heads, tried: r.tried, attach: r.attach} // what the dead one says is no matter
	for _, percent := range []int{0, 50, 100} {
		r.cuts = append(r.cuts, r.clone(percent))
	}
	for _, left := range r.cuts {
		next.restart(left)
	}
}

// restart opens the directory on a disk that is well.
func (r *faultRun) restart(left *crashfs.FS) {
	o := options(r.t)
	o.FS, o.Reserve = left, -1
	s, err := Open("data", o)
	if err != nil {
		r.errorf("it does not open again: %v", err)
		return
	}
	r.readAll(s, false)
	for _, room := range faultRooms {
		l := logOf(r.t, s, room)
		if err := appendOne(r.t, l, l.State().Head); err != nil {
			r.errorf("append after a restart: %v", err)
		}
	}
	mustClose(r.t, s)
	if report := mustCheck(r.t, left, "data"); report.Damaged() {
		r.errorf("the check reports %v", report.Problems[0])
	}
}
