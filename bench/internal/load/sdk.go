package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	reprise "github.com/reprise-chat/reprise/client"
)

// SDK is a target whose subscribers are real clients of the Go SDK, which
// acknowledge what they handle. They cost several times what the server does,
// and on the same machine take its time; so they stand beside the lean clients
// and do not replace them. Publishers stay lean.
type SDK struct{ Target }

// Name implements Target.
func (s SDK) Name() string { return s.Target.Name() + ", SDK clients" }

// Dial implements Target.
func (s SDK) Dial(loop *lean.Loop, addr netip.AddrPort, c Config, on On) Client {
	if !c.ReadOnly || c.Hold || c.Stalled || c.Resume != nil {
		return s.Target.Dial(loop, addr, c, on)
	}
	return dialSDK(loop, addr, c, on)
}

// sdkClient runs one SDK client and tells the loop what it is given.
type sdkClient struct {
	loop   *lean.Loop
	on     On
	index  map[string]int
	cancel context.CancelFunc

	closed bool // owned by the loop's thread
}

func dialSDK(loop *lean.Loop, addr netip.AddrPort, c Config, on On) Client {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sdkClient{loop: loop, on: on, index: make(map[string]int, len(c.Rooms)), cancel: cancel}
	for i, r := range c.Rooms {
		s.index[r] = i
	}
	ended := make(chan struct{})
	loop.OnClose(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		err := s.run(ctx, addr, c.User)
		loop.Do(func() {
			if !s.closed && on.Lost != nil {
				on.Lost(err)
			}
		})
	}()
	return s
}

func (s *sdkClient) run(ctx context.Context, addr netip.AddrPort, user string) (err error) {
	sdk, err := reprise.New(reprise.Config{
		Logger:    slog.New(slog.DiscardHandler),
		Addresses: []string{addr.String()},
		Token:     func(context.Context) (string, error) { return "dev:" + user, nil },
		Ephemeral: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sdk.Close()) }()
	return sdk.Run(ctx, s)
}

// HandleEvent implements reprise.Handler.
func (s *sdkClient) HandleEvent(_ context.Context, e reprise.Event) error {
	text := e.Text()
	room, ok := s.index[e.Room]
	if text == "" || !ok || s.on.Event == nil {
		return nil // not a message
	}
	s.loop.Do(func() {
		if err := s.on.Event(room, []byte(text)); err != nil {
			s.Close()
			s.on.Lost(err)
		}
	})
	return nil
}

// HandleGap implements reprise.Handler.
func (*sdkClient) HandleGap(_ context.Context, g reprise.Gap) error {
	return fmt.Errorf("load: events are kept back: %v", g)
}

// HandleRewind implements reprise.Handler.
func (*sdkClient) HandleRewind(_ context.Context, r reprise.Rewind) error {
	return fmt.Errorf("load: events are taken back: %v", r)
}

// HandleCaughtUp implements reprise.CaughtUpHandler.
func (s *sdkClient) HandleCaughtUp(_ context.Context, c reprise.CaughtUp) error {
	if c.Room != "" {
		return nil
	}
	s.loop.Do(func() {
		if r := s.on.Ready; r != nil {
			s.on.Ready = nil
			r(nil)
		}
	})
	return nil
}

// Publish implements Client. Nobody calls it: publishers are lean.
func (*sdkClient) Publish(int, uint64, string, []byte) { panic("load: SDK clients only read") }

// Attach implements Client. Nobody calls it: these clients do not hold.
func (*sdkClient) Attach() { panic("load: SDK clients attach by themselves") }

// Close implements Client.
func (s *sdkClient) Close() {
	s.closed = true
	s.cancel()
}
