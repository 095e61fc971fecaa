package gateway

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway/webtest"
)

// The server ends its streams with a status first; then every client gets it.
func TestShutdownAfterStreamsEnded(t *testing.T) {
	existing := goleak.IgnoreCurrent()
	drain := make(chan struct{})
	f := start(t, &chat{onOpen: func(_ *reprisev1.OpenRequest, s grpc.ServerStreamingServer[reprisev1.ServerFrame]) error {
		if err := s.Send(event(1, 8)); err != nil {
			return err
		}
		<-drain
		return status.Error(codes.Unavailable, "draining")
	}}, nil)
	w, err := webtest.DialWebsocket(ctxOf(t), f.base, open, webtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := errors.Join(w.SendMessage(&reprisev1.OpenRequest{}), w.CloseSend(), w.Recv(&reprisev1.ServerFrame{})); err != nil {
		t.Fatal(err)
	}
	p, err := webtest.Post(ctxOf(t), f.client, f.base, open, webtest.Options{}, &reprisev1.OpenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Recv(&reprisev1.ServerFrame{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Shutdown(ctxOf(t)) }()
	select {
	case err := <-done:
		t.Fatalf("Shutdown did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(drain)
	if err := w.Recv(&reprisev1.ServerFrame{}); status.Code(err) != codes.Unavailable {
		t.Errorf("websocket: %v, want UNAVAILABLE", err)
	}
	if err := p.Recv(&reprisev1.ServerFrame{}); status.Code(err) != codes.Unavailable {
		t.Errorf("fetch: %v, want UNAVAILABLE", err)
	}
	_, _ = io.Copy(io.Discard, p.Response.Body)
	p.Close()
	_, _, _ = w.Conn.Read(ctxOf(t)) // answers the Close
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	f.client.CloseIdleConnections()
	w.Close()
	f.serve <- <-f.serve // Serve has returned
	goleak.VerifyNone(t, existing, wrapperTimer)
}

// What has not ended by the end of the context is cut, whatever it is.
func TestShutdownCutsWhatIsLeft(t *testing.T) {
	existing := goleak.IgnoreCurrent()
	var f *fixture
	block := func(ctx context.Context) error {
		<-ctx.Done()
		if cause := context.Cause(callOf(ctx).ctx); !errors.Is(cause, errShutdown) {
			t.Errorf("a call ended with %v, want %v", cause, errShutdown)
		}
		return ctx.Err()
	}
	f = start(t, &chat{
		onConnect: func(s grpc.BidiStreamingServer[reprisev1.ClientFrame, reprisev1.ServerFrame]) error {
			return block(s.Context())
		},
		onGetRoom: func(ctx context.Context, _ *reprisev1.GetRoomRequest) (*reprisev1.GetRoomResponse, error) {
			return nil, block(ctx)
		},
	}, nil)
	for range 20 {
		upgraded(t, f)
		r, err := webtest.DialRaw(f.addr) // silent after the upgrade
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Upgrade(connect); err != nil {
			t.Fatal(err)
		}
		go func() {
			p, err := webtest.Post(context.Background(), f.client, f.base, getRoom, webtest.Options{}, &reprisev1.GetRoomRequest{})
			if err == nil {
				_ = p.Recv(&reprisev1.GetRoomResponse{})
				p.Close()
			}
		}()
	}
	eventually(t, "all have begun", func() bool { return f.chat.started.Load() == 40 && f.calls.count() == 60 })
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v, want that its time was over", err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("Shutdown took %v", d)
	}
	if n := f.chat.ended.Load(); n != 40 {
		t.Errorf("%d of 40 handlers have returned", n)
	}
	if f.calls.count() != 0 || f.conns.tally.count() != 0 {
		t.Errorf("%d calls and %d connections are left", f.calls.count(), f.conns.tally.count())
	}
	f.client.CloseIdleConnections()
	f.serve <- <-f.serve
	goleak.VerifyNone(t, existing, wrapperTimer)
}
