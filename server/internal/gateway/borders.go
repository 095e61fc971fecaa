package gateway

import "encoding/binary"

// prefixLen is gRPC's before each message: a flag and a length.
const prefixLen = 5

// borders follows where messages end in a stream of gRPC bytes that is cut
// anywhere.
type borders struct {
	max uint32 // largest message

	prefix [prefixLen]byte
	have   int    // bytes of prefix seen
	left   uint32 // bytes of the message still to come, once prefix is whole
	count  int    // whole messages

	// lost says that a message larger than max has begun. gRPC refuses it as
	// soon as it sees the prefix, and nothing after it means anything.
	lost bool
}

// advance takes the next bytes of the stream.
func (b *borders) advance(p []byte) {
	for len(p) > 0 && !b.lost {
		if b.have < prefixLen {
			n := copy(b.prefix[b.have:], p)
			b.have += n
			p = p[n:]
			if b.have < prefixLen {
				return
			}
			b.left = binary.BigEndian.Uint32(b.prefix[1:])
			b.lost = b.left > b.max
		}
		n := min(uint64(b.left), uint64(len(p)))
		b.left -= uint32(n)
		p = p[n:]
		if b.left == 0 {
			b.have = 0
			b.count++
		}
	}
}

// settled says that gRPC can act on all bytes so far: they end with a whole
// message, or with one that it will refuse.
func (b *borders) settled() bool { return b.lost || b.have == 0 }
