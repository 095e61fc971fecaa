package pebble

import (
	"sync"
	"time"

	db "github.com/cockroachdb/pebble/v2"
)

// scheduler decides when Pebble compacts: as Pebble's own does, as many at a
// time as it wants, but none while the store is being opened. When an opening
// fails Pebble takes away the files of a compaction that runs, and panics.
type scheduler struct {
	opening    *opening
	once       sync.Once
	wake, quit chan struct{}
	wg         sync.WaitGroup

	mu      sync.Mutex
	db      db.DBForCompaction // guarded by mu; set by Register
	running int                // guarded by mu
}

// scheduleEvery is how often it is asked whether something waits: Pebble wants
// more at a time when it lags behind.
const scheduleEvery = 100 * time.Millisecond

func newScheduler(o *opening) *scheduler {
	return &scheduler{opening: o, wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// Register implements Pebble's CompactionScheduler.
func (s *scheduler) Register(_ int, d db.DBForCompaction) {
	s.mu.Lock()
	s.db = d
	s.mu.Unlock()
	s.wg.Go(s.run)
}

// Unregister implements Pebble's CompactionScheduler.
func (s *scheduler) Unregister() {
	s.once.Do(func() { close(s.quit) })
	s.wg.Wait()
}

func (s *scheduler) run() {
	tick := time.NewTicker(scheduleEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		case <-s.wake:
		}
		for s.take() {
			// Not under mu: Pebble's lock comes first.
			if waiting, _ := s.db.GetWaitingCompaction(); !waiting || !s.db.Schedule(s) {
				s.giveBack()
				break
			}
		}
	}
}

// take reports whether one more may run, and counts it.
func (s *scheduler) take() bool {
	if !s.opening.succeeded() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil || s.running >= s.db.GetAllowedWithoutPermission() {
		return false
	}
	s.running++
	return true
}

func (s *scheduler) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// TrySchedule implements Pebble's CompactionScheduler.
func (s *scheduler) TrySchedule() (bool, db.CompactionGrantHandle) {
	if !s.take() {
		return false, nil
	}
	return true, s
}

// Done implements Pebble's CompactionGrantHandle.
func (s *scheduler) Done() {
	s.giveBack()
	s.UpdateGetAllowedWithoutPermission()
}

// UpdateGetAllowedWithoutPermission implements Pebble's CompactionScheduler.
func (s *scheduler) UpdateGetAllowedWithoutPermission() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Started implements Pebble's CompactionGrantHandle.
func (s *scheduler) Started() {}

// MeasureCPU implements Pebble's CompactionGrantHandle.
func (s *scheduler) MeasureCPU(db.CompactionGoroutineKind) {}

// CumulativeStats implements Pebble's CompactionGrantHandle.
func (s *scheduler) CumulativeStats(db.CompactionGrantHandleStats) {}
