package main

// The example of the SDK's documentation, which the test puts beside this
// file, as a program that kills itself with SIGKILL at the point KILL_AT, the
// first being 1, of those that it passes: before and after each transaction,
// each frame sent and each frame received. Without KILL_AT it ends when it has
// caught up.

import (
	"context"
	"log"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"

	reprise "github.com/reprise-chat/reprise/client"
)

var killAt, passed atomic.Int64

func point() {
	if passed.Add(1) == killAt.Load() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way: go no further
	}
}

func main() {
	n, _ := strconv.ParseInt(os.Getenv("KILL_AT"), 10, 64)
	killAt.Store(n)
	a, err := openArchive(os.Getenv("ARCHIVE"))
	if err != nil {
		log.Fatal(err)
	}
	defer a.db.Close()
	cfg := reprise.Config{
		Addresses: []string{os.Getenv("SERVER")},
		Token:     func(context.Context) (string, error) { return "dev:archive", nil },
		Positions: reprise.HandlerStore(a.positions, nil),
		DialOptions: []grpc.DialOption{grpc.WithStreamInterceptor(
			func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				s, err := next(ctx, d, cc, method, opts...)
				return stream{s}, err
			})},
	}
	if path := os.Getenv("SESSION"); path != "" {
		rest, err := reprise.OpenFile(path)
		if err != nil {
			log.Fatal(err)
		}
		defer rest.Close()
		cfg.Positions = reprise.HandlerStore(a.positions, rest)
	}
	client, err := reprise.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	if err := client.Run(ctx, handler{a, cancel}); err != nil {
		log.Fatal(err)
	}
}

type stream struct{ grpc.ClientStream }

func (s stream) SendMsg(m any) error {
	point()
	defer point()
	return s.ClientStream.SendMsg(m)
}

func (s stream) RecvMsg(m any) error {
	defer point()
	return s.ClientStream.RecvMsg(m)
}

type handler struct {
	archive
	caughtUp func()
}

func (h handler) HandleStart(ctx context.Context, p reprise.Position) error {
	point()
	defer point()
	return h.archive.HandleStart(ctx, p)
}

func (h handler) HandleEvent(ctx context.Context, e reprise.Event) error {
	point()
	defer point()
	return h.archive.HandleEvent(ctx, e)
}

func (h handler) HandleGap(ctx context.Context, g reprise.Gap) error {
	point()
	defer point()
	return h.archive.HandleGap(ctx, g)
}

func (h handler) HandleRewind(ctx context.Context, r reprise.Rewind) error {
	point()
	defer point()
	return h.archive.HandleRewind(ctx, r)
}

func (h handler) HandleRoomClosed(ctx context.Context, c reprise.RoomClosed) error {
	point()
	defer point()
	return h.archive.HandleRoomClosed(ctx, c)
}

func (h handler) HandleCaughtUp(_ context.Context, c reprise.CaughtUp) error {
	if c.Room == "" && killAt.Load() == 0 {
		h.caughtUp()
	}
	return nil
}
