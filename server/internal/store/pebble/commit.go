package pebble

import (
	"errors"
	"sync"

	db "github.com/cockroachdb/pebble/v2"

	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// maxGroups is how many committed groups may wait for the notifier. If Done
// functions take too long, the committer waits for them rather than pile up.
const maxGroups = 16

// committer is the only writer of the database.
type committer struct {
	s      *Store
	groups chan group
	wg     sync.WaitGroup

	// Owned by the goroutine of run.
	lastRoom uint64 // number given to the newest room
	version  uint64 // of the newest change of a membership or a session
}

// group is a batch of writes that were decided together.
type group struct {
	ops  []op
	errs []error
}

func newCommitter(s *Store, lastRoom, version uint64) *committer {
	c := &committer{s: s, groups: make(chan group, maxGroups), lastRoom: lastRoom, version: version}
	c.wg.Go(c.run)
	c.wg.Go(c.notify)
	return c
}

// wait returns when everything queued was committed and every Done called. The
// queue must have been closed.
func (c *committer) wait() { c.wg.Wait() }

// run commits until the queue is closed and empty.
func (c *committer) run() {
	defer close(c.groups)
	for {
		ops := c.s.queue.take()
		if len(ops) == 0 {
			return
		}
		c.groups <- c.commit(ops)
	}
}

// notify calls the Done functions while run goes on with the next group.
func (c *committer) notify() {
	for g := range c.groups {
		for i, o := range g.ops {
			o.done(g.errs[i])
		}
	}
}

// commit decides about each write and makes those accepted durable.
func (c *committer) commit(ops []op) group {
	g := group{ops: ops, errs: make([]error, len(ops))}
	b := &batch{c: c, db: c.s.db.NewBatch()}
	defer b.db.Close() // always nil
	err := c.s.failedError()
	if err == nil {
		for i, o := range ops {
			g.errs[i] = o.apply(b)
		}
		err = b.commit()
	}
	for i := range g.errs {
		if g.errs[i] == nil {
			g.errs[i] = err
		}
	}
	return g
}

// batch is a group while it is put together. Its maps hold what earlier writes
// of the same group changed and the database does not show yet.
type batch struct {
	c  *committer
	db *db.Batch
	// changed has the rooms to publish.
	changed []*room
	// small has records by key as writes of this batch have read or left them;
	// nil: there is none; absent: as in the database. See load.
	small map[string][]byte
	// sessions by id; nil: there is none; absent: as in the database.
	sessions map[string]*store.Session
	// key is scratch space.
	key []byte
	// later is written after db; nil unless fault.DedupeSeparately is broken.
	later *db.Batch
	// counted: lastRoom or version of the committer was raised.
	counted bool
}

// set adds a pair. A batch refuses a pair only when it is too large for its
// format, which the bounds of the wire exclude.
func (b *batch) set(key, value []byte) { must(b.db.Set(key, value, nil)) }

func (b *batch) delete(key []byte) { must(b.db.Delete(key, nil)) }

func (b *batch) deleteRange(from, to []byte) { must(b.db.DeleteRange(from, to, nil)) }

// dedupe is the batch for client ids: that of their events.
func (b *batch) dedupe() *db.Batch {
	if !fault.Broken(fault.DedupeSeparately) {
		return b.db
	}
	if b.later == nil {
		b.later = b.c.s.db.NewBatch()
	}
	return b.later
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// change notes that the truth of r is not what is published.
func (b *batch) change(r *room) {
	if !r.changed {
		r.changed = true
		b.changed = append(b.changed, r)
	}
}

func (b *batch) nextRoom() uint64 {
	b.counted = true
	b.c.lastRoom++
	return b.c.lastRoom
}

func (b *batch) nextVersion() uint64 {
	b.counted = true
	b.c.version++
	return b.c.version
}

var errFailed = errors.New("store: commit failed")

// commit makes the batch durable, and then visible.
func (b *batch) commit() error {
	s := b.c.s
	if b.db.Empty() {
		return nil
	}
	if b.counted {
		b.set(keyLastRoom, encodeUint64(b.c.lastRoom))
		b.set(keyVersion, encodeUint64(b.c.version))
	}
	mode := db.Sync
	if s.opts.Sync == SyncNever || fault.Broken(fault.AckBeforeSync) {
		mode = db.NoSync
	}
	if err := s.db.Apply(b.db, mode); err != nil {
		s.fail(errors.Join(errFailed, err))
	}
	if b.later != nil {
		must(s.db.Apply(b.later, db.NoSync))
	}
	// Pebble tells a failed sync to its logger and then returns nil.
	if err := s.failedError(); err != nil {
		return err
	}
	// What was synced may be in a directory that nobody will open again.
	if err := s.home.check(); err != nil {
		s.fail(err)
		return s.failedError()
	}
	s.logs.committed()
	s.publish(b.c.version, b.changed)
	return nil
}
