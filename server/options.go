package server

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/web"
)

// Errors that New and Serve return, possibly wrapped.
var (
	// ErrLocked: another server uses the data directory.
	ErrLocked = store.ErrLocked
	// ErrCorrupt: stored bytes are not what was written.
	ErrCorrupt = store.ErrCorrupt
	// ErrUnsafeListener: other machines could reach a server that believes
	// whatever name a caller gives.
	ErrUnsafeListener = errors.New("server: the development identity is for loopback listeners only: set Options.Verifier")
)

// Verifier says whose token a caller has; see Options.
type Verifier = auth.Verifier

// Identity is a verified caller.
type Identity = auth.Identity

// ErrTokenInvalid is what a Verifier returns, possibly wrapped, for a token
// that is nobody's.
var ErrTokenInvalid = auth.ErrInvalid

// Retention bounds what a room keeps. A zero field does not limit.
type Retention = store.Retention

// Options configure a Server. The zero value of every field but Dir is a
// default for one machine.
type Options struct {
	// Dir is the data directory; it is made if it is not there. Required,
	// unless Store is given.
	Dir string
	// Store is the engine to serve from, which the server then owns; for other
	// engines of this module and its tests. Default: the embedded one in Dir.
	Store store.Store
	// Verifier says who a caller is. Its users have names of 1 to 128 bytes that
	// RFC 8265's UsernameCasePreserved leaves as they are; a token of any other
	// user is refused. Default: the development identity, which believes
	// "Bearer dev:NAME", NAME percent-encoded, and makes Serve refuse any
	// listener that is not on loopback.
	Verifier Verifier
	// Reflection lets clients such as grpcurl ask for the contract: everybody
	// with the development identity, else those with a token.
	Reflection bool

	// Hosts and Origins are what browsers may use, beside the loopback names
	// of a loopback listener: Host header values, and exact web origins.
	Hosts, Origins []string
	// TrustedProxies are reverse proxies that are believed about whom they
	// forward for (X-Forwarded-For) on both ports: addresses, or ranges as
	// "10.0.0.0/8". The limits by address go by what they say, and so does the
	// peer of a call in the log; those of connections by address do not bound
	// the proxies themselves. Default: none.
	TrustedProxies []string
	// Page serves the browser; default: the embedded chat page.
	Page http.Handler

	// Retention is for rooms that have none of their own; default: keep
	// everything. It is applied every TrimEvery, default one minute. A machine's
	// clock that was set counts for MaxAge once the new time has held for as long
	// as the step is wide, at most an hour.
	Retention Retention
	TrimEvery time.Duration
	// EmptyRooms is how long a room without members is kept: then it is removed
	// with its log, and its name is free. It is measured from the start of the
	// server at the earliest, and kept to within an eighth. Default one hour;
	// negative: for ever.
	EmptyRooms time.Duration
	// ReplayLimit bounds the events of one room replayed at an attach, unless
	// the client asks for less; what is older is named as a Gap. 0: no limit.
	ReplayLimit uint64
	// RefuseCreateOnJoin has joining a room that does not exist fail; default:
	// the first join makes an open room.
	RefuseCreateOnJoin bool
	// DirectAdd has the users whom a member invites, and those named when a room
	// is created, become members at once; default: they are invited, and become
	// members by joining.
	DirectAdd bool
	// DiskReserve is how many bytes of the disk must stay free: below, writes
	// are refused and reads go on. Default 1 GiB or 5 %, whichever is less;
	// negative: none.
	DiskReserve int64
	// NoSync acknowledges events that are not on disk yet, so that a crash can
	// lose them: for benchmarks and throw-away data.
	NoSync bool

	// Heartbeat is how often a stream gets one. Default 20 s.
	Heartbeat time.Duration
	// Limits protect the server; see there for the defaults.
	Limits Limits

	// Logger; default slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" && o.Store == nil {
		return o, errors.New("server: Options.Dir is required")
	}
	if o.Verifier == nil {
		o.Verifier = auth.Development{}
	}
	if o.Page == nil {
		o.Page = web.Handler()
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 20 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Limits.setDefaults()
	return o, o.check()
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
