package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	reprise "github.com/reprise-chat/reprise/client"
	"github.com/reprise-chat/reprise/internal/history/witness"
)

// client is one user, whose program may be stopped and started again with the
// positions it had, or be taken over by a copy of it.
type client struct {
	*witness.Client // of what it publishes
	w               *world
	name            string

	mu     sync.Mutex
	cur    *program
	stall  time.Duration // the handler's next nap
	sent   int
	copies int
}

// program is one holder of the user's session.
type program struct {
	*witness.Client
	c      *client
	store  reprise.PositionStore
	cancel context.CancelFunc
	ran    chan error

	mu  sync.Mutex
	sdk *reprise.Client
}

func newClient(w *world, name string) *client {
	c := &client{w: w, name: name}
	c.cur = c.program(name)
	c.Client = c.cur.Client
	return c
}

func (c *client) program(name string) *program {
	p := &program{c: c, store: reprise.NewMemoryStore()}
	p.Client = witness.New(name, c.w.trace, func(reprise.Event) { c.nap() })
	return p
}

// connectOnly returns an SDK client that is not running.
func (p *program) connectOnly() (*reprise.Client, error) {
	w, name := p.c.w, p.c.name
	return reprise.New(reprise.Config{
		Addresses: []string{"passthrough:///sim"},
		Insecure:  true,
		Logger:    slog.New(slog.DiscardHandler),
		Token:     func(context.Context) (string, error) { return "dev:" + name, nil },
		Positions: p.store, ReplayLimit: w.replayLimit, Takeover: reprise.TakeoverTakeOver,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.net.connect(ctx, name) }),
			grpc.WithStreamInterceptor(p.Observe),
		},
	})
}

func (p *program) start() {
	sdk, err := p.connectOnly()
	if err != nil {
		p.c.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	p.mu.Lock()
	p.sdk, p.cancel, p.ran = sdk, cancel, ran
	p.mu.Unlock()
	go func() { ran <- sdk.Run(ctx, p) }()
}

// stop ends the program; its positions stay. It returns what Run did.
func (p *program) stop() error {
	p.cancel()
	err := <-p.ran
	if err := p.sdk.Close(); err != nil {
		p.c.w.t.Errorf("%s: Close: %v", p.Name(), err)
	}
	return err
}

func (c *client) holder() *program {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur
}

func (c *client) start() { c.holder().start() }

func (c *client) stop() {
	if err := c.holder().stop(); err != nil && !errors.Is(err, context.Canceled) {
		c.w.t.Errorf("%s: Run ended with %v", c.holder().Name(), err)
	}
}

func (c *client) current() *reprise.Client {
	p := c.holder()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sdk
}

// copied starts a copy of the program with all that it has saved, as of a
// virtual machine that was restored: two programs with one session.
func (c *client) copied() (first, second *program) {
	first = c.holder()
	c.copies++
	second = c.program(fmt.Sprintf("%s+%d", c.name, c.copies))
	saved, err := first.store.Load(context.Background())
	if err == nil {
		err = second.store.Save(context.Background(), reprise.Update{Session: &saved.Session, Places: saved.Places})
	}
	if err != nil {
		c.w.t.Fatal(err)
	}
	for _, place := range saved.Places {
		second.Place(place.Position)
	}
	second.start()
	return first, second
}

// keep makes one of the two the client's program: the one that is not fenced,
// or, where the second one was given a session of its own, that one.
func (c *client) keep(first, second *program) {
	keep, other := second, first
	select {
	case err := <-first.ran:
		first.ran <- err
	case err := <-second.ran: // the first one took it back
		second.ran <- err
		keep, other = first, second
	case <-time.After(5 * time.Minute):
	}
	c.mu.Lock()
	c.cur = keep
	c.mu.Unlock()
	c.w.note("%s stays", keep.Name())
	if err := other.stop(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, reprise.ErrFenced) {
		c.w.t.Errorf("%s: Run ended with %v", other.Name(), err)
	}
}

// publish sends one message, however long it takes, and writes down how it
// ended.
func (c *client) publish(room string) {
	c.mu.Lock()
	c.sent++
	id, again := fmt.Sprintf("m%d", c.sent), c.sent%4 == 0
	c.mu.Unlock()
	for attempt := 0; ; attempt++ {
		_, err := c.Publish(room, id, func() (reprise.Receipt, error) {
			ctx, cancel := context.WithTimeout(c.w.ctx, 10*time.Minute)
			defer cancel()
			return c.current().Send(ctx, room, "text of "+id, reprise.WithClientID(id))
		})
		switch {
		case err == nil && again: // as if the receipt had been lost
			again = false
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
