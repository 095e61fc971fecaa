package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/reprise-chat/reprise/server/internal/forwarded"
)

// Options configure a Gateway. Zero values mean the defaults given.
type Options struct {
	// Hosts are the values of the Host header that are served, with the port
	// unless it is the scheme's own: "chat.example", "127.0.0.1:8080". Anything
	// else is refused, which is what stops DNS rebinding. A listener on loopback
	// has its loopback names as well; any other listener needs Hosts.
	Hosts []string
	// Origins are further web origins whose scripts may call, exactly
	// scheme://host[:port], beside http and https of each host.
	Origins []string
	// TrustedProxies are reverse proxies that are believed about whom they
	// forward for: for their connections the bounds by address, and the peer
	// that handlers see, go by X-Forwarded-For. Default: none is believed.
	TrustedProxies forwarded.Proxies
	// Metadata are further names of request metadata that handlers may see,
	// beside authorization, user-agent, traceparent and gRPC's own.
	Metadata []string

	// Page serves GET and HEAD of every path that nothing else serves; nil
	// means 404.
	Page http.Handler
	// Metrics serves /metrics; nil means 404.
	Metrics http.Handler
	// Ready is asked by /readyz, which answers 503 with its error; nil means
	// ready. /healthz only says that the process serves.
	Ready func() error

	// Register registers the services. Required.
	Register func(grpc.ServiceRegistrar)
	// ServerOptions are for the gateway's own grpc.Server. Its limits and its
	// stats handler are added behind them.
	ServerOptions []grpc.ServerOption

	// MaxRecvBytes bounds one received message; default 1 MiB. A larger one
	// ends its call with RESOURCE_EXHAUSTED.
	MaxRecvBytes int
	// MaxConns bounds open connections; default 8192. More are closed at once.
	MaxConns int
	// MaxConnsPerAddress bounds the open connections of one address (IPv6: one
	// /64); default 256, about what one browser opens at most. It does not
	// apply to trusted proxies.
	MaxConnsPerAddress int
	// MaxCalls bounds calls in progress, streams included; default 4096.
	MaxCalls int
	// MaxCallsPerAddress bounds those of one address; default 192, less than
	// its connections, so that streams leave room for the page. A call beyond
	// is refused with RESOURCE_EXHAUSTED.
	MaxCallsPerAddress int
	// MaxPendingBytes bounds the memory held by received bytes of one call
	// that its handler has not consumed. At the bound the call is not read
	// further, but for what its handler says that it wants (limit.Flow).
	// Default: MaxRecvBytes and 1 MiB, which is also the minimum unless handlers
	// say what they want.
	MaxPendingBytes int
	// HandlersWant says that the handlers say what they want.
	HandlersWant bool

	// MaxHeaderBytes bounds a request's header, and the header block that
	// begins a websocket; default 16 KiB.
	MaxHeaderBytes int
	// HeaderTimeout is how long a request's header may take; default 5 s.
	HeaderTimeout time.Duration
	// FirstFrameTimeout is how long a websocket may take from the upgrade to
	// its complete header block; default 5 s.
	FirstFrameTimeout time.Duration
	// RequestTimeout is how long a call's request may take from its header to
	// its end, or to its first message if the client streams; default 30 s.
	// Until then no handler knows who calls. Later silence is fine.
	RequestTimeout time.Duration
	// StallTimeout is how long a call may sit at MaxPendingBytes without its
	// handler consuming anything before it is ended; default 10 s.
	StallTimeout time.Duration
	// WriteTimeout is how long a peer may acknowledge nothing of what it was
	// sent before it counts as dead; default 40 s. A slow reader is not. (On
	// systems other than Linux it bounds each write instead.)
	WriteTimeout time.Duration
	// CloseTimeout is how long, once a call has its status, what its peer is
	// still sending is discarded, so that the peer reads the status and no
	// reset of the connection; default and maximum 4 s.
	CloseTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request;
	// default 120 s.
	IdleTimeout time.Duration

	// Logger gets what an operator should know; default slog.Default(). Lines
	// that a bad client can provoke are limited to one a second.
	Logger *slog.Logger
}

// Sizes that nobody needs to set.
const (
	maxCloseTimeout = 4 * time.Second
	// socketBuffer is what is asked of the kernel for each socket and
	// direction: a peer that takes nothing, or floods, holds so much of it (Linux
	// takes twice that) and no more.
	socketBuffer = 128 << 10
	// outboundLimit is how much of a call's output waits for its writer.
	outboundLimit = 32 << 10
	// readSize is the buffer that grpc's ServeHTTP pins for each Read of a
	// body, however few bytes the Read returned.
	readSize = 16 << 10
	// oversizeSlack is how much more than MaxRecvBytes a websocket message may
	// have: the wrapper hands over whole websocket messages, so one that is a
	// little too large is read as far as the length of the message in it.
	oversizeSlack = 64 << 10
)

func (o Options) withDefaults() (Options, error) {
	if o.Register == nil {
		return o, errors.New("gateway: Options.Register is required")
	}
	def := func(v *int, d int) { *v = or(*v, d) }
	def(&o.MaxRecvBytes, 1<<20)
	def(&o.MaxConns, 8192)
	def(&o.MaxConnsPerAddress, 256)
	def(&o.MaxCalls, 4096)
	def(&o.MaxCallsPerAddress, 192)
	def(&o.MaxPendingBytes, o.MaxRecvBytes+1<<20)
	def(&o.MaxHeaderBytes, 16<<10)
	o.HeaderTimeout = or(o.HeaderTimeout, 5*time.Second)
	o.FirstFrameTimeout = or(o.FirstFrameTimeout, 5*time.Second)
	o.RequestTimeout = or(o.RequestTimeout, 30*time.Second)
	o.StallTimeout = or(o.StallTimeout, 10*time.Second)
	o.WriteTimeout = or(o.WriteTimeout, 40*time.Second)
	o.CloseTimeout = min(or(o.CloseTimeout, maxCloseTimeout), maxCloseTimeout)
	o.IdleTimeout = or(o.IdleTimeout, 120*time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	// A bound below the largest message would stall that message for ever.
	if least := o.MaxRecvBytes + 1<<20; o.MaxPendingBytes < least && !o.HandlersWant {
		return o, fmt.Errorf("gateway: MaxPendingBytes is %d, below MaxRecvBytes and 1 MiB, %d", o.MaxPendingBytes, least)
	}
	return o, nil
}

func or[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
