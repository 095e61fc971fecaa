//go:build linux

package gateway

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// A peer whose network is gone takes no acknowledgement, and the few bytes it
// is sent never fill a buffer: no write ever fails.
func TestVanishedPeerIsFound(t *testing.T) {
	const timeout = time.Second
	ended := make(chan time.Time, 1)
	f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		defer func() { ended <- time.Now() }()
		for {
			select {
			case <-s.Context().Done():
				return nil
			case <-time.After(50 * time.Millisecond):
				if err := s.Send(event(1, 8)); err != nil {
					return err
				}
			}
		}
	}}, func(o *Options) { o.WriteTimeout = timeout })
	r := upgraded(t, f)
	other, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := errors.Join(other.SendMessage(frame("r")), blackhole(r.Conn.(*net.TCPConn))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		select {
		case at := <-ended:
			if d := at.Sub(began); d < timeout/2 || d > 2*timeout {
				t.Errorf("found after %v, want about %v", d, timeout)
			} else {
				t.Logf("found after %v", d)
			}
			return
		case <-time.After(4 * timeout):
			t.Fatal("not found")
		default:
			if err := other.Recv(&reprisev1.ServerFrame{}); err != nil {
				t.Fatalf("the healthy peer: %v", err)
			}
		}
	}
}

// blackhole makes the kernel drop everything that arrives for the socket.
func blackhole(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
	return errors.Join(err, inner)
}
