package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/forwarded"
	"github.com/reprise-chat/reprise/server/internal/gateway"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/listen"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/rpc"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/pebble"
)

// Server is a Reprise server over one data directory. Its methods are safe for
// concurrent use.
type Server struct {
	opts     Options
	proxies  forwarded.Proxies
	shares   listen.Shares // of the process's descriptors
	store    store.Store
	rooms    *room.Hub
	sessions *session.Registry
	pool     *attach.Pool
	attaches *attach.Manager
	service  *rpc.Service
	health   *health.Server
	grpc     *grpc.Server
	gateway  *gateway.Gateway

	mu       sync.Mutex
	stopping bool           // Shutdown was called: nothing is served any more
	serving  sync.WaitGroup // the listeners' loops; added to under mu, unless stopping
}

// New opens the data directory and returns a server that serves nothing yet.
// Shutdown closes it. Errors: ErrLocked, ErrCorrupt, or what the disk says.
func New(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	shares, err := listen.Divide(listen.Descriptors(), o.Limits.Connections, o.Limits.WebConnections)
	if err != nil {
		return nil, fmt.Errorf("server: Limits.Connections and WebConnections: %w", err)
	}
	st := o.Store
	if st == nil {
		mode := pebble.SyncAlways
		if o.NoSync {
			mode = pebble.SyncNever
		}
		if st, err = pebble.Open(o.Dir, pebble.Options{Logger: o.Logger, Reserve: o.DiskReserve, Sync: mode, OpenFiles: shares.Store}); err != nil {
			return nil, err
		}
	}
	return assemble(o, st, shares)
}

// assemble builds the layers over a store, which the server then owns; it is
// closed if that fails.
func assemble(o Options, st store.Store, shares listen.Shares) (*Server, error) {
	proxies, err := forwarded.Parse(o.TrustedProxies)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	s := &Server{opts: o, proxies: proxies, shares: shares, store: st, pool: attach.NewPool(), health: health.NewServer()}
	m := newMetrics()
	edge := serviceOptions(o)
	s.rooms = room.NewHub(st, room.Options{
		CreateOnJoin: !o.RefuseCreateOnJoin, Retention: o.Retention, TrimEvery: o.TrimEvery, EmptyRooms: o.EmptyRooms, Busy: s.pool.Busy, Logger: o.Logger,
		OnPublish: m.publish,
		OnMember:  func(room string, c store.MemberChange) { s.attaches.MemberChanged(room, c) },
	})
	s.sessions = session.NewRegistry(st, session.Options{MaxPerUser: o.Limits.SessionsPerUser, Logger: o.Logger})
	s.attaches = attach.NewManager(st, s.rooms, s.sessions, s.pool, attach.Options{
		Heartbeat: o.Heartbeat, ReplayLimit: o.ReplayLimit, AttachRate: attachRate(o.Limits), Observer: m, Logger: o.Logger,
		Limits: edge.Limits(o.Limits.SessionsPerUser),
	})
	s.service = rpc.New(st, s.rooms, s.sessions, s.attaches, edge)
	m.watchWrites(st)
	m.gauge("reprise_streams", "Streams that are live.", func() float64 { return float64(s.attaches.Live()) })
	s.grpc = grpc.NewServer(slices.Concat(s.service.ServerOptions(), transportOptions(o.Limits), rpc.TrustProxies(proxies))...)
	s.register(s.grpc)
	if o.Reflection {
		reflection.Register(guarded{s.service.Guard(s.grpc), s.grpc})
	}
	s.gateway, err = gateway.New(gateway.Options{
		TrustedProxies: proxies, MaxConns: shares.HTTP, MaxCalls: o.Limits.WebCalls,
		MaxConnsPerAddress: o.Limits.AddressWebConnections, MaxCallsPerAddress: o.Limits.AddressWebCalls,
		Hosts: o.Hosts, Origins: o.Origins, Page: o.Page, Metrics: m.handler(), Ready: s.ready,
		Register: s.register, ServerOptions: s.service.ServerOptions(),
		// A stalled handler then costs little, so it is given time: a client that
		// reads slowly and writes much has its answers to wait for.
		MaxRecvBytes: edge.MaxRecv(), MaxPendingBytes: 64 << 10, HandlersWant: true, StallTimeout: 40 * time.Second,
		Logger: o.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, s.closeCore(context.Background()))
	}
	return s, nil
}

// attachRate is the rate over which clients that lose their stream are told to
// spread. Without a limit it is the default: to come back all at once helps
// nobody, and neither does to wait for ever.
func attachRate(l Limits) int {
	if l.Attaches < 0 {
		return 0
	}
	return int(max(1, l.Attaches))
}

func serviceOptions(o Options) rpc.Options {
	l := o.Limits
	return rpc.Options{
		Verifier: o.Verifier, Open: func(service string) bool { return development(o.Verifier) && isReflection(service) },
		MaxMessage: l.MessageBytes, MaxFrame: l.FrameBytes, MaxRooms: l.RoomsPerUser, DirectAdd: o.DirectAdd, MaxTails: l.TailsPerUser,
		FirstFrame:    10 * time.Second,
		PublishByUser: limit.NewByKey("events from you", max(0, l.UserPublishes), int(2*max(1, l.UserPublishes))),
		MakeByUser:    limit.NewByKey("rooms made by you", max(0, l.UserCreates), int(10*max(1, l.UserCreates))),
		PublishByRoom: limit.NewByKey("events in this room", max(0, l.RoomPublishes), int(2*max(1, l.RoomPublishes))),
		Attaches: limit.NewGate(limit.GateOptions{
			What: "clients attaching", PerSecond: max(0, l.Attaches), Burst: int(2 * max(1, l.Attaches)),
			PerUser: 2 * l.SessionsPerUser, // all that one may have, resumed or not
		}),
		Logger: o.Logger,
	}
}

// transportOptions bound what a native connection can make the server hold,
// and find peers that are gone. Every one of them is off or huge by default.
func transportOptions(l Limits) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxConcurrentStreams(l.StreamsPerConnection),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		// A peer whose socket takes nothing for 40 s is dead (P6): grpc-go makes
		// Timeout the socket's TCP_USER_TIMEOUT too. One that only grants no
		// window is slow, and stays.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 40 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Fixed windows bound what a client can send ahead of its handler.
		grpc.StaticStreamWindowSize(64 << 10),
		grpc.StaticConnWindowSize(256 << 10),
		grpc.WaitForHandlers(true),
	}
}

// LimitGRPCLog sends gRPC's own error log to l, at most one line a second:
// otherwise every bad client writes one. The log is the process's, so a
// program calls this once, before it uses gRPC.
func LimitGRPCLog(l *slog.Logger) { gateway.LimitGRPCLog(l) }

func (s *Server) register(r grpc.ServiceRegistrar) {
	s.service.Register(r)
	grpc_health_v1.RegisterHealthServer(s.service.Guard(r), s.health)
}

// guarded is where reflection is registered, behind the guard.
type guarded struct {
	grpc.ServiceRegistrar
	reflection.ServiceInfoProvider
}

// isReflection says whether a service is one of gRPC's reflection, old or new.
func isReflection(service string) bool { return strings.HasPrefix(service, "grpc.reflection.") }

// development says whether a verifier believes whatever name a caller gives:
// then a token keeps nobody from anything.
func development(v Verifier) bool {
	_, ok := v.(auth.Development)
	return ok
}

// ready says why the server serves nobody, if that is so. A full disk is no
// reason: reads and resumes go on, and to send every client away would not empty
// it. It is told by reprise_writes_refused and by the log.
func (s *Server) ready() error {
	err := s.store.Writable()
	if errors.Is(err, store.ErrDiskReserve) {
		return nil
	}
	return err
}

// Serve serves gRPC and HTTP until Shutdown, or until one of the listeners
// fails; after Shutdown it returns at once. It returns ErrUnsafeListener, and serves nothing, if other machines
// could reach a server with the development identity. It owns the listeners.
func (s *Server) Serve(grpcListener, httpListener net.Listener) error {
	for _, l := range []net.Listener{grpcListener, httpListener} {
		if err := s.safe(l.Addr()); err != nil {
			return errors.Join(err, grpcListener.Close(), httpListener.Close())
		}
	}
	grpcListener, httpListener = s.bound(grpcListener, httpListener)
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	s.health.SetServingStatus(reprisev1.ChatService_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	ended := s.listen(grpcListener, httpListener)
	if ended == nil {
		return errors.Join(grpcListener.Close(), httpListener.Close())
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			return err // Shutdown ends the other one
		}
	}
	return nil
}

// listen starts the listeners' loops and returns what they end with; nil if
// Shutdown came first.
func (s *Server) listen(grpcListener, httpListener net.Listener) chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil
	}
	ended := make(chan error, 2)
	s.serving.Go(func() {
		err := s.grpc.Serve(grpcListener)
		if errors.Is(err, grpc.ErrServerStopped) {
			err = nil // Shutdown came before it had begun
		}
		ended <- err
	})
	s.serving.Go(func() { ended <- s.gateway.Serve(httpListener) })
	return ended
}

// stop has nothing be served that is not being served already.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
}

// bound bounds the connections of the gRPC listener, and has both go on when
// the process is out of descriptors. The gateway bounds its own connections.
func (s *Server) bound(grpcListener, httpListener net.Listener) (g, h net.Listener) {
	sh, l := s.shares, s.opts.Limits
	s.opts.Logger.Info("descriptors", "limit", sh.All, "store", sh.Store, "grpc_connections", sh.GRPC, "http_connections", sh.HTTP,
		"connections_per_address", l.AddressConnections)
	return listen.New(grpcListener, listen.Options{Total: sh.GRPC, PerAddress: l.AddressConnections, Proxies: s.proxies, Logger: s.opts.Logger}),
		listen.New(httpListener, listen.Options{Total: -1, PerAddress: -1, Logger: s.opts.Logger})
}

func (s *Server) safe(a net.Addr) error {
	if !development(s.opts.Verifier) {
		return nil
	}
	tcp, ok := a.(*net.TCPAddr)
	if ok && !tcp.IP.IsLoopback() {
		return fmt.Errorf("%w (listening on %v)", ErrUnsafeListener, a)
	}
	return nil
}

// Failed is closed when the store can no longer promise durability: stop the
// server and start it again.
func (s *Server) Failed() <-chan struct{} { return s.store.Failed() }

// Shutdown drains: clients are told to move, streams that are left end with
// UNAVAILABLE, calls in progress are finished, what was acknowledged is on
// disk, the store is closed. It keeps to ctx's deadline even with clients that
// ignore all that, and returns the context's error if they had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	s.health.Shutdown()
	closesIn := drainFor(ctx)
	s.attaches.Drain(ctx, closesIn/2, closesIn)

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	graceful, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := s.gateway.Shutdown(graceful)
	select {
	case <-stopped:
	case <-graceful.Done():
		s.grpc.Stop() // handlers that are left end now
		<-stopped
	}
	return errors.Join(err, s.closeCore(ctx))
}

// drainFor returns how long clients get to move: half of what there is, so
// that the other half is left to end those that did not.
func drainFor(ctx context.Context) time.Duration {
	const most = 20 * time.Second
	deadline, ok := ctx.Deadline()
	if !ok {
		return most
	}
	return max(0, min(most, time.Until(deadline)/2))
}

// closeCore closes everything behind the edge; no handler runs any more.
func (s *Server) closeCore(ctx context.Context) error {
	s.serving.Wait()
	s.attaches.Wait()
	s.pool.Close()
	s.rooms.Close()
	s.sessions.Close(ctx)
	return s.store.Close()
}
