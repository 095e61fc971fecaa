package load

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/proc"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Reprise is the server that this repository is about.
type Reprise struct {
	// Path of the command.
	Path string
	// Limited keeps the limits that protect a server. Otherwise those that a
	// benchmark is meant to reach are lifted.
	Limited bool
	// Attaches, unless 0, is how many clients it admits a second.
	Attaches int
	// Profiled has it serve its profiles.
	Profiled bool
}

// unlimited lifts the limits of rates, which a single publisher of a benchmark
// goes beyond, and of what one user may have.
var unlimited = []string{
	"--limit-user-publishes", "-1", "--limit-room-publishes", "-1", "--limit-attaches", "-1", "--limit-user-creates", "-1",
	"--limit-user-rooms", "10000", "--limit-user-sessions", "10000",
}

// Name implements Target.
func (Reprise) Name() string { return "reprise" }

// Start implements Target.
func (r Reprise) Start(dir string, port uint16) (*proc.Server, error) {
	args := []string{
		"serve", "--json", "--log-level", "error", "--dir", dir,
		"--addr", loopback(port), "--http", loopback(0),
		"--limit-address-connections", "-1", // all clients are one address
	}
	if !r.Limited {
		args = append(args, unlimited...)
	}
	if r.Attaches > 0 {
		args = append(args, "--limit-attaches", strconv.Itoa(r.Attaches))
	}
	if r.Profiled {
		args = append(args, "--pprof", loopback(0))
	}
	return proc.Start(r.Path, args...)
}

func loopback(port uint16) string { return "127.0.0.1:" + strconv.Itoa(int(port)) }

// setupCalls is how many joins are under way at once.
const setupCalls = 256

// Setup implements Target: every user joins its rooms. It is not measured, so
// it goes through grpc-go.
func (Reprise) Setup(ctx context.Context, addr netip.AddrPort, memberships []Membership) error {
	const conns = 4
	var services []reprisev1.ChatServiceClient
	for range conns {
		conn, err := grpc.NewClient(addr.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		services = append(services, reprisev1.NewChatServiceClient(conn))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(setupCalls)
	for i, m := range memberships {
		service := services[i%conns]
		ctx := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer dev:"+m.User)
		for _, r := range m.Rooms {
			g.Go(func() error {
				if _, err := service.JoinRoom(ctx, &reprisev1.JoinRoomRequest{Room: r}); err != nil {
					return fmt.Errorf("load: %s joins %s: %w", m.User, r, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// Dial implements Target.
func (Reprise) Dial(loop *lean.Loop, addr netip.AddrPort, c Config, on On) Client {
	return dialReprise(loop, addr, c, on)
}

// Bare is the limit: a broadcast over grpc-go, see the package bare.
type Bare struct {
	// Pebble has events made durable before they are shown and acknowledged.
	Pebble bool
}

// Name implements Target.
func (b Bare) Name() string {
	if b.Pebble {
		return "bare grpc-go + Pebble"
	}
	return "bare grpc-go"
}

// Start implements Target.
func (b Bare) Start(dir string, port uint16) (*proc.Server, error) {
	args := []string{"bare", "--addr", loopback(port)}
	if b.Pebble {
		args = append(args, "--pebble", dir)
	}
	return proc.Self(args...)
}

// Setup implements Target: a bare server knows no members.
func (Bare) Setup(context.Context, netip.AddrPort, []Membership) error { return nil }

// Dial implements Target.
func (Bare) Dial(loop *lean.Loop, addr netip.AddrPort, c Config, on On) Client {
	return dialReprise(loop, addr, c, on)
}
