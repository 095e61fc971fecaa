package peers

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"
)

const centrifugePath = "/connection/websocket"

// The history of a room: a publication is kept for who was away. Centrifugo's
// documentation sets both, to values like these:
// https://centrifugal.dev/docs/server/history_and_recovery
const (
	historySize = 300
	historyTTL  = 5 * time.Minute
)

// batching collects messages for a client for this long, and sends them all in
// one frame. "Sometimes you want to trade-off delivery latency in favour of
// lower CPU consumption"; it helps "when you have lots of messages per client",
// which a saturated room is:
// https://centrifugal.dev/docs/pro/client_message_batching
// The library has it as ConnectReply.WriteDelay, with a timer instead of a
// goroutine for each connection as WriteWithTimer.
const batching = 10 * time.Millisecond

// serveCentrifuge is a chat like that of the library's tutorial, with history:
// https://github.com/centrifugal/centrifuge#tutorial
// What is not set has the library's defaults. Among them: a client is
// disconnected when 1 MiB waits for it (ClientQueueMaxSize) or a write takes a
// second (WriteTimeout), at most 16 messages are in a frame
// (MaxMessagesInFrame), no compression.
func serveCentrifuge(ctx context.Context, out io.Writer, addr string, batch bool) error {
	// Without a broker and a presence manager of one's own, a node has those in
	// memory: https://pkg.go.dev/github.com/centrifugal/centrifuge#New
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel: centrifuge.LogLevelError,
		LogHandler: func(e centrifuge.LogEntry) {
			fmt.Fprintln(os.Stderr, e.Message, e.Fields)
		},
	})
	if err != nil {
		return err
	}
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		reply := centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: e.Token}}
		if batch {
			reply.WriteDelay, reply.WriteWithTimer, reply.MaxMessagesInFrame = batching, true, -1
		}
		return reply, nil
	})
	node.OnConnect(handle)
	if err := node.Run(); err != nil {
		return err
	}
	defer func() {
		// It waits until the clients have gone, and they need not.
		bounded, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = node.Shutdown(bounded)
	}()

	metrics, end, err := withMetrics(ctx)
	if err != nil {
		return err
	}
	defer end()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	// "Using a pool can reduce memory usage" when most connections are idle
	// (use_write_buffer_pool): https://centrifugal.dev/docs/transports/websocket
	mux.Handle(centrifugePath, centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{UseWriteBufferPool: true}))
	defer serveHTTP(l, mux)()
	if err := say(out, l.Addr(), metrics); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// handle lets everybody subscribe and publish: the least that a server can do.
func handle(client *centrifuge.Client) {
	client.OnSubscribe(func(_ centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
		// With positions, so that a client that returns gets what it missed.
		done(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnableRecovery: true}}, nil)
	})
	client.OnPublish(func(_ centrifuge.PublishEvent, done centrifuge.PublishCallback) {
		done(centrifuge.PublishReply{Options: centrifuge.PublishOptions{HistorySize: historySize, HistoryTTL: historyTTL}}, nil)
	})
}
