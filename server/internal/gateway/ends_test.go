package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// wantReason checks that a call ended as a reason demands: code, ErrorInfo,
// and RetryInfo exactly if waiting cures it.
func wantReason(t *testing.T, what string, err error, want *reason.Reason) {
	t.Helper()
	s := status.Convert(err)
	if err == nil || errors.Is(err, io.EOF) || s.Code() != want.Code() {
		t.Errorf("%s: %v, want %v %s", what, err, want.Code(), want.Name())
		return
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if info.GetReason() != want.Name() || info.GetDomain() != reason.Domain {
		t.Errorf("%s: ErrorInfo %v, want %s", what, info, want.Name())
	}
	if (retry.GetRetryDelay().AsDuration() > 0) != want.Retries() {
		t.Errorf("%s: RetryInfo %v, want one: %v", what, retry, want.Retries())
	}
}

// slowly reads its first bytes and then nothing until the test is over.
type slowly struct {
	io.Reader
	over <-chan struct{}
}

func (s slowly) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		<-s.over
	}
	return n, err
}

// TestEveryEndHasItsReason walks the ways in which the gateway itself ends a
// call, over both transports.
func TestEveryEndHasItsReason(t *testing.T) {
	md := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h[http.CanonicalHeaderKey(pairs[i])] = []string{pairs[i+1]}
		}
		return h
	}
	half := webtest.PrefixedBytes(make([]byte, 100))[:50]
	huge := webtest.PrefixedBytes(make([]byte, 8<<20))
	flood := bytes.Repeat(webtest.PrefixedBytes(make([]byte, 200)), 20_000)
	stuck := func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
		<-s.Context().Done()
		return s.Context().Err()
	}
	for _, tt := range []struct {
		name, method string
		metadata     http.Header
		body         []byte
		open         bool // the request does not end
		handler      func(grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error
		want         *reason.Reason
	}{
		{"json", connect, md("content-type", "application/grpc-web+json"), nil, false, nil, reason.ContentType},
		{"another type of that prefix", connect, md("content-type", "application/grpc-webs"), nil, false, nil, reason.ContentType},
		{"timeout is no number", connect, md("grpc-timeout", "soon"), nil, false, nil, reason.Malformed},
		{"timeout has no unit", connect, md("grpc-timeout", "100"), nil, false, nil, reason.Malformed},
		{"timeout is negative", connect, md("grpc-timeout", "-1S"), nil, false, nil, reason.Malformed},
		{"timeout is too long", connect, md("grpc-timeout", "123456789S"), nil, false, nil, reason.Malformed},
		{"binary metadata", connect, md("trace-bin", "%%%"), nil, false, nil, reason.Malformed},
		{"unknown encoding", connect, md("grpc-encoding", "br"), nil, false, nil, reason.EncodingUnknown},
		{"half a message", getRoom, nil, half, true, nil, reason.RequestTimeout},
		{"half a frame", connect, nil, half, true, nil, reason.RequestTimeout},
		{"nothing", open, nil, nil, true, nil, reason.RequestTimeout},
		{"huge message", getRoom, nil, huge, false, nil, reason.FrameTooLarge},
		{"huge frame", connect, nil, huge, false, nil, reason.FrameTooLarge},
		{"huge frame, and more", connect, nil, append(huge[:len(huge):len(huge)], huge...), true, nil, reason.FrameTooLarge},
		{"flood", connect, nil, flood, true, stuck, reason.CallStalled},
		{"deadline", connect, md("grpc-timeout", "200m"), webtest.Prefixed(frame("r1")), true, stuck, reason.Deadline},
	} {
		f := start(t, &chat{onConnect: tt.handler}, func(o *Options) {
			o.RequestTimeout, o.StallTimeout = 500*time.Millisecond, 500*time.Millisecond
			o.MaxRecvBytes = 256 << 10
			o.Metadata = []string{"trace-bin"}
		})
		t.Run("fetch/"+tt.name, func(t *testing.T) {
			over := make(chan struct{})
			defer close(over)
			var body io.Reader = bytes.NewReader(tt.body)
			if tt.open {
				body = slowly{body, over}
			}
			p, err := webtest.PostBody(ctxOf(t), f.client, f.base, tt.method, webtest.Options{Metadata: tt.metadata}, body)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			wantReason(t, "the call", p.Recv(&reprisev1.ServerFrame{}), tt.want)
			wantOneStatus(t, p)
		})
		t.Run("websocket/"+tt.name, func(t *testing.T) {
			w, err := webtest.DialWebsocket(ctxOf(t), f.base, tt.method, webtest.Options{Metadata: tt.metadata})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			sent := make(chan struct{})
			go func() { // may go on behind the status
				defer close(sent)
				piece := 400 << 10 // more than one message of the gateway's takes
				if tt.want == reason.CallStalled {
					piece = 100 << 10
				}
				for b := tt.body; len(b) > 0; b = b[min(piece, len(b)):] {
					if w.SendData(b[:min(piece, len(b))]) != nil {
						return
					}
				}
				if !tt.open {
					_ = w.CloseSend()
				}
			}()
			wantReason(t, "the call", w.Recv(&reprisev1.ServerFrame{}), tt.want)
			w.Close()
			<-sent
		})
		eventually(t, tt.name+" leaves nothing", func() bool {
			f.client.CloseIdleConnections()
			return f.calls.count() == 0 && f.refusals.count() == 0 && f.conns.tally.count() == 0
		})
	}
}

// wantOneStatus checks that the response has its status once: in its headers,
// with nothing behind them, or in one frame of trailers at its end.
func wantOneStatus(t *testing.T, p *webtest.Fetch) {
	t.Helper()
	rest, err := io.ReadAll(p.Response.Body)
	if err != nil || len(rest) > 0 {
		t.Errorf("behind the status: %q, %v", rest, err)
	}
}

// TestUnreadableBodyIsSaid: a body that is no grpc-web got 200 and nothing.
func TestUnreadableBodyIsSaid(t *testing.T) {
	f := start(t, &chat{}, nil)
	post := func(contentType, encoding, body string) error {
		r, err := webtest.DialRaw(f.addr)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = fmt.Fprintf(r, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\n%s\r\n\r\n%s", getRoom, f.addr, contentType, encoding, body)
		if err != nil {
			return err
		}
		resp, err := http.ReadResponse(r.R, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc-web") {
			return fmt.Errorf("%s, %s", resp.Status, resp.Header.Get("Content-Type"))
		}
		return webtest.StatusError(resp.Header)
	}
	wantReason(t, "base64", post("application/grpc-web-text", "Content-Length: 8", "!!!!!!!!"), reason.Malformed)
	wantReason(t, "chunk", post("application/grpc-web+proto", "Transfer-Encoding: chunked", "zz\r\nxx\r\n0\r\n\r\n"), reason.Malformed)

	r := upgraded(t, f)
	message := webtest.Frame(webtest.OpText, []byte("hello"))
	if _, err := r.Write(message); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r.R)
	if err != nil || !bytes.Contains(all, []byte("grpc-status: 3")) || !bytes.Contains(all, []byte("grpc-status-details-bin: ")) {
		t.Errorf("a text message in a websocket: %q, %v", all, err)
	}
}

// TestStatusReachesWhoIsSending: a call that ends while its client sends, as at
// a takeover, ends with its status and not with a reset of its connection.
func TestStatusReachesWhoIsSending(t *testing.T) {
	for _, size := range []int{100, 60 << 10, 200 << 10} {
		f := start(t, &chat{onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
			for range 3 {
				if _, err := s.Recv(); err != nil {
					return err
				}
			}
			return reason.Fenced.Status("taken over", 0).Err()
		}}, nil)
		message := frame(strings.Repeat("x", size))
		for i := range 20 {
			w, err := webtest.DialWebsocket(ctxOf(t), f.base, connect, webtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for w.SendMessage(message) == nil {
				}
			}()
			wantReason(t, fmt.Sprintf("websocket, %d bytes, time %d", size, i), w.Recv(&reprisev1.ServerFrame{}), reason.Fenced)
			w.Close()
			<-sent
		}
		for i := range 5 {
			body := bytes.Repeat(webtest.Prefixed(message), 8<<20/(size+10))
			p, err := webtest.PostBody(ctxOf(t), f.client, f.base, connect, webtest.Options{}, bytes.NewReader(body))
			if err != nil {
				t.Errorf("fetch, %d bytes, time %d: %v", size, i, err)
				continue
			}
			wantReason(t, fmt.Sprintf("fetch, %d bytes, time %d", size, i), p.Recv(&reprisev1.ServerFrame{}), reason.Fenced)
			p.Close()
		}
	}
}

// TestDeadlineOfAHandler: a handler that ends with its context, without a
// reason of its own, gives one.
func TestDeadlineOfAHandler(t *testing.T) {
	f := start(t, &chat{onGetRoom: func(ctx context.Context, _ *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error) {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}}, nil)
	p, err := webtest.Post(ctxOf(t), f.client, f.base, getRoom,
		webtest.Options{Metadata: http.Header{"Grpc-Timeout": {"100m"}}}, &reprisev1.GetRoomRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	wantReason(t, "a deadline", p.Recv(&reprisev1.GetRoomResponse{}), reason.Deadline)
}

// TestAnEndedCallLeavesTheNextAlone: calls that the gateway ends, and calls that
// it does not, over the same client's connections: those that it does not are
// carried out. Reads that were aborted late ended the next call on a connection.
func TestAnEndedCallLeavesTheNextAlone(t *testing.T) {
	f := start(t, &chat{}, func(o *Options) { o.MaxRecvBytes = 64 << 10 })
	large := webtest.PrefixedBytes(make([]byte, 80<<10))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 150 {
				p, err := webtest.PostBody(ctxOf(t), f.client, f.base, getRoom, webtest.Options{}, bytes.NewReader(large))
				if err != nil {
					t.Error(err)
					return
				}
				wantReason(t, fmt.Sprint("large call ", i), p.Recv(&reprisev1.GetRoomResponse{}), reason.FrameTooLarge)
				_, _ = io.Copy(io.Discard, p.Response.Body)
				p.Close()
				p, err = webtest.Post(ctxOf(t), f.client, f.base, getRoom, webtest.Options{}, &reprisev1.GetRoomRequest{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Recv(&reprisev1.GetRoomResponse{}); err != nil {
					t.Errorf("good call %d: %v", i, err)
				}
				_, _ = io.Copy(io.Discard, p.Response.Body)
				p.Close()
			}
		})
	}
	wg.Wait()
}
