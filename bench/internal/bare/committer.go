package bare

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"golang.org/x/sys/unix"
)

// maxBatch bounds the events of one commit, as in Reprise's store.
const maxBatch = 4096

// Record is one event to be made durable.
type Record struct {
	Room, Offset     uint64
	Sender, ClientID string // no ClientID: no record of it
	Element          []byte
	// Done is called when the event is on disk.
	Done func()
}

// Committer makes events durable: one goroutine takes everything that waits,
// writes it at once, syncs once, and another one tells the waiters while the
// next batch is on its way.
type Committer struct {
	write func([]Record) error
	close func() error

	mu     sync.Mutex
	ready  *sync.Cond
	queue  []Record
	closed bool

	synced chan []Record
	wg     sync.WaitGroup
}

func newCommitter(write func([]Record) error, closeAll func() error) *Committer {
	c := &Committer{write: write, close: closeAll, synced: make(chan []Record, 16)}
	c.ready = sync.NewCond(&c.mu)
	c.wg.Go(c.run)
	c.wg.Go(c.tell)
	return c
}

// Put queues a record.
func (c *Committer) Put(r Record) {
	c.mu.Lock()
	c.queue = append(c.queue, r)
	c.mu.Unlock()
	c.ready.Signal()
}

// Close commits what is queued and waits.
func (c *Committer) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.ready.Signal()
	c.wg.Wait()
	return c.close()
}

func (c *Committer) run() {
	defer close(c.synced)
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.closed {
			c.ready.Wait()
		}
		batch := c.queue
		c.queue = nil
		c.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for len(batch) > 0 {
			n := min(len(batch), maxBatch)
			if err := c.write(batch[:n]); err != nil {
				panic(fmt.Errorf("bare: commit: %w", err)) // a limit that fails measures nothing
			}
			c.synced <- batch[:n]
			batch = batch[n:]
		}
	}
}

func (c *Committer) tell() {
	for batch := range c.synced {
		for i := range batch {
			batch[i].Done()
		}
	}
}

// OpenPebble commits to a Pebble database with the options of Reprise's store,
// in the layout of its keys and values, copied here since the store is internal
// to the server:
//
//	e room(8) offset(8)                     running total of bytes (8), element
//	c room(8) len(sender) sender client_id  offset (8)
func OpenPebble(dir string) (*Committer, error) {
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	o := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, Cache: cache,
		MemTableSize: 32 << 20, MemTableStopWritesThreshold: 4,
		Logger: quiet{},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	totals := make(map[uint64]uint64)
	return newCommitter(func(records []Record) error { return apply(db, totals, records) }, db.Close), nil
}

func apply(db *pebble.DB, totals map[uint64]uint64, records []Record) error {
	b := db.NewBatch()
	for i := range records {
		r := &records[i]
		totals[r.Room] += uint64(len(r.Element))
		d := b.SetDeferred(1+8+8, 8+len(r.Element))
		key := binary.BigEndian.AppendUint64(append(d.Key[:0], 'e'), r.Room)
		binary.BigEndian.AppendUint64(key, r.Offset)
		binary.BigEndian.PutUint64(d.Value, totals[r.Room])
		copy(d.Value[8:], r.Element)
		if err := d.Finish(); err != nil {
			return err
		}
		if r.ClientID == "" {
			continue
		}
		d = b.SetDeferred(1+8+1+len(r.Sender)+len(r.ClientID), 8)
		key = binary.BigEndian.AppendUint64(append(d.Key[:0], 'c'), r.Room)
		key = append(append(key, byte(len(r.Sender))), r.Sender...)
		_ = append(key, r.ClientID...)
		binary.BigEndian.PutUint64(d.Value, r.Offset)
		if err := d.Finish(); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	return b.Close()
}

// OpenFile commits to a plain file, one record after the other.
func OpenFile(dir string) (*Committer, error) {
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	var buf []byte
	return newCommitter(func(records []Record) error {
		buf = buf[:0]
		for i := range records {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(len(records[i].Element)))
			buf = append(buf, records[i].Element...)
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	}, f.Close), nil
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, a ...any) {
	panic(fmt.Sprintf(format, a...))
}
