package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // as both edges have it
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	conformancev1 "github.com/reprise-chat/reprise/server/internal/conformance/gen/connectrpc/conformance/v1"
	"github.com/reprise-chat/reprise/server/internal/gateway"
)

func main() {
	edge := flag.String("edge", "", "native or gateway")
	flag.Parse()
	gateway.LimitGRPCLog(slog.New(slog.DiscardHandler))
	if err := run(*edge, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until the suite's runner ends it with a signal.
func run(edge string, in io.Reader, out io.Writer) error {
	request := new(conformancev1.ServerCompatRequest)
	if err := read(in, request); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serve, stop, err := listenOn(edge, int(request.GetMessageReceiveLimit()))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- serve(l) }()
	address := l.Addr().(*net.TCPAddr)
	if err := write(out, &conformancev1.ServerCompatResponse{Host: address.IP.String(), Port: uint32(address.Port)}); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	select {
	case <-ended:
		stop()
		return <-served
	case err := <-served:
		return err
	}
}

// listenOn returns an edge with the suite's service.
func listenOn(edge string, limit int) (serve func(net.Listener) error, stop func(), err error) {
	switch edge {
	case "native":
		s := grpc.NewServer(nativeOptions(limit)...)
		conformancev1.RegisterConformanceServiceServer(s, new(service))
		return s.Serve, s.Stop, nil
	case "gateway":
		g, err := gateway.New(gateway.Options{
			Register:        func(r grpc.ServiceRegistrar) { conformancev1.RegisterConformanceServiceServer(r, new(service)) },
			MaxRecvBytes:    limit,
			MaxPendingBytes: limit + 1<<20,
			Metadata:        []string{"x-custom-header", "x-conformance-test"}, // nothing else gets through
			Logger:          slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, nil, err
		}
		return g.Serve, func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = g.Shutdown(ctx)
		}, nil
	}
	return nil, nil, fmt.Errorf("-edge %q is neither native nor gateway", edge)
}

// nativeOptions are those of the server's native port.
func nativeOptions(limit int) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(limit), grpc.MaxConcurrentStreams(100), grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 40 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.StaticStreamWindowSize(64 << 10), grpc.StaticConnWindowSize(256 << 10), grpc.WaitForHandlers(true),
	}
}

// read and write have the runner's framing: a length and a message.
func read(r io.Reader, m proto.Message) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

func write(w io.Writer, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}
