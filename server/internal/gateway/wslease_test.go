package gateway

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// partOf writes a websocket message of size bytes but for its last one, and
// returns how much was taken.
func partOf(c net.Conn, size int) int {
	header := append([]byte{finBit | opBinary, maskBit | 127}, binary.BigEndian.AppendUint64(nil, uint64(size))...)
	message := append(append(header, 0, 0, 0, 0), make([]byte, size-1)...)
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	n, _ := c.Write(message)
	return n
}

// TestPartialMessages: many websockets that have sent all but the end of their
// largest message hold bounded memory, and are told to come again; small
// messages go on, and everything is given back.
func TestPartialMessages(t *testing.T) {
	received := make(chan string, 10)
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			if id := m.GetRequestId(); id != "first" {
				received <- id
			}
		}
	}}, func(o *Options) { o.RequestTimeout = 5 * time.Second })
	before := heap()
	var conns []net.Conn
	for range 60 {
		c := upgraded(t, f)
		conns = append(conns, c)
		go partOf(c, 1<<20)
	}
	const most = 20 << 20 // of 60 MiB that were sent
	peak := 0
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		peak = max(peak, heap()-before)
		if held := f.messages.Used(); held > 16<<20 {
			t.Fatalf("%d MiB are held by one address", held>>20)
		}
	}
	if t.Logf("the heap grew by %d KiB", peak>>10); peak > most {
		t.Errorf("the heap grew by %d KiB, want at most %d", peak>>10, most>>10)
	}
	small := upgraded(t, f)
	if err := small.WriteFrame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(frame("small"))...)); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != "small" {
		t.Errorf("received %q", got)
	}
	// Those that were not read are told to come again, the others that they are
	// too late.
	eventually(t, "none of them is left", func() bool { return f.messages.Used() == 0 })
	for _, c := range conns {
		_ = c.Close()
	}
	// A large one that comes whole is received and given back, while its
	// stream goes on.
	large := upgraded(t, f)
	text := &reprisev1.ClientFrame{RequestId: "large", Frame: &reprisev1.ClientFrame_SendMessage{
		SendMessage: &reprisev1.SendMessageRequest{Text: string(make([]byte, 100<<10))},
	}}
	for range 3 {
		if err := large.WriteFrame(webtest.OpBinary, append([]byte{0}, webtest.Prefixed(text)...)); err != nil {
			t.Fatal(err)
		}
		if got := <-received; got != "large" {
			t.Errorf("received %q", got)
		}
	}
	eventually(t, "it is given back", func() bool { return f.messages.Used() == 0 })
}
