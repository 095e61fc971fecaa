package pebble

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// reserveEvery is how often the free space of the disk is looked at. At 100
// MB/s the default reserve lasts ten times as long.
const reserveEvery = time.Second

// maxReserve bounds the default reserve.
const maxReserve = 1 << 30

// reserve watches the free space of the disk.
type reserve struct {
	fs     vfs.FS
	dir    string
	want   int64 // Options.Reserve
	logger *slog.Logger

	below      atomic.Bool
	complaints complaints
	quit       chan struct{}
	wg         sync.WaitGroup
}

// watchReserve looks at once and then until stop is called. A file system that
// cannot tell its free space, such as one in memory, has no reserve.
func watchReserve(o Options, dir string) *reserve {
	r := &reserve{fs: o.fs(), dir: dir, want: o.Reserve, logger: o.Logger, quit: make(chan struct{})}
	if o.Reserve < 0 || !r.look() {
		return r
	}
	r.wg.Go(r.run)
	return r
}

func (r *reserve) run() {
	tick := time.NewTicker(reserveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.look()
		case <-r.quit:
			return
		}
	}
}

// look measures the disk. It keeps what it knew when that fails. False means
// that it always will.
func (r *reserve) look() (can bool) {
	usage, err := r.fs.GetDiskUsage(r.dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return false // such as one in memory
	}
	if err != nil {
		r.complaints.report(func(times int) {
			r.logger.Warn("store: free disk space is not known", "error", err, "times", times)
		})
		return true // it may be the next time
	}
	want := uint64(r.want)
	if want == 0 {
		want = min(maxReserve, usage.TotalBytes/20)
	}
	below := usage.AvailBytes < want
	if r.below.Swap(below) == below {
		return true
	}
	if below {
		r.logger.Error("store: free disk space is below the reserve: publishes are refused until there is room again",
			"dir", r.dir, "free", usage.AvailBytes, "reserve", want)
	} else {
		r.logger.Info("store: free disk space is above the reserve again", "dir", r.dir, "free", usage.AvailBytes)
	}
	return true
}

// low reports whether the free space is below the reserve.
func (r *reserve) low() bool { return r.below.Load() }

func (r *reserve) stop() {
	close(r.quit)
	r.wg.Wait()
}
