package gateway

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// However a stream is cut, borders finds the same messages.
func TestBorders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 300
		sizes := rapid.SliceOfN(rapid.IntRange(0, most), 0, 20).Draw(t, "sizes")
		var stream []byte
		ends := map[int]int{0: 0} // where so many messages are whole
		for i, n := range sizes {
			stream = append(stream, webtest.PrefixedBytes(make([]byte, n))...)
			ends[len(stream)] = i + 1
		}
		b := borders{max: most}
		for at := 0; at < len(stream); {
			n := min(rapid.IntRange(1, 400).Draw(t, "cut"), len(stream)-at)
			b.advance(stream[at : at+n])
			at += n
			count, whole := ends[at]
			if b.settled() != whole || whole && b.count != count {
				t.Fatalf("at %d: settled %v after %d, want %v after %d", at, b.settled(), b.count, whole, count)
			}
		}
		b.advance(binary.BigEndian.AppendUint32([]byte{0}, most+1))
		if !b.settled() || !b.lost {
			t.Fatal("waits for a message that gRPC refuses")
		}
	})
}

func FuzzReadHeaderBlock(f *testing.F) {
	good := webtest.Frame(webtest.OpBinary, []byte(goodBlock))
	f.Add(good)
	f.Add(append(webtest.Frame(webtest.OpPing, []byte("x")), good...))
	f.Add(webtest.Frame(webtest.OpClose, nil))
	f.Add(webtest.FrameHeader(webtest.OpBinary, 1<<63))
	f.Fuzz(func(t *testing.T, in []byte) {
		const bound = 256
		got, err := readHeaderBlock(bytes.NewReader(in), bound)
		if err != nil {
			return
		}
		if len(got) > bound || !bytes.HasPrefix(in, got) {
			t.Fatalf("returned %d bytes that are not the first of the input", len(got))
		}
	})
}

// frameReader changes nothing in what the library reads, and gives it control
// frames whole.
func FuzzFrameReader(f *testing.F) {
	f.Add(append(webtest.Frame(webtest.OpPing, []byte("xx")), webtest.Frame(webtest.OpBinary, make([]byte, 300))...))
	f.Add(webtest.Frame(webtest.OpBinary, make([]byte, 70000)))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &frameReader{src: bufio.NewReader(iotest.OneByteReader(bytes.NewReader(in)))}
		out, err := io.ReadAll(r)
		if !bytes.HasPrefix(in, out) {
			t.Fatal("the bytes were changed")
		}
		if err == nil && len(out) < len(in) && len(in)-len(out) > len(r.buf) {
			t.Fatalf("%d of %d bytes are missing at the end", len(in)-len(out), len(in))
		}
	})
}
