package bare

import (
	"encoding/binary"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	chunkBytes  = 256 << 10
	frameBytes  = 16 << 10
	incarnation = "i_bare" // the same for ever: nothing survives anyway
)

// room is a log in memory and its readers.
type room struct {
	name   string
	number uint64
	shards []shard

	mu     sync.RWMutex
	chunks [][]byte // only ever appended to; full ones are never touched again
	// places says where each event begins, by offset - 1.
	places []place
	next   uint64 // offset given last; above len(places) while commits are under way
}

// place is where an event begins.
type place struct{ chunk, at uint32 }

// shard is a part of a room's readers, and one item of work.
type shard struct {
	room    *room
	queued  atomic.Bool
	mu      sync.Mutex
	readers []*reader // copied on write
}

func newRoom(name string, number uint64) *room {
	r := &room{name: name, number: number, shards: make([]shard, 4*runtime.GOMAXPROCS(0))}
	for i := range r.shards {
		r.shards[i].room = r
	}
	return r
}

// encode returns an event as an element of Events.events, with room for its
// place: the bytes that Reprise stores and sends.
func encode(sender, clientID string, text []byte, now time.Time) []byte {
	e := protowire.AppendTag(make([]byte, 0, 64+len(text)), 1, protowire.Fixed64Type)
	e = protowire.AppendFixed64(e, 0)
	e = protowire.AppendTag(e, 2, protowire.Fixed64Type)
	e = protowire.AppendFixed64(e, 0)
	stamp := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(now.Unix()))
	stamp = protowire.AppendVarint(protowire.AppendTag(stamp, 2, protowire.VarintType), uint64(now.Nanosecond()))
	e = protowire.AppendBytes(protowire.AppendTag(e, 3, protowire.BytesType), stamp)
	e = protowire.AppendString(protowire.AppendTag(e, 4, protowire.BytesType), sender)
	if clientID != "" {
		e = protowire.AppendString(protowire.AppendTag(e, 5, protowire.BytesType), clientID)
	}
	message := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), text)
	e = protowire.AppendBytes(protowire.AppendTag(e, 6, protowire.BytesType), message)
	return protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), e)
}

// put writes the offset of an element.
func put(element []byte, offset uint64) {
	_, n := binary.Uvarint(element[1:])
	binary.LittleEndian.PutUint64(element[1+n+1:], offset)
	binary.LittleEndian.PutUint64(element[1+n+10:], offset-1)
}

// reserve gives the next offset. Events are then added in that order.
func (r *room) reserve(element []byte) uint64 {
	r.next++
	put(element, r.next)
	return r.next
}

// addLocked makes an event readable.
func (r *room) addLocked(element []byte) {
	last := len(r.chunks) - 1
	if last < 0 || len(r.chunks[last])+len(element) > cap(r.chunks[last]) {
		r.chunks = append(r.chunks, make([]byte, 0, max(chunkBytes, len(element))))
		last++
	}
	r.places = append(r.places, place{uint32(last), uint32(len(r.chunks[last]))})
	r.chunks[last] = append(r.chunks[last], element...)
}

// read returns the events after an offset, as far as they lie in one piece and
// fit into a frame, and the offset of the last one.
func (r *room) read(after uint64) (elements []byte, last uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	head := uint64(len(r.places))
	if after >= head {
		return nil, after
	}
	from := r.places[after]
	// How many events begin in this chunk and within the frame.
	n := uint64(sort.Search(int(head-after), func(i int) bool {
		p := r.places[after+uint64(i)]
		return p.chunk != from.chunk || p.at-from.at >= frameBytes
	}))
	end := uint32(len(r.chunks[from.chunk]))
	if after+n < head && r.places[after+n].chunk == from.chunk {
		end = r.places[after+n].at
	}
	if n > 1 && end-from.at > frameBytes { // the last of them ends beyond it
		n--
		end = r.places[after+n].at
	}
	return r.chunks[from.chunk][from.at:end:end], after + n
}

func (r *room) head() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return uint64(len(r.places))
}

// wake queues every shard that has readers.
func (r *room) wake(p *pool) {
	for i := range r.shards {
		if s := &r.shards[i]; s.all() != nil && s.queued.CompareAndSwap(false, true) {
			p.push(s)
		}
	}
}

func (s *shard) all() []*reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readers
}

func (s *shard) add(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = append(append([]*reader(nil), s.readers...), r)
}

func (s *shard) remove(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*reader
	for _, other := range s.readers {
		if other != r {
			kept = append(kept, other)
		}
	}
	s.readers = kept
}

// header is what comes before elements in a frame.
func (r *room) header(elements int) []byte {
	events := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), r.name)
	events = protowire.AppendString(protowire.AppendTag(events, 2, protowire.BytesType), incarnation)
	b := protowire.AppendTag(make([]byte, 0, 8+len(events)), 6, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(events)+elements))
	return append(b, events...)
}
