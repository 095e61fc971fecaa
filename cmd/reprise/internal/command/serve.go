package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/reprise-chat/reprise/server"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	addr         string
	http         string
	pprof        string
	dir          string
	hosts        []string
	origins      []string
	proxies      []string
	keepAge      time.Duration
	keepEvents   uint64
	keepBytes    uint64
	trimEvery    time.Duration
	emptyRooms   time.Duration
	directAdd    bool
	drainTimeout time.Duration
	logLevel     slog.Level
	logFormat    string
	asJSON       bool
	limits       server.Limits
}

func newServe(std Streams) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve rooms (the default command)",
		Long: `Serve rooms over gRPC, and to browsers over grpc-web with a page to chat on.

Everything is stored in one directory, which one server at a time may use. What
a client was told is sent is on disk, and survives a crash.

SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal was closed) drains: clients are
told to come back, what was acknowledged is on disk, and serve exits with 0
within the drain timeout. A second signal exits at once. Started with nohup,
serve goes on when the terminal is closed.`,
		Example: `  reprise                                  # the same as reprise serve
  reprise serve --dir /var/lib/reprise
  REPRISE_ADDR=127.0.0.1:7000 reprise serve --keep-age 720h`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, std) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.addr, "addr", "127.0.0.1:9090", "`host:port` for gRPC; port 0 for any free one")
	flags.StringVar(&f.http, "http", "127.0.0.1:8080", "`host:port` for browsers; port 0 for any free one")
	flags.StringVar(&f.pprof, "pprof", "", "serve Go's profiles of this process on this `host:port`, for go tool pprof; port 0 for any free one")
	flags.StringVar(&f.dir, "dir", "reprise-data", "`directory` of the data; made if it is not there")
	flags.StringSliceVar(&f.hosts, "host", nil, "further `host` that browsers may call this by, like chat.example.com; with the port unless it is 80 or 443")
	flags.StringSliceVar(&f.proxies, "trusted-proxy", nil, "`address` or range of reverse proxies whose X-Forwarded-For is believed on both ports, like 10.0.0.0/8")
	flags.StringSliceVar(&f.origins, "origin", nil, "further web `origin` whose pages may call, like https://chat.example.com")
	flags.DurationVar(&f.keepAge, "keep-age", 0, "keep events of a room for this `duration`; 0 for ever")
	flags.Uint64Var(&f.keepEvents, "keep-events", 0, "keep this `number` of events of a room; 0 for all")
	flags.Uint64Var(&f.keepBytes, "keep-bytes", 0, "keep this many `bytes` of events of a room; 0 for all")
	flags.DurationVar(&f.trimEvery, "trim-every", time.Minute, "apply these limits, and those that rooms have of their own, once in this `duration`")
	flags.BoolVar(&f.directAdd, "direct-add", false, "make users members at once whom a member invites, instead of inviting them")
	flags.DurationVar(&f.emptyRooms, "keep-empty-rooms", time.Hour, "keep a room without members for this `duration`, then remove it with its log; -1s for ever")
	flags.DurationVar(&f.drainTimeout, "drain-timeout", 10*time.Second, "exit within this `duration` of the first signal, whatever clients do")
	flags.TextVar(&f.logLevel, "log-level", slog.LevelInfo, "log from this `level` up: debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "auto", "`format`: text, json, or auto: text on a terminal")
	flags.BoolVar(&f.asJSON, "json", false, "say where it listens as one line of JSON")
	f.limitFlags(flags)
	bindEnvironment(cmd, std.Getenv, "addr", "http", "pprof", "dir", "host", "origin", "trusted-proxy", "keep-age", "keep-events", "keep-bytes", "trim-every", "keep-empty-rooms", "direct-add",
		"drain-timeout", "log-level", "log-format",
		"limit-address-web-calls", "limit-address-web-connections", "limit-attaches", "limit-room-publishes", "limit-user-creates", "limit-user-publishes", "limit-user-rooms", "limit-user-sessions", "limit-web-calls", "limit-web-connections",
		"limit-address-connections", "limit-connection-streams", "limit-connections", "limit-user-tails")
	return cmd
}

// leastTrimEvery is how often limits may be applied: each time costs something
// even where there is nothing to remove.
const leastTrimEvery = 10 * time.Millisecond

func (f *serveFlags) run(cmd *cobra.Command, std Streams) error {
	log, err := f.logger(cmd, std)
	if err != nil {
		return err
	}
	server.LimitGRPCLog(log)
	limitMemory(log)
	if f.drainTimeout <= 0 {
		return usagef(cmd, "--drain-timeout must be more than 0, and is %v", f.drainTimeout)
	}
	if f.trimEvery < leastTrimEvery {
		return usagef(cmd, "--trim-every must be at least %v, and is %v", leastTrimEvery, f.trimEvery)
	}
	if f.emptyRooms == 0 {
		return usagef(cmd, "--keep-empty-rooms must be more than 0, or negative for ever, and is 0")
	}
	if err := f.checkLimits(cmd); err != nil {
		return err
	}
	// Before the store is opened, so that a signal that comes early still
	// closes it.
	ctx, stop := untilSignal(cmd.Context())
	defer stop()

	grpcListener, httpListener, err := f.listen(ctx, cmd)
	if err != nil {
		return err
	}
	profiles, err := f.openProfiles(ctx, cmd, log)
	if err != nil {
		return errors.Join(err, grpcListener.Close(), httpListener.Close())
	}
	defer profiles.close()
	srv, err := server.New(f.options(log))
	if err != nil {
		err = errors.Join(grpcListener.Close(), httpListener.Close(), err)
		if errors.Is(err, server.ErrLocked) {
			return fmt.Errorf("another server uses the data directory %s: end it, or give this one another with --dir", f.dir)
		}
		return err
	}
	backups := openDoor(f.dir, srv.Backup, log)
	defer backups.close()
	context.AfterFunc(ctx, backups.close) // a drain does not wait for a backup
	if err := f.announce(std, grpcListener.Addr(), httpListener.Addr(), profiles.url()); err != nil {
		log.Warn("cannot say where this listens", "error", err)
	}
	return serve(ctx, srv, grpcListener, httpListener, f.drainTimeout, log)
}

func (f *serveFlags) options(log *slog.Logger) server.Options {
	return server.Options{
		Dir:     f.dir,
		Hosts:   f.hosts,
		Origins: f.origins,

		TrustedProxies: f.proxies,

		Reflection: true,
		Logger:     log,
		Retention:  server.Retention{MaxAge: f.keepAge, MaxEvents: f.keepEvents, MaxBytes: f.keepBytes},
		Limits:     f.limits,
		TrimEvery:  f.trimEvery,
		EmptyRooms: f.emptyRooms,
		DirectAdd:  f.directAdd,
	}
}

// serve runs srv until ctx ends, and then drains it for at most timeout.
func serve(ctx context.Context, srv *server.Server, grpcListener, httpListener net.Listener, timeout time.Duration, log *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- srv.Serve(grpcListener, httpListener) }()

	var failed error
	select {
	case <-ctx.Done():
		log.Info("draining; a second signal exits at once", "timeout", timeout.String())
	case <-srv.Failed():
		failed = errors.New("the store failed; see the log. What was acknowledged is on disk: start again to recover it")
	case failed = <-served:
		served <- nil // for the wait below
	}
	// Not the ended ctx: the drain has its own time.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("clients that ignored the drain were cut off", "error", err)
		err = nil
	}
	// What Serve says after it was told to stop, perhaps before it had begun,
	// is no failure.
	if err := <-served; err != nil {
		log.Debug("serving ended", "error", err)
	}
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	log.Info("drained")
	return nil
}

// untilSignal returns a context that ends with the first SIGINT, SIGTERM or
// SIGHUP. The second one ends the process. A SIGHUP that the process was
// started to ignore, by nohup, stays ignored. Call stop to end listening.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for _, act := range []func(){cancel, func() { os.Exit(exitFailure) }} {
			select {
			case <-signals:
				act()
			case <-over:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(over)
		<-done
		cancel()
	}
}

// listen listens on both addresses.
func (f *serveFlags) listen(ctx context.Context, cmd *cobra.Command) (grpcListener, httpListener net.Listener, err error) {
	grpcAddr, err := loopback(cmd, "addr", f.addr)
	if err != nil {
		return nil, nil, err
	}
	httpAddr, err := loopback(cmd, "http", f.http)
	if err != nil {
		return nil, nil, err
	}
	grpcListener, err = listenOn(ctx, "addr", grpcAddr)
	if err != nil {
		return nil, nil, err
	}
	httpListener, err = listenOn(ctx, "http", httpAddr)
	if err != nil {
		return nil, nil, errors.Join(err, grpcListener.Close())
	}
	return grpcListener, httpListener, nil
}

// openProfiles serves profiles if they are wanted; else nil.
func (f *serveFlags) openProfiles(ctx context.Context, cmd *cobra.Command, log *slog.Logger) (*profiles, error) {
	if f.pprof == "" {
		return nil, nil
	}
	address, err := loopback(cmd, "pprof", f.pprof)
	if err != nil {
		return nil, err
	}
	l, err := listenOn(ctx, "pprof", address)
	if err != nil {
		return nil, err
	}
	return serveProfiles(l, log), nil
}

// loopback resolves an address and refuses one that is not on this machine:
// the only identity there is so far believes whoever calls.
func loopback(cmd *cobra.Command, flag, address string) (string, error) {
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return "", usagef(cmd, "--%s %q is not a host and port: %w", flag, address, err)
	}
	if resolved.IP.IsLoopback() {
		return resolved.String(), nil
	}
	port := resolved.Port
	return "", usagef(cmd, `--%s %s would let other machines in, and this release has only the development identity, which believes whatever name a caller gives.
Use 127.0.0.1:%d; to reach it from another machine, forward the port: ssh -L %d:127.0.0.1:%d HOST.`, flag, address, port, port, port)
}

func listenOn(ctx context.Context, flag, address string) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken, perhaps by another reprise: end that, or choose another address with --%s", address, flag)
	}
	return listener, err
}

// announce says where the server listens and what to try next.
func (f *serveFlags) announce(std Streams, grpcAddr, httpAddr net.Addr, profiles string) error {
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		dir = f.dir
	}
	page := "http://" + httpAddr.String()
	if f.asJSON {
		return writeJSON(std.Out, struct {
			PID   int    `json:"pid"`
			GRPC  string `json:"grpc"`
			HTTP  string `json:"http"`
			PProf string `json:"pprof,omitempty"`
			Dir   string `json:"dir"`
		}{os.Getpid(), grpcAddr.String(), page, profiles, dir})
	}
	chat := self() + " chat lobby"
	if grpcAddr.String() != defaultServer {
		chat += " --server " + grpcAddr.String()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Reprise serves\n\n")
	fmt.Fprintf(&text, "  gRPC      %s\n", grpcAddr)
	fmt.Fprintf(&text, "  browsers  %s\n", page)
	fmt.Fprintf(&text, "  data      %s\n", dir)
	if profiles != "" {
		fmt.Fprintf(&text, "  profiles  %s\n", profiles)
	}
	fmt.Fprintf(&text, "\n")
	fmt.Fprintf(&text, "Try next\n\n")
	fmt.Fprintf(&text, "  %s\n", chat)
	fmt.Fprintf(&text, "  %s --user bob     # somebody else, in another terminal\n", chat)
	fmt.Fprintf(&text, "  grpcurl -plaintext -H 'authorization: Bearer dev:alice' %s list\n\n", grpcAddr)
	fmt.Fprintf(&text, "Ctrl-C ends it, and so does kill -9 %d; nobody loses their place.\n\n", os.Getpid())
	_, err = std.Out.Write([]byte(text.String()))
	return err
}

func (f *serveFlags) logger(cmd *cobra.Command, std Streams) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: f.logLevel}
	switch format := f.logFormat; {
	case format == "json", format == "auto" && !isTerminal(std.Err):
		return slog.New(slog.NewJSONHandler(std.Err, options)), nil
	case format == "text", format == "auto":
		return slog.New(slog.NewTextHandler(std.Err, options)), nil
	}
	return nil, usagef(cmd, "--log-format %q is none of text, json, auto", f.logFormat)
}
