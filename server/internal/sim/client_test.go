package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	reprise "github.com/reprise-chat/reprise/client"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/internal/history"
)

// client is one user with one program, which may be stopped and started again
// with the positions it had.
type client struct {
	w     *world
	name  string
	store reprise.PositionStore

	sdk    *reprise.Client
	cancel context.CancelFunc
	ran    chan error

	mu    sync.Mutex
	held  map[string]uint64 // by room; what the trace says it holds
	stall time.Duration     // the handler's next nap
	sent  int
}

func newClient(w *world, name string) *client {
	return &client{w: w, name: name, store: reprise.NewMemoryStore(), held: make(map[string]uint64)}
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
			grpc.WithStreamInterceptor(c.observe),
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
	r := history.Record{P: c.name + "/" + id, K: history.Publish, Room: room, ID: c.name + "/" + id}
	call := func(ph history.Phase) { r.Ph = ph; c.w.trace.Add(r) }
	for attempt := 0; ; attempt++ {
		call(history.Call)
		ctx, cancel := context.WithTimeout(c.w.ctx, 10*time.Minute)
		rec, err := c.current().Send(ctx, room, "text of "+id, reprise.WithClientID(id))
		cancel()
		var refused *reprise.Error
		switch {
		case err == nil:
			r.Off, r.Inc = rec.Offset, rec.Incarnation
			call(history.OK)
			return
		case errors.As(err, &refused) && refused.Code == codes.NotFound:
			call(history.Fail) // not a member now
			return
		}
		call(history.Unknown)
		if c.w.ctx.Err() != nil || attempt > 20 {
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

func (c *client) hold(room string, off uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[room] = off
}

func (c *client) holds(room string) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	off, ok := c.held[room]
	return off, ok
}

// HandleEvent implements reprise.Handler.
func (c *client) HandleEvent(_ context.Context, e reprise.Event) error {
	c.nap()
	c.w.trace.Add(delivered(c.name, e))
	c.hold(e.Room, e.Offset)
	return nil
}

// HandleGap implements reprise.Handler.
func (c *client) HandleGap(_ context.Context, g reprise.Gap) error {
	c.w.trace.Add(history.Record{P: c.name, K: history.Gap, Room: g.Room, First: g.First, Off: g.Last, Inc: g.Incarnation})
	c.hold(g.Room, g.Last)
	return nil
}

// HandleRewind implements reprise.Handler.
func (c *client) HandleRewind(_ context.Context, r reprise.Rewind) error {
	c.w.trace.Add(history.Record{P: c.name, K: history.Rewind, Room: r.Room, Off: r.To, Inc: r.Incarnation})
	c.hold(r.Room, r.To)
	return nil
}

// HandleRoom implements reprise.RoomHandler. Where a room that the client
// holds starts again is between the SDK and the server: the SDK drops what it
// has handled.
func (c *client) HandleRoom(_ context.Context, s reprise.RoomState) error {
	if _, ok := c.holds(s.Position.Room); ok {
		return nil
	}
	c.w.trace.Add(history.Record{
		P: c.name, K: history.Place, Room: s.Position.Room, Off: s.Position.Offset, Inc: s.Position.Incarnation,
	})
	c.hold(s.Position.Room, s.Position.Offset)
	return nil
}

// HandleRoomClosed implements reprise.RoomHandler.
func (c *client) HandleRoomClosed(_ context.Context, r reprise.RoomClosed) error {
	c.w.trace.Add(history.Record{P: c.name, K: history.Closed, Room: r.Room, Off: r.Offset})
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, r.Room)
	return nil
}

func delivered(p string, e reprise.Event) history.Record {
	r := record(e.Room, e.Incarnation, e.Proto)
	r.P, r.K, r.Replayed = p, history.Deliver, e.Replayed
	return r
}

// record describes an event as the checker wants it.
func record(room, incarnation string, e *reprisev1.Event) history.Record {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		panic(err) // it came off the wire
	}
	sum := sha256.Sum256(b)
	r := history.Record{Room: room, Inc: incarnation, Off: e.GetOffset(), After: e.GetAfter(), Hash: hex.EncodeToString(sum[:8])}
	if e.GetClientId() != "" {
		r.ID = e.GetSender() + "/" + e.GetClientId()
	}
	return r
}

// observe has the trace say when a session is attached.
func (c *client) observe(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := next(ctx, d, cc, method, opts...)
	return &observed{s, c}, err
}

type observed struct {
	grpc.ClientStream
	c *client
}

// RecvMsg implements grpc.ClientStream.
func (o *observed) RecvMsg(m any) error {
	err := o.ClientStream.RecvMsg(m)
	if f, ok := m.(*reprisev1.ServerFrame); ok && err == nil {
		if w := f.GetWelcome(); w != nil {
			o.c.w.trace.Add(history.Record{P: o.c.name, K: history.Attach, Ph: history.OK, Session: w.GetSessionId(), Attach: w.GetAttach()})
		}
	}
	return err
}
