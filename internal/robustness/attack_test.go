package robustness

import (
	"bytes"
	"context"
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that rawCodec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// raw is an encoded message, right or wrong.
type raw []byte

// rawCodec sends raw as it is.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(raw); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// bombs are requests that are small on the wire and large when decoded. The
// last one is as much as a valid request may be.
func bombs() map[string]raw {
	const empty = "\x12\x00"
	dense := "\x2a\x10" + strings.Repeat("\x22\x00", 8) // a position of eight empty stretches
	return map[string]raw{
		reprisev1.ChatService_Ack_FullMethodName:        raw(strings.Repeat(empty, 524_000)),
		reprisev1.ChatService_CreateRoom_FullMethodName: raw(strings.Repeat("\x2a\x00", 524_000)),
		reprisev1.ChatService_Resume_FullMethodName:     raw(strings.Repeat(dense, 8000)),
	}
}

// attack sends bombs until ctx ends: over one gRPC connection with 90 streams,
// and by 100 grpc-web POSTs at once; token may be empty. It returns how many
// were answered.
func attack(ctx context.Context, t testing.TB, p *process, token string) (answered int) {
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	web := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 100, MaxIdleConnsPerHost: 100}}
	defer web.CloseIdleConnections()
	md := ctx
	if token != "" {
		md = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	all := bombs()
	every := func(n int, send func(method string, b raw) bool) {
		for range n {
			wg.Go(func() {
				for ctx.Err() == nil {
					for method, b := range all {
						if send(method, b) {
							mu.Lock()
							answered++
							mu.Unlock()
						}
					}
				}
			})
		}
	}
	every(90, func(method string, b raw) bool {
		err := conn.Invoke(md, method, b, new(emptypb.Empty))
		return status.Code(err) != codes.Unavailable && ctx.Err() == nil
	})
	every(100, func(method string, b raw) bool {
		body := append(bigendian.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.http+method, bytes.NewReader(body))
		if err != nil {
			return false
		}
		r.Header.Set("Content-Type", "application/grpc-web+proto")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		out, err := web.Do(r)
		if err != nil {
			return false
		}
		return out.Body.Close() == nil
	})
	wg.Wait()
	return answered
}

// TestMemoryBombs: requests that decode to fifty times their size, as often and
// as many at once as one likes, with a token and without, cost the server
// bounded memory, and others go on.
func TestMemoryBombs(t *testing.T) {
	needFaults(t)
	const most = 256 << 20
	for _, token := range []string{"", "dev:mallory"} {
		t.Run(fmt.Sprintf("token %q", token), func(t *testing.T) {
			p := newProcess(t, "")
			p.start()
			publishing := honest(t, p.grpc, "127.0.0.1")
			publishing(1)
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			peak := make(chan uint64)
			go func() {
				var rss uint64
				for ctx.Err() == nil {
					rss = max(rss, p.rss())
					time.Sleep(20 * time.Millisecond) // nobody says when memory is at its most
				}
				peak <- rss
			}()
			answered := make(chan int)
			go func() { answered <- attack(ctx, t, p, token) }()
			for ctx.Err() == nil {
				publishing(1)
				time.Sleep(20 * time.Millisecond) // within the limit of its events a second
			}
			n, rss := <-answered, <-peak
			t.Logf("%d bombs were answered; at most %.0f MiB were resident", n, mib(rss))
			if rss > most {
				t.Errorf("%.0f MiB were resident, more than %.0f", mib(rss), mib(most))
			}
			if n < 190 {
				t.Errorf("only %d bombs were answered", n)
			}
			publishing(10)
			p.stop()
		})
	}
}

// honest returns a function that publishes n events over a new connection from
// an address.
func honest(t testing.TB, server, from string) func(n int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	user := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer dev:honest")
	return func(n int) {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(user, startTimeout)
		defer cancel()
		chat := reprisev1.NewChatServiceClient(conn)
		if _, err := chat.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: "lobby"}); err != nil {
			t.Fatalf("an honest client cannot join: %v", err)
		}
		for range n {
			if _, err := chat.SendMessage(ctx, &reprisev1.SendMessageRequest{Room: "lobby", Text: "hello"}); err != nil {
				t.Fatalf("an honest client cannot publish: %v", err)
			}
		}
	}
}

// TestIdleConnections: more idle connections than the process has descriptors,
// to each port and to both, keep nobody of another address out, and the store
// keeps working.
func TestIdleConnections(t *testing.T) {
	needFaults(t)
	const many = 1100
	p := newProcess(t, "")
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("the limit of descriptors is set by a shell")
	}
	p.binary, p.prefix = shell, []string{"-c", `ulimit -n 1024 && exec "$0" "$@"`, p.binary}
	p.start()
	for _, address := range []string{p.grpc, p.http} {
		for i := range many {
			c, err := net.Dial("tcp", address)
			if errors.Is(err, syscall.ECONNRESET) {
				continue // refused already
			}
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			defer c.Close()
		}
	}
	if n := fdsOf(t, p.pid()); n > 800 {
		t.Errorf("%d descriptors are open", n)
	}
	publishing := honest(t, p.grpc, "127.0.0.2")
	for range 20 {
		publishing(5)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	web := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	r, err := web.Get("http://" + p.http + "/readyz")
	if err != nil {
		t.Fatalf("the port for browsers: %v", err)
	}
	if r.Body.Close(); r.StatusCode != http.StatusOK {
		t.Errorf("the server is not ready: %s", r.Status)
	}
	life := p.output.life()
	if strings.Contains(life, "too many open files") {
		t.Error("the server has run out of descriptors")
	}
	if n := strings.Count(life, "refused a connection"); n == 0 || n > 20 {
		t.Errorf("the log has %d lines about connections that were refused", n)
	}
	if !strings.Contains(life, `"msg":"descriptors","limit":1024,"store":256`) {
		t.Error("the log does not say how descriptors are shared")
	}
	p.stop()
}
