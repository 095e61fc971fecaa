package sim

import (
	"context"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// reserve is how much of the node's disk must be free for writes.
const reserve = 1 << 30

// fill makes the disk too full for writes, or gives it space.
func (n *node) fill(full bool) {
	free := uint64(2 * reserve)
	if full {
		free = reserve / 2
	}
	n.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 10 * reserve})
}

// trouble is what of the node's disk cannot be read: it comes and goes, and
// outlives the server.
type trouble struct {
	mu      sync.Mutex
	rooms   map[string]bool // cannot be opened, nor their events read
	refused int             // of the coming appends, so many are refused at their turn
}

func (t *trouble) set(room string, bad bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rooms == nil {
		t.rooms = make(map[string]bool)
	}
	t.rooms[room] = bad
}

func (t *trouble) refuse(appends int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = appends
}

func (t *trouble) read(room string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rooms[room] {
		return fmt.Errorf("%w: input/output error", store.ErrRead)
	}
	return nil
}

// refuses reports whether an append is to be refused.
func (t *trouble) refuses() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused--
	return t.refused >= 0
}

// troubled is a store on such a disk.
type troubled struct {
	store.Store
	*trouble
}

func (s troubled) OpenLog(ctx context.Context, room string) (store.Log, error) {
	if err := s.read(room); err != nil {
		return nil, err
	}
	l, err := s.Store.OpenLog(ctx, room)
	return troubledLog{l, s.trouble, room}, err
}

type troubledLog struct {
	store.Log
	*trouble
	room string
}

func (l troubledLog) Read(ctx context.Context, after, to uint64, maxBytes int, buf []byte) (store.Page, error) {
	if err := l.read(l.room); err != nil {
		return store.Page{}, err
	}
	return l.Log.Read(ctx, after, to, maxBytes, buf)
}

func (l troubledLog) Lookup(ctx context.Context, sender, clientID string) (uint64, error) {
	if err := l.read(l.room); err != nil {
		return 0, err
	}
	return l.Log.Lookup(ctx, sender, clientID)
}

// Append has the engine refuse an append at its turn by giving it another head
// than the room has.
func (l troubledLog) Append(a *store.Append) error {
	if l.refuses() {
		a.Expect += 1 << 20
	}
	return l.Log.Append(a)
}
