package reprise

import (
	"slices"
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
	// maxUses is how many streams and calls share a connection. Servers allow
	// at least so many (Limits.StreamsPerConnection, by default 100) and let a
	// further one wait without a word until another has ended.
	maxUses = 50
)

// pool has connections to the address that is thought to work, one unless
// there is much to do at once, and those that are still in use after another
// address was preferred.
type pool struct {
	addresses []string
	options   []grpc.DialOption

	mu      sync.Mutex
	index   int     // of the address to use
	current []*conn // to it
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

// address returns the one that is tried now.
func (p *pool) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addresses[p.index]
}

// get returns a connection to the current address with room for another use.
// The caller releases it.
func (p *pool) get() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	for _, c := range p.current {
		if c.users < maxUses {
			c.users++
			return c, nil
		}
	}
	address := p.addresses[p.index]
	cc, err := grpc.NewClient(address, p.options...)
	if err != nil {
		p.index = (p.index + 1) % len(p.addresses)
		return nil, err
	}
	c := &conn{pool: p, address: address, cc: cc, chat: reprisev1.NewChatServiceClient(cc), users: 1}
	p.current = append(p.current, c)
	return c, nil
}

// release ends one use. Of several connections those that nobody uses are
// closed, but for the first.
func (c *conn) release() {
	p := c.pool
	p.mu.Lock()
	c.users--
	last := c.users == 0 && c.retired
	if i := slices.Index(p.current, c); i > 0 && c.users == 0 {
		p.current, c.retired, last = slices.Delete(p.current, i, i+1), true, true
	}
	p.mu.Unlock()
	if last {
		c.cc.Close()
	}
}

// retire makes later uses dial anew, and with moveOn another address: then none
// of the connections to this one is used any more. A new connection does not
// wait out gRPC's own back-off; the client has its own.
func (c *conn) retire(moveOn bool) {
	p := c.pool
	var closing []*conn
	p.mu.Lock()
	if slices.Contains(p.current, c) {
		retired := []*conn{c}
		if moveOn {
			retired, p.index = p.current, (p.index+1)%len(p.addresses)
		}
		p.current = slices.DeleteFunc(slices.Clone(p.current), func(k *conn) bool { return slices.Contains(retired, k) })
		for _, k := range retired {
			k.retired = true
			if k.users == 0 {
				closing = append(closing, k)
			}
		}
	}
	p.mu.Unlock()
	for _, k := range closing {
		k.cc.Close()
	}
}

// close closes the connections; calls that use them fail.
func (p *pool) close() {
	p.mu.Lock()
	current := p.current
	p.current, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range current {
		c.cc.Close()
	}
}
