package peers

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serveNATS is a NATS server of one's own, without JetStream: core NATS. What
// is not set has the server's defaults. Among them: a client is disconnected
// when 64 MiB wait for it (max_pending) or a write takes 10 seconds
// (write_deadline):
// https://docs.nats.io/running-a-nats-service/configuration
func serveNATS(ctx context.Context, out io.Writer, addr string) error {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: host, Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("peers: the NATS server does not begin to listen")
	}
	metrics, end, err := withMetrics(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := say(out, s.Addr(), metrics); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
