package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

// maxToken bounds a bearer token, in bytes.
const maxToken = 8 << 10

// ServerOptions returns what every grpc.Server of this service needs, native
// or behind the gateway, beside what Guard puts before its services.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec(s.plans)),
		// Never reached: a reader has each method's own limit.
		grpc.MaxRecvMsgSize(s.opts.MaxRecv()),
		grpc.UnknownServiceHandler(unknownMethod),
	}
}

// unknownMethod answers calls of what is not registered.
func unknownMethod(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	return &refusal{reason: reason.MethodUnknown, message: fmt.Sprintf("there is no method %.200q here: call one of the contract, reprise.v1.ChatService", method)}
}

// Guard returns a registrar whose services have the guard before each method:
// who calls is known before anything is read, and what is read and decoded is
// bounded. It registers at r.
//
// An interceptor is too late for that: gRPC reads and decodes the request of a
// unary call before it.
func (s *Service) Guard(r grpc.ServiceRegistrar) grpc.ServiceRegistrar { return guard{s, r} }

// guard stands before every handler.
type guard struct {
	service *Service
	to      grpc.ServiceRegistrar
}

// RegisterService implements grpc.ServiceRegistrar.
func (g guard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		about := g.service.method(desc.ServiceName, m.MethodName, false)
		guarded.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: g.unary(about, m.Handler)}
	}
	guarded.Streams = make([]grpc.StreamDesc, len(desc.Streams))
	for i, st := range desc.Streams {
		about := g.service.method(desc.ServiceName, st.StreamName, st.ClientStreams)
		guarded.Streams[i] = st
		guarded.Streams[i].Handler = func(srv any, in grpc.ServerStream) error {
			return g.stream(about, in, func(in grpc.ServerStream) error { return st.Handler(srv, in) })
		}
	}
	g.to.RegisterService(&guarded, impl)
}

// method returns what is known of a method. It panics for one that is in no
// contract that is linked in.
func (s *Service) method(service, name string, streams bool) *method {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		panic(fmt.Sprintf("rpc: %s/%s: %v", service, name, err))
	}
	p := s.plans.plan(d.(protoreflect.MethodDescriptor).Input())
	return &method{
		name: "/" + service + "/" + name, plan: p, limit: p.limit(s.opts), streams: streams, open: s.isOpen(service),
	}
}

// unaryHandler is how generated code carries out a unary call; dec reads the
// request.
type unaryHandler = func(srv any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor) (any, error)

func (g guard) unary(about *method, handle unaryHandler) unaryHandler {
	s := g.service
	return func(srv any, ctx context.Context, _ func(any) error, next grpc.UnaryServerInterceptor) (out any, err error) {
		defer s.recovered(ctx, about.name, &err)
		if err := checkContent(ctx); err != nil {
			return nil, err
		}
		if ctx, err = s.authenticate(ctx, about); err != nil {
			return nil, err
		}
		r := s.newReader(ctx, about)
		defer func() { r.ended(err) }()
		return handle(srv, ctx, r.request, next)
	}
}

func (g guard) stream(about *method, in grpc.ServerStream, handle func(grpc.ServerStream) error) (err error) {
	s, ctx := g.service, in.Context()
	defer s.recovered(ctx, about.name, &err)
	if err := checkContent(ctx); err != nil {
		return err
	}
	if ctx, err = s.authenticate(ctx, about); err != nil {
		return err
	}
	if about.open {
		address := addressOf(ctx)
		if !s.strangers.Take(address) {
			return errTooManyStreams
		}
		defer s.strangers.Give(address)
	}
	r := s.newReader(ctx, about)
	defer func() { r.ended(err) }()
	uncompressed(r)
	return handle(&identified{in, context.WithValue(ctx, readerKey{}, r), r})
}

// checkContent refuses messages that say that they are no protobuf: the codec
// would take them for it.
func checkContent(ctx context.Context) error {
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ ContentSubtype() string })
	if !ok || s.ContentSubtype() == "" || s.ContentSubtype() == "proto" {
		return nil
	}
	return &refusal{
		reason:  reason.ContentType,
		message: fmt.Sprintf("messages are protobuf: content-type application/grpc+proto, not application/grpc+%.40s", s.ContentSubtype()),
	}
}

// request reads a unary call's request.
func (r *reader) request(m any) error {
	uncompressed(r)
	return r.single(m.(proto.Message))
}

// uncompressed has answers go out as they are. gRPC would compress them as the
// request is, and a client could make the server compress every event.
func uncompressed(r *reader) {
	if r.stream != nil && r.stream.RecvCompress() != "" {
		_ = grpc.SetSendCompressor(r.ctx, encoding.Identity) // fails if the call is over
	}
}

// identified is a stream whose context carries the caller's identity, and whose
// messages come within their bounds.
type identified struct {
	grpc.ServerStream
	ctx    context.Context //nolint:containedctx // this is how gRPC streams carry it
	reader *reader
}

// Context implements grpc.ServerStream.
func (s *identified) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream. The error may be a *badFrameError.
func (s *identified) RecvMsg(m any) error {
	if s.reader.method.streams {
		return s.reader.next(m.(proto.Message))
	}
	return s.reader.single(m.(proto.Message))
}

type readerKey struct{}

// carriedOut says that a stream's request is not needed any more; the stream
// may go on for days.
func carriedOut(ctx context.Context) {
	if r, ok := ctx.Value(readerKey{}).(*reader); ok {
		r.done()
	}
}

// Streams that need no token: for all callers, and by address.
const (
	maxStrangers           = 1024
	maxStrangersPerAddress = 32
)

// errTooManyStreams answers a stream beyond that.
var errTooManyStreams = &refusal{
	reason:  reason.TooManyStreams,
	message: "too many streams without a token are open: end one, or try again later",
}

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

// authenticate puts the caller's identity into the context, unless the method
// is open.
func (s *Service) authenticate(ctx context.Context, about *method) (context.Context, error) {
	if about.open {
		return ctx, nil
	}
	token, err := bearer(ctx)
	if err != nil {
		s.penalty.wait(ctx)
		return ctx, s.fail(ctx, err)
	}
	id, err := auth.Identify(ctx, s.opts.Verifier, token)
	if err != nil {
		s.penalty.wait(ctx)
		return ctx, s.fail(ctx, err)
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
