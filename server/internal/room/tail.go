package room

import "sort"

const (
	// chunkMin and chunkMax bound the size of a chunk: a quiet room holds
	// little, and a reader that is stalled, whose transport holds on to the
	// chunks of up to 80 KiB of frames, keeps at most four of them from the
	// garbage collector.
	chunkMin = 2 << 10
	chunkMax = 32 << 10
	// tailMax bounds a room's tail: what a reader that fell behind further
	// than that lacks comes from the store.
	tailMax = 1 << 20
)

// tail is the newest events of a room, encoded, in append-only chunks: any
// range within a chunk is one contiguous slice, shared by every reader. Bytes
// that were handed out are never written again; a chunk that is full is left
// to the garbage collector.
type tail struct {
	chunks []chunk
	bytes  int // capacity of all chunks
}

type chunk struct {
	first uint64 // offset of the first event
	buf   []byte
	ends  []uint32 // end of each event in buf; offsets are dense
}

func (t *tail) append(offset uint64, element []byte) {
	if n := len(t.chunks); n > 0 && t.chunks[n-1].next() != offset {
		*t = tail{} // cannot happen while the room has one writer; never serve a hole
	}
	n := len(t.chunks)
	if n == 0 || cap(t.chunks[n-1].buf)-len(t.chunks[n-1].buf) < len(element) {
		t.grow(offset, len(element))
		n = len(t.chunks)
	}
	c := &t.chunks[n-1]
	c.buf = append(c.buf, element...)
	c.ends = append(c.ends, uint32(len(c.buf)))
}

func (t *tail) grow(offset uint64, need int) {
	size := chunkMin
	if n := len(t.chunks); n > 0 {
		size = min(2*cap(t.chunks[n-1].buf), chunkMax)
	}
	size = max(size, need)
	for len(t.chunks) > 0 && t.bytes+size > tailMax {
		t.bytes -= cap(t.chunks[0].buf)
		t.chunks = append([]chunk(nil), t.chunks[1:]...)
	}
	t.chunks = append(t.chunks, chunk{first: offset, buf: make([]byte, 0, size)})
	t.bytes += size
}

// read returns events after `after` up to `to`, at most maxBytes but at least
// one, and the offset of the last. It returns nil if the tail does not hold
// the event after `after`.
func (t *tail) read(after, to uint64, maxBytes int) (data []byte, last uint64) {
	for i := len(t.chunks) - 1; i >= 0; i-- {
		c := &t.chunks[i]
		if c.first > after+1 {
			continue
		}
		if after+1 >= c.next() {
			return nil, 0
		}
		return c.read(int(after+1-c.first), int(min(to, c.next()-1)-c.first), maxBytes)
	}
	return nil, 0
}

func (c *chunk) next() uint64 { return c.first + uint64(len(c.ends)) }

// read returns the events with indexes i to j, cut at maxBytes.
func (c *chunk) read(i, j, maxBytes int) (data []byte, last uint64) {
	start := 0
	if i > 0 {
		start = int(c.ends[i-1])
	}
	n := sort.Search(j-i+1, func(k int) bool { return int(c.ends[i+k])-start > maxBytes })
	k := max(i, i+n-1)
	end := int(c.ends[k])
	return c.buf[start:end:end], c.first + uint64(k)
}
