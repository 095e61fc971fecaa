package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/internal/history/witness"
)

// client is one user with one program, which may be stopped and started again
// with the positions it had.
type client struct {
	*witness.Client
	w     *world
	name  string
	store reprise.PositionStore

	sdk    *reprise.Client
	cancel context.CancelFunc
	ran    chan error

	mu    sync.Mutex
	stall time.Duration // the handler's next nap
	sent  int
}

func newClient(w *world, name string) *client {
	c := &client{w: w, name: name, store: reprise.NewMemoryStore()}
	c.Client = witness.New(name, w.trace, func(reprise.Event) { c.nap() })
	return c
}

// connectOnly returns an SDK client that is not running.
func (c *client) connectOnly() (*reprise.Client, error) {
	return reprise.New(reprise.Config{
		Addresses: []string{"passthrough:///sim"},
		Insecure:  true,
		Token:     func(context.Context) (string, error) { return "dev:" + c.name, nil },
		Positions: c.store, ReplayLimit: c.w.replayLimit, Takeover: reprise.TakeoverTakeOver,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.w.net.connect(ctx, c.name) }),
			grpc.WithStreamInterceptor(c.Observe),
		},
	})
}

func (c *client) start() {
	sdk, err := c.connectOnly()
	if err != nil {
		c.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	c.mu.Lock()
	c.sdk, c.cancel, c.ran = sdk, cancel, ran
	c.mu.Unlock()
	go func() { ran <- sdk.Run(ctx, c) }()
}

// stop ends the program; its positions stay.
func (c *client) stop() {
	c.cancel()
	if err := <-c.ran; err != nil && !errors.Is(err, context.Canceled) {
		c.w.t.Errorf("%s: Run ended with %v", c.name, err)
	}
	if err := c.sdk.Close(); err != nil {
		c.w.t.Errorf("%s: Close: %v", c.name, err)
	}
}

func (c *client) current() *reprise.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sdk
}

// publish sends one message, however long it takes, and writes down how it
// ended.
func (c *client) publish(room string) {
	c.mu.Lock()
	c.sent++
	id := fmt.Sprintf("m%d", c.sent)
	c.mu.Unlock()
	for attempt := 0; ; attempt++ {
		_, err := c.Publish(room, id, func() (reprise.Receipt, error) {
			ctx, cancel := context.WithTimeout(c.w.ctx, 10*time.Minute)
			defer cancel()
			return c.current().Send(ctx, room, "text of "+id, reprise.WithClientID(id))
		})
		switch {
		case err == nil, errors.Is(err, reprise.ErrRoomNotFound): // or not a member now
			return
		case c.w.ctx.Err() != nil || attempt > 20:
			return
		}
		time.Sleep(time.Second) // a program that was stopped while sending
	}
}

func (c *client) nap() {
	c.mu.Lock()
	d := c.stall
	c.stall = 0
	c.mu.Unlock()
	if d > 0 {
		select {
		case <-time.After(d):
		case <-c.w.ctx.Done():
		}
	}
}
