package reprise

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Defaults of [Config].
const (
	DefaultWindow     = 64 << 10
	DefaultBackoffMin = 500 * time.Millisecond
	DefaultBackoffMax = 20 * time.Second
)

// Config says how a [Client] reaches its servers and what it asks of them.
// Only Addresses is required.
type Config struct {
	// Addresses are the servers, as host:port or any gRPC target, at least
	// one. They are tried in turn; the client stays with one that works.
	Addresses []string
	// TLS is used for every connection. Nil means plaintext, which New allows
	// to loopback addresses only, unless Insecure is set.
	TLS *tls.Config
	// Insecure allows plaintext to addresses that are not loopback: the token
	// and everything said can then be read on the way.
	Insecure bool
	// Token returns the credential that is sent as "authorization: Bearer
	// ...". It is called at each attempt and for each call, possibly
	// concurrently, so it should cache. If it fails, the attempt fails and is
	// made again; if it returns what cannot be sent (anything but printable
	// ASCII), Run and the call end with ErrInvalid. Nil sends none.
	Token func(context.Context) (string, error)
	// Positions keeps the session and the positions. Nil keeps them in
	// memory. A store serves one Client at a time.
	Positions PositionStore
	// Logger gets what happens to the connection, never texts, tokens or
	// resume keys: at Warn what a person may have to mend, at Info and Debug
	// the rest. Nil writes what is at least Warn to standard error;
	// slog.New(slog.DiscardHandler) is silent.
	Logger *slog.Logger

	// Rooms are the rooms to be in: Run joins them, with History, when it is
	// first attached; what is sent to one waits for that. A room that cannot be
	// joined just now is tried again and keeps nobody from the others; one that
	// the user cannot join ends Run. Who leaves one stays out of it until the
	// next Run.
	Rooms []string
	// History is how many of the newest events of each room a new session
	// starts with, and how many come with a room that Run joins, at most 1000.
	// A resumed session has its positions instead.
	History uint32
	// Focus names rooms to deliver first, at most 100.
	Focus []string
	// Window bounds the bytes of events that were sent to this client and not
	// yet acknowledged: 0 means DefaultWindow, a negative value no bound by
	// the server (the client still reads no further than its hand-over
	// holds).
	Window int
	// ReplayLimit bounds how many events of each room a resume replays; what
	// is older comes as a Gap REPLAY_LIMIT. 0 leaves it to the server.
	ReplayLimit uint32
	// Takeover says what to do when another running client holds the session
	// and is alive.
	Takeover Takeover
	// Ephemeral ends the session on the server when Run's context ends or the
	// Client is closed, instead of leaving it to be resumed: right for a
	// program that keeps its positions in memory and will not come back.
	Ephemeral bool

	// OnState is told each time the State changes, on a goroutine of its own,
	// never concurrently with itself. When it is slow it misses states in
	// between, never the last one. The call for Closed comes before Run
	// returns.
	OnState func(State)
	// DialOptions are added to every connection, after the client's own.
	DialOptions []grpc.DialOption
	// BackoffMin and BackoffMax bound the wait between attempts: the n-th wait
	// is random between 0 and BackoffMin * 2^(n-1), at most BackoffMax. What
	// the server asks for goes first. 0 means the defaults.
	BackoffMin, BackoffMax time.Duration
}

// Takeover says what a resume does when another running client holds the
// session and answers. A holder that is silent is always taken over.
type Takeover int

const (
	// TakeoverFork leaves the holder alone and goes on in a copy of the
	// session (OutcomeForked).
	TakeoverFork Takeover = iota
	// TakeoverTakeOver fences the holder: its Run returns ErrFenced.
	TakeoverTakeOver
	// TakeoverRefuse makes Run return ErrSessionHeld.
	TakeoverRefuse
)

func (t Takeover) proto() reprisev1.Takeover {
	switch t {
	case TakeoverTakeOver:
		return reprisev1.Takeover_TAKEOVER_TAKE_OVER
	case TakeoverRefuse:
		return reprisev1.Takeover_TAKEOVER_REFUSE
	default:
		return reprisev1.Takeover_TAKEOVER_FORK
	}
}

// withDefaults checks c and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if len(c.Addresses) == 0 {
		return c, errors.New("reprise: Config.Addresses is empty: give at least one host:port")
	}
	if c.TLS == nil && !c.Insecure {
		for _, address := range c.Addresses {
			if !IsLoopback(address) {
				return c, fmt.Errorf("reprise: plaintext to %q would show the token to the network: set Config.TLS, or Config.Insecure if that is meant", address)
			}
		}
	}
	if err := c.check(); err != nil {
		return c, err
	}
	if c.BackoffMin < 0 || c.BackoffMax < 0 {
		return c, errors.New("reprise: Config.BackoffMin and BackoffMax must not be negative")
	}
	if c.BackoffMin == 0 {
		c.BackoffMin = DefaultBackoffMin
	}
	if c.BackoffMax == 0 {
		c.BackoffMax = max(DefaultBackoffMax, c.BackoffMin)
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.Positions == nil {
		c.Positions = NewMemoryStore()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	return c, nil
}

// check checks what would be refused at each attempt.
func (c Config) check() error {
	if err := checkNames("rooms", c.Rooms, math.MaxInt); err != nil {
		return err
	}
	if err := checkNames("focus", c.Focus, maxFocus); err != nil {
		return err
	}
	return checkAtMost("history", uint64(c.History), maxHistory)
}

// IsLoopback reports whether a gRPC target surely stays on this machine: New
// allows plaintext to such addresses without Config.Insecure.
func IsLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") {
		return true
	}
	if _, endpoint, ok := strings.Cut(target, ":///"); ok {
		target = endpoint
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = strings.Trim(target, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// newID returns a random id of the client's own making.
func newID(prefix string) string { return prefix + rand.Text() }
