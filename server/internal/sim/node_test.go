package sim

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/test/bufconn"

	"github.com/reprise-chat/reprise/server"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// node is the server's machine: its disk outlives it.
type node struct {
	t    *testing.T
	net  *network
	opts server.Options
	fs   *crashfs.FS
	disk trouble
	srv  *server.Server
	done chan error // of Serve
}

func newNode(t *testing.T, n *network, o server.Options) *node {
	o.Logger = slog.New(slog.DiscardHandler)
	o.Hosts = []string{"sim"}
	return &node{t: t, net: n, opts: o, fs: crashfs.New()}
}

func (n *node) start() {
	n.fill(false)
	st, err := pebble.Open("data", pebble.Options{FS: n.fs, Logger: n.opts.Logger, Reserve: reserve, CacheBytes: 1 << 20, Fatal: func(error) {}})
	if err != nil {
		n.t.Fatalf("the store does not open: %v", err)
	}
	o := n.opts
	o.Store = troubled{st, &n.disk}
	if n.srv, err = server.New(o); err != nil {
		n.t.Fatal(err)
	}
	grpc, http := bufconn.Listen(64<<10), bufconn.Listen(1<<10)
	n.done = make(chan error, 1)
	srv, done := n.srv, n.done
	go func() { done <- srv.Serve(grpc, http) }()
	n.net.serve(func(ctx context.Context) (net.Conn, error) { return grpc.DialContext(ctx) })
}

// crash ends the server as kill -9 and the loss of power do: nobody is told,
// and what was not synced may be gone.
func (n *node) crash(random *rand.Rand) {
	n.net.serve(nil)
	after := n.fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: []int{0, 50, 100}[random.IntN(3)],
		RNG:                 rand.New(rand.NewPCG(random.Uint64(), 0)),
	})
	n.stop(0)
	n.fs = after
}

// stop shuts the server down, draining for as long as given.
func (n *node) stop(drain time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	_ = n.srv.Shutdown(ctx)
	<-n.done
	n.net.serve(nil)
	n.srv = nil
}
