package rpc

import (
	"context"
	"net"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/reprise-chat/reprise/server/internal/forwarded"
)

// TrustProxies returns what has a native grpc.Server believe proxies about whom
// they forward for: the peer of a call that one of them passes on is its client.
// Nothing is looked at where there are none.
//
// It is a tap handle because only the native transport calls those. Behind the
// gateway, which has replaced the peer already, there is none, so the header
// never counts twice.
func TrustProxies(ps forwarded.Proxies) []grpc.ServerOption {
	if len(ps) == 0 {
		return nil
	}
	return []grpc.ServerOption{grpc.InTapHandle(func(ctx context.Context, call *tap.Info) (context.Context, error) {
		return withClient(ctx, ps, call.Header), nil
	})}
}

// withClient returns the context of a call with its client as the peer. The
// other calls of its connection wait meanwhile, so it does no more than walk
// through the last few entries of a header.
func withClient(ctx context.Context, ps forwarded.Proxies, md metadata.MD) context.Context {
	header := md["x-forwarded-for"]
	if len(header) == 0 {
		return ctx
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	proxy, ok := forwarded.Peer(p.Addr)
	if !ok {
		return ctx
	}
	client := ps.Client(proxy, header)
	if client == proxy.Unmap() {
		return ctx
	}
	of := *p
	of.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)) // which port is not said
	return peer.NewContext(ctx, &of)
}
