package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// maxToken bounds a bearer token, in bytes.
const maxToken = 8 << 10

// ServerOptions returns what every grpc.Server of this service needs, native
// or behind the gateway: the codec and the interceptors.
func (s *Service) ServerOptions(v auth.Verifier) []grpc.ServerOption {
	g := guard{s, v}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(Codec(s.opts.MaxFrame, s.opts.MaxResume())),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.UnknownServiceHandler(unknownMethod),
	}
}

// unknownMethod answers calls of what is not registered.
func unknownMethod(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	return &refusal{reason: reason.MethodUnknown, message: fmt.Sprintf("there is no method %.200q here: call one of the contract, reprise.v1.ChatService", method)}
}

// guard stands before every handler.
type guard struct {
	service  *Service
	verifier auth.Verifier
}

func (g guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer g.service.recovered(ctx, info.FullMethod, &err)
	if ctx, err = g.authenticate(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if m, ok := req.(proto.Message); ok {
		if err := g.service.checkDecoded(m); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

func (g guard) stream(srv any, in grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx := in.Context()
	defer g.service.recovered(ctx, info.FullMethod, &err)
	if ctx, err = g.authenticate(ctx, info.FullMethod); err != nil {
		return err
	}
	return next(srv, &identified{in, ctx})
}

// identified is a stream whose context carries the caller's identity.
type identified struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // this is how gRPC streams carry it
}

// Context implements grpc.ServerStream.
func (s *identified) Context() context.Context { return s.ctx }

// recovered turns a panic into an error: one request's bug must not take the
// others' streams down. Defer it.
func (s *Service) recovered(ctx context.Context, method string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	s.opts.Logger.LogAttrs(ctx, slog.LevelError, "panic", slog.String("method", method),
		slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
	*err = refuse(fmt.Errorf("panic in %s", method))
}

// authenticate puts the caller's identity into the context. The services of
// gRPC itself (health, reflection, channelz) are for everybody who can reach
// the server.
func (g guard) authenticate(ctx context.Context, method string) (context.Context, error) {
	if !strings.HasPrefix(method, "/"+reprisev1.ChatService_ServiceDesc.ServiceName+"/") {
		return ctx, nil
	}
	token, err := bearer(ctx)
	if err != nil {
		return ctx, refuse(err)
	}
	id, err := auth.Identify(ctx, g.verifier, token)
	if err != nil {
		return ctx, g.service.fail(ctx, err)
	}
	return auth.NewContext(ctx, id), nil
}

func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	switch {
	case len(values) == 0:
		return "", auth.ErrMissing
	case len(values) > 1 || len(values[0]) > maxToken:
		return "", auth.ErrInvalid
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", auth.ErrInvalid
	}
	return token, nil
}
