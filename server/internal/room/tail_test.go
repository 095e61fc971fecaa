package room

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Whatever range of the tail is read, it is the bytes that were appended, at
// most as many as asked for unless one event is larger, and a slice that was
// handed out never changes.
func TestP3_TailHoldsWhatWasAppended(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var l tail
	elements := [][]byte{nil} // by offset
	type handed struct{ slice, copied []byte }
	var out []handed
	for offset := uint64(1); offset <= 3000; offset++ {
		size := 1 + rnd.IntN(800)
		if rnd.IntN(100) == 0 {
			size = 70 << 10
		}
		e := bytes.Repeat([]byte{byte(offset)}, size)
		elements = append(elements, e)
		l.append(offset, e)
		after, maxBytes := uint64(rnd.IntN(int(offset))), 1+rnd.IntN(20<<10)
		data, last := l.read(after, offset, maxBytes)
		if last == 0 {
			if l.chunks[0].first <= after+1 {
				t.Fatalf("the tail begins at %d and has nothing after %d", l.chunks[0].first, after)
			}
			continue
		}
		if want := bytes.Join(elements[after+1:last+1], nil); !bytes.Equal(data, want) {
			t.Fatalf("(%d, %d] of %d: %d bytes, want %d", after, last, offset, len(data), len(want))
		}
		if len(data) > maxBytes && last != after+1 {
			t.Fatalf("%d bytes of %d events, asked for %d", len(data), last-after, maxBytes)
		}
		out = append(out, handed{data, bytes.Clone(data)})
	}
	for _, h := range out {
		if !bytes.Equal(h.slice, h.copied) {
			t.Fatal("bytes that were handed out have changed")
		}
	}
}

// A reader that is stalled holds on to the chunks of what its transport has
// not sent: they stay small. So does the tail.
func TestP6_TailChunksAreSmall(t *testing.T) {
	var l tail
	for offset := uint64(1); offset <= 5000; offset++ {
		l.append(offset, make([]byte, 1000))
		total := 0
		for _, c := range l.chunks {
			total += cap(c.buf)
			if cap(c.buf) > 32<<10 {
				t.Fatalf("a chunk of %d bytes", cap(c.buf))
			}
		}
		if total != l.bytes || total > tailMax {
			t.Fatalf("%d bytes, %d counted", total, l.bytes)
		}
	}
}
