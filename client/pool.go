package reprise

import (
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

const (
	dialTimeout      = 10 * time.Second
	keepaliveTime    = 30 * time.Second // servers allow one ping in 5 s
	keepaliveTimeout = 10 * time.Second
)

// pool has one connection, to the address that is thought to work, and those
// that are still in use after another was preferred.
type pool struct {
	addresses []string
	options   []grpc.DialOption

	mu      sync.Mutex
	index   int // of the address to use
	current *conn
	closed  bool
}

// conn is a connection with its users counted, so that it can be retired
// while a stream still reads from it.
type conn struct {
	pool    *pool
	address string
	cc      *grpc.ClientConn
	chat    reprisev1.ChatServiceClient

	// Guarded by pool.mu.
	users   int
	retired bool
}

func newPool(cfg Config) *pool {
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(cfg.TLS)
	}
	// Static windows, because the estimator would let the transport buffer
	// megabytes for a handler that is slow.
	window := int32(max(2*cfg.Window, 128<<10))
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(2 * window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialTimeout}),
	}
	return &pool{addresses: cfg.Addresses, options: append(options, cfg.DialOptions...)}
}

// get returns a connection to the current address. The caller releases it.
func (p *pool) get() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if p.current == nil {
		address := p.addresses[p.index]
		cc, err := grpc.NewClient(address, p.options...)
		if err != nil {
			p.index = (p.index + 1) % len(p.addresses)
			return nil, err
		}
		p.current = &conn{pool: p, address: address, cc: cc, chat: reprisev1.NewChatServiceClient(cc)}
	}
	p.current.users++
	return p.current, nil
}

// release ends one use.
func (c *conn) release() {
	c.pool.mu.Lock()
	c.users--
	last := c.retired && c.users == 0
	c.pool.mu.Unlock()
	if last {
		c.cc.Close()
	}
}

// retire makes later uses dial anew, and with moveOn another address. A new
// connection does not wait out gRPC's own back-off; the client has its own.
func (c *conn) retire(moveOn bool) {
	p := c.pool
	p.mu.Lock()
	last := false
	if p.current == c {
		p.current, c.retired = nil, true
		last = c.users == 0
		if moveOn {
			p.index = (p.index + 1) % len(p.addresses)
		}
	}
	p.mu.Unlock()
	if last {
		c.cc.Close()
	}
}

// close closes the connection; calls that use it fail.
func (p *pool) close() {
	p.mu.Lock()
	c := p.current
	p.current, p.closed = nil, true
	p.mu.Unlock()
	if c != nil {
		c.cc.Close()
	}
}
