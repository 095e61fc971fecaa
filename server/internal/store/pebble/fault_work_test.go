package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// work does something of everything. What fails is written down.
func (r *faultRun) work(s *Store) {
	r.appends(s, 3, false)
	r.session(s)
	r.flush(s)
	r.appends(s, 3, false)
	r.session(s)
	if l, err := s.OpenLog(context.Background(), "a"); err == nil {
		_, err = l.Trim(context.Background(), store.Bounds{MaxEvents: 4})
		r.refuse(err)
	}
	r.flush(s)
	r.wait(func() { _ = s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false) })
	r.appends(s, 2, false)
}

// wait waits for do, which a fault may hold up until it is lifted.
func (r *faultRun) wait(do func()) {
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
		return
	case <-r.enough:
		r.lifted.Store(true)
	}
	<-done
}

// flush has Pebble write a table. After a fatal error it may never end.
func (r *faultRun) flush(s *Store) {
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return
	}
	select {
	case <-flushed:
	case <-s.Failed():
	case <-r.enough:
		r.lifted.Store(true)
		select {
		case <-flushed:
		case <-s.Failed():
		}
	}
}

func (r *faultRun) refuse(err error) {
	if err != nil {
		r.refusal = err
	}
}

// appends appends to each room.
func (r *faultRun) appends(s *Store, n int, must bool) {
	for _, room := range faultRooms {
		for range n {
			l, err := s.OpenLog(context.Background(), room)
			if err != nil {
				r.refuse(err)
				if must {
					r.errorf("OpenLog: %v", err)
				}
				continue
			}
			head := l.State().Head
			// Noted before: what is not acknowledged may be there too.
			if !r.note(func() { r.tried[room] = max(r.tried[room], head+1) }) {
				return
			}
			if err := appendOne(r.t, l.(*Log), head); err != nil {
				r.refuse(err)
				if must {
					r.errorf("append: %v", err)
				}
				continue
			}
			r.note(func() { r.heads[room] = head + 1 })
		}
	}
}

// session raises the attach number of a session, and stores a position.
func (r *faultRun) session(s *Store) {
	ctx := context.Background()
	x, err := s.Session(ctx, "s")
	if errors.Is(err, store.ErrNotFound) {
		x, err = store.Session{ID: "s", User: "alice"}, nil
	}
	if err == nil {
		x.Attach++
		if err = s.PutSession(ctx, x, []store.Position{{Room: "a", Offset: 1}}); err == nil {
			r.note(func() { r.attach = x.Attach })
		}
	}
	r.refuse(err)
}

// readAll compares what is there with what was acknowledged.
func (r *faultRun) readAll(s *Store, mayFail bool) {
	ctx := context.Background()
	for _, room := range faultRooms {
		head, err := r.readRoom(ctx, s, room)
		if err != nil {
			if !mayFail {
				r.errorf("read: %v", err)
			}
			continue
		}
		r.mu.Lock()
		acknowledged, tried := r.heads[room], r.tried[room]
		r.mu.Unlock()
		if head < acknowledged || head > tried {
			r.errorf("room %s: head %d; acknowledged %d, tried %d", room, head, acknowledged, tried)
		}
	}
	r.mu.Lock()
	attach := r.attach
	r.mu.Unlock()
	x, err := s.Session(ctx, "s")
	if mayFail && err != nil || errors.Is(err, store.ErrNotFound) && attach == 0 {
		return
	}
	if err != nil || x.Attach < attach || x.Attach > attach+1 {
		r.errorf("attach number %d, acknowledged %d: %v", x.Attach, attach, err)
	}
}

func (r *faultRun) readRoom(ctx context.Context, s *Store, room string) (head uint64, err error) {
	l, err := s.OpenLog(ctx, room)
	if err != nil {
		return 0, err
	}
	st := l.State()
	p, err := l.Read(ctx, st.Oldest-1, st.Head, 1<<20, nil)
	if err != nil {
		return 0, err
	}
	var want []byte
	for offset := st.Oldest; offset <= st.Head; offset++ {
		want = append(want, element(offset, "alice", fmt.Sprint("c", offset))...)
	}
	if !bytes.Equal(p.Data, want) || p.Last != st.Head {
		r.errorf("room %s: what is read up to %d is not what was appended up to %d", room, p.Last, st.Head)
	}
	return st.Head, nil
}

// tornFS writes half of what is to be written, and fails.
type tornFS struct {
	vfs.FS
	r *faultRun
}

func (fs tornFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return tornFile{f, fs.r}, nil
}

func (fs tornFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.wrap(fs.FS.Create(name, c))
}

func (fs tornFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(fs.FS.OpenReadWrite(name, c, opts...))
}

func (fs tornFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.wrap(fs.FS.ReuseForWrite(from, to, c))
}

type tornFile struct {
	vfs.File
	r *faultRun
}

func (f tornFile) Write(p []byte) (int, error) {
	if !f.r.hit(errorfs.OpFileWrite) {
		return f.File.Write(p)
	}
	n, err := f.File.Write(p[:len(p)/2])
	return n, errors.Join(f.r.fault.err, err)
}

// lockedBuffer is a log that many goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
