package gateway

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/improbable-eng/grpc-web/go/grpcweb"
	"google.golang.org/grpc"

	"github.com/reprise-chat/reprise/server/internal/limit"
)

// Gateway serves the HTTP port. Its methods are safe for concurrent use.
type Gateway struct {
	// Static.
	opts     Options
	log      *limited
	metadata metadataNames
	grpc     *grpc.Server
	wrapper  *grpcweb.WrappedGrpcServer
	// methods are all methods; clientStreams those of which the client streams.
	methods, clientStreams map[string]bool
	http                   *http.Server
	conns                  *connSet
	calls                  *tally
	refusals               *tally                  // calls being refused; nothing bounds them but conns
	messages               *limit.Budget           // what messages of websockets hold
	cancel                 context.CancelCauseFunc // ends every call

	sites atomic.Pointer[sites] // replaced under mu

	// The sweeper, from the first Serve to the end of Shutdown.
	sweeping sync.Once
	sweeper  sync.WaitGroup
	stop     chan struct{}
	stopping sync.Once

	mu    sync.Mutex
	hosts []string
}

// New makes a gateway; Serve starts it.
func New(o Options) (*Gateway, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		opts:     o,
		log:      newLimited(o.Logger),
		metadata: newMetadataNames(o.Metadata),
		conns:    newConnSet(newTally(o.MaxConns, o.MaxConnsPerAddress), o.Logger),
		calls:    newTally(o.MaxCalls, o.MaxCallsPerAddress),
		refusals: newTally(math.MaxInt, math.MaxInt),
		stop:     make(chan struct{}),
		messages: newMessages(o.MaxRecvBytes),
	}
	if err := g.addHosts(o.Hosts...); err != nil {
		return nil, err
	}
	// The gateway's limits come last, so that they hold.
	g.grpc = grpc.NewServer(append(append([]grpc.ServerOption(nil), o.ServerOptions...),
		grpc.MaxRecvMsgSize(o.MaxRecvBytes),
		grpc.StatsHandler(credits{}),
		grpc.WaitForHandlers(true),
	)...)
	o.Register(g.grpc)
	g.methods, g.clientStreams = methods(g.grpc)
	g.wrapper = g.wrap()
	base, cancel := context.WithCancelCause(context.Background())
	g.cancel = cancel
	g.http = g.newHTTPServer(base)
	return g, nil
}

// wrap puts the wrapper around gRPC. Pings stay off: the wrapper's are not
// awaited, so they find no dead peer.
func (g *Gateway) wrap() *grpcweb.WrappedGrpcServer {
	// Listing the methods walks all services, so it is done once.
	endpoints := grpcweb.ListGRPCResources(g.grpc)
	return grpcweb.WrapHandler(http.HandlerFunc(g.serveGRPC),
		grpcweb.WithEndpointsFunc(func() []string { return endpoints }),
		grpcweb.WithWebsockets(true),
		// frameReader's limit comes first, and is told.
		grpcweb.WithWebsocketsMessageReadLimit(int64(g.opts.MaxRecvBytes+2*oversizeSlack)),
		grpcweb.WithAllowedRequestHeaders(g.metadata.list()),
		// The guard has checked the origin.
		grpcweb.WithOriginFunc(func(string) bool { return true }),
		grpcweb.WithWebsocketOriginFunc(func(*http.Request) bool { return true }),
	)
}

func methods(s *grpc.Server) (all, clientStreams map[string]bool) {
	all, clientStreams = map[string]bool{}, map[string]bool{}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			all[name], clientStreams[name] = true, m.IsClientStream
		}
	}
	return all, clientStreams
}

func (g *Gateway) newHTTPServer(base context.Context) *http.Server {
	// HTTP/1.1 only: one call at a time a connection, so the bounds on
	// connections bound everything. No WriteTimeout: it cuts streams.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:                      http.HandlerFunc(g.guard),
		Protocols:                    &protocols,
		DisableGeneralOptionsHandler: true, // nothing passes the guard by
		ReadHeaderTimeout:            g.opts.HeaderTimeout,
		IdleTimeout:                  g.opts.IdleTimeout,
		MaxHeaderBytes:               g.opts.MaxHeaderBytes,
		ErrorLog:                     log.New(g.log, "", 0),
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
}

// addHosts makes further hosts served.
func (g *Gateway) addHosts(hosts ...string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := append(append([]string(nil), g.hosts...), hosts...)
	s, err := newSites(all, g.opts.Origins)
	if err != nil {
		return err
	}
	g.hosts = all
	g.sites.Store(s)
	return nil
}

// Serve serves the listener's connections until Shutdown has begun, and then
// returns nil; wait for Shutdown as well. It may be called for several
// listeners, and closes its own. TLS ends in front of it.
func (g *Gateway) Serve(l net.Listener) error {
	names := loopbackHosts(l.Addr())
	if names == nil && len(g.opts.Hosts) == 0 {
		l.Close()
		return fmt.Errorf("gateway: listening on %v, not on loopback: set Options.Hosts to the names that browsers use for it", l.Addr())
	}
	if err := g.addHosts(names...); err != nil {
		l.Close()
		return err
	}
	g.sweeping.Do(func() {
		g.sweeper.Go(func() { g.conns.sweep(g.opts.WriteTimeout/8, g.stop) })
	})
	err := g.http.Serve(&listener{
		Listener:     l,
		conns:        g.conns,
		writeTimeout: g.opts.WriteTimeout,
		proxies:      g.opts.TrustedProxies,
		refused: func(addr string) {
			g.log.warn("refused a connection: too many are open", "peer", addr)
		},
	})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, waits for calls and requests in progress, and at
// the end of the context cuts those that are left, whatever they are. It does
// not end streams gracefully: gRPC would cut them without a status, so the
// server ends its streams itself before. When it returns no connection and no
// handler is left, provided that handlers return when their context ends. The
// error is the context's if something had to be cut.
func (g *Gateway) Shutdown(ctx context.Context) error {
	err := g.http.Shutdown(ctx)
	if err == nil { // http.Server forgets websockets
		err = g.calls.wait(ctx)
	}
	g.cancel(errShutdown)
	g.conns.closeAll()
	g.http.Close()
	// Everything under way has lost its context and its connection by now.
	_ = g.calls.wait(context.Background())
	_ = g.refusals.wait(context.Background())
	g.grpc.Stop()
	g.stopping.Do(func() { close(g.stop) })
	g.sweeping.Do(func() {}) // a Serve that begins only now has nothing to sweep
	g.sweeper.Wait()
	return err
}
