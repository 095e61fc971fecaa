package gateway

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/grpclog"
)

// limited logs what bad clients can provoke: at most one line a second, a few
// more at first, and the next line says how many were left out.
type limited struct {
	log  *slog.Logger
	rate *rate.Limiter
	left atomic.Int64
}

func newLimited(l *slog.Logger) *limited {
	return &limited{log: l, rate: rate.NewLimiter(rate.Every(time.Second), 5)}
}

func (l *limited) warn(msg string, args ...any) {
	if !l.rate.Allow() {
		l.left.Add(1)
		return
	}
	if n := l.left.Swap(0); n > 0 {
		args = append(args, "suppressed", n)
	}
	l.log.Log(context.Background(), slog.LevelWarn, msg, args...) //nolint:sloglint // its callers' messages are constants, or net/http's
}

// Write takes a line of a log.Logger.
func (l *limited) Write(line []byte) (int, error) {
	l.warn(string(bytes.TrimSpace(line)))
	return len(line), nil
}

// LimitGRPCLog sends gRPC's own error log to l, at most one line a second. The
// grpc-web wrapper writes such a line for each bad websocket, so without this
// anybody fills the log. The log is the process's: call it once, at the start
// of main, before anything uses gRPC.
func LimitGRPCLog(l *slog.Logger) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, newLimited(l)))
}
