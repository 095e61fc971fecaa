package server

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/reprise-chat/reprise/server/internal/rpc"
)

// Limits protect the server. A zero field has the default given; a negative
// rate is no limit. Limits that must fit each other are checked by New, which
// says what does not; what clients can keep to is in their Welcome.
type Limits struct {
	// MessageBytes bounds the text or data of an event: at most 2 MiB, because
	// one event must fit into what gRPC clients take by default. Default 64 KiB.
	MessageBytes int
	// FrameBytes bounds a client frame or request. It must hold a message and
	// what goes with it, and 1,000 acknowledgements; at most 64 MiB. Resumes
	// have a bound of their own that follows from RoomsPerUser, because a resume
	// is never refused for its size. Default 1 MiB, or what MessageBytes needs.
	FrameBytes int
	// RoomsPerUser bounds a user's memberships: at most 20,000. Default 1,000.
	RoomsPerUser int
	// SessionsPerUser bounds a user's sessions that can be resumed: beyond, one
	// that is not attached makes room. As many besides may end with their
	// stream. At most 10,000. Default 32.
	SessionsPerUser int
	// StreamsPerConnection bounds the calls in progress on one gRPC
	// connection: a client holds further ones back until one has ended, without
	// a word. At least 50, which is what the Go SDK puts on one. Default 100.
	StreamsPerConnection uint32
	// WebConnections and WebCalls bound the connections and the calls in
	// progress, streams included, on the HTTP port; AddressWebConnections and
	// AddressWebCalls those of one address (IPv6: one /64), the first of these
	// not those of Options.TrustedProxies. Defaults what the process may have open
	// besides the store and the gRPC connections, at most 8,192; 4,096, 256 and
	// 192.
	WebConnections, WebCalls, AddressWebConnections, AddressWebCalls int
	// TailsPerUser bounds the Tail streams that a user has open. Default 100.
	TailsPerUser int
	// Connections bounds open connections of the gRPC listener, and
	// AddressConnections those of one address (IPv6: one /64) that is none of
	// Options.TrustedProxies; more are closed at once. Default of the first: what
	// the process may have open besides the store and as many browsers, at most
	// 16,384; New refuses what does not fit. Default of the second 256; negative:
	// no bound.
	Connections, AddressConnections int
	// UserPublishes and RoomPublishes bound events a second by one user and
	// into one room, in bursts of twice that: messages, and joins, leaves and
	// all else that is an event. Default 200 and 2,000.
	UserPublishes, RoomPublishes float64
	// UserCreates bounds the rooms a second that one user makes, by creating or
	// by joining them, in bursts of ten times that. Default 10.
	UserCreates float64
	// Attaches bounds attaches a second on this node, in bursts of twice that,
	// fairly by user and address: beyond, clients are told when to come again,
	// and get in then. Default 1,000.
	Attaches float64
}

// Bounds of the limits themselves.
const (
	maxMessageBytes = 2 << 20
	maxFrameBytes   = 64 << 20
	maxRooms        = 20_000
	maxSessions     = 10_000
	maxWeb          = 1 << 20
	maxTails        = 10_000
	maxConnections  = 1 << 24
	leastStreams    = 50
	maxStreams      = 1 << 24
	maxRate         = 1e9
)

func (l *Limits) setDefaults() {
	setDefault(&l.MessageBytes, 64<<10)
	setDefault(&l.FrameBytes, max(1<<20, min(l.MessageBytes, maxMessageBytes)+rpc.EnvelopeBytes))
	setDefault(&l.RoomsPerUser, 1000)
	setDefault(&l.SessionsPerUser, 32)
	setDefault(&l.StreamsPerConnection, 100)
	setDefault(&l.WebCalls, 4096)
	setDefault(&l.AddressWebConnections, 256)
	setDefault(&l.AddressWebCalls, 192)
	setDefault(&l.TailsPerUser, 100)
	setDefault(&l.AddressConnections, 256)
	setDefault(&l.UserPublishes, 200)
	setDefault(&l.RoomPublishes, 2000)
	setDefault(&l.UserCreates, 10)
	setDefault(&l.Attaches, 1000)
}

// check says what is no limit at all, and what does not fit another one.
func (l *Limits) check() error {
	var errs []error
	for _, n := range []struct {
		name        string
		n           int
		least, most int
	}{
		{"MessageBytes", l.MessageBytes, 1, maxMessageBytes},
		{"FrameBytes", l.FrameBytes, 1, maxFrameBytes},
		{"RoomsPerUser", l.RoomsPerUser, 1, maxRooms},
		{"SessionsPerUser", l.SessionsPerUser, 1, maxSessions},
		{"WebConnections", l.WebConnections, 0, maxWeb},
		{"WebCalls", l.WebCalls, 1, maxWeb},
		{"AddressWebConnections", l.AddressWebConnections, 1, maxWeb},
		{"AddressWebCalls", l.AddressWebCalls, 1, maxWeb},
		{"TailsPerUser", l.TailsPerUser, 1, maxTails},
		{"StreamsPerConnection", int(l.StreamsPerConnection), leastStreams, maxStreams},
		{"Connections", l.Connections, 0, maxConnections},
	} {
		if n.n < n.least || n.n > n.most {
			errs = append(errs, fmt.Errorf("server: Limits.%s must be %d to %d, and is %d", n.name, n.least, n.most, n.n))
		}
	}
	for _, r := range []struct {
		name string
		rate float64
	}{{"UserPublishes", l.UserPublishes}, {"RoomPublishes", l.RoomPublishes}, {"UserCreates", l.UserCreates}, {"Attaches", l.Attaches}} {
		if math.IsNaN(r.rate) || r.rate > maxRate {
			errs = append(errs, fmt.Errorf("server: Limits.%s must be at most %g a second, or negative for no limit, and is %v", r.name, float64(maxRate), r.rate))
		}
	}
	if least := l.MessageBytes + rpc.EnvelopeBytes; l.FrameBytes < least {
		errs = append(errs, fmt.Errorf("server: Limits.FrameBytes is %d, and a message of %d bytes takes up to %d: raise it, or lower MessageBytes", l.FrameBytes, l.MessageBytes, least))
	}
	if l.FrameBytes < rpc.AckBytes {
		errs = append(errs, fmt.Errorf("server: Limits.FrameBytes is %d, and acknowledgements take up to %d: raise it", l.FrameBytes, rpc.AckBytes))
	}
	return errors.Join(errs...)
}

// check refuses options that would have the server spin, panic or lose what it
// should keep.
func (o Options) check() error {
	var errs []error
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"Heartbeat", o.Heartbeat}, {"TrimEvery", o.TrimEvery}, {"Retention.MaxAge", o.Retention.MaxAge}} {
		if d.d < 0 {
			errs = append(errs, fmt.Errorf("server: Options.%s must not be negative, and is %v", d.name, d.d))
		}
	}
	return errors.Join(append(errs, o.Limits.check())...)
}
