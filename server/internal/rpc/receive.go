package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/fault"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/name"
	"github.com/reprise-chat/reprise/server/internal/reason"
)

const (
	// unleased is how many bytes of a request are read or decoded without a
	// part of a Budget: most are smaller, and what a stream may send ahead of
	// its handler is more.
	unleased = 32 << 10
	// costly is how many bytes a message takes, beside those of its strings, that
	// is not looked into again and again for one user; see penalty.
	costly = 256 << 10
	// messageTime is how long a message that has a part of a Budget may take to
	// come.
	messageTime = 30 * time.Second
	// prefixLen is gRPC's before each message: a flag and a length.
	prefixLen = 5
	// idBytes is how much of a frame may hold the request_id it begins with: a
	// tag, a length and the id, and the tag of what comes next.
	idBytes = 3 + name.MaxRequest
)

// transportStream is what a reader needs of a gRPC stream, native or of
// ServeHTTP. It is grpc-go's own way to read, which a grpc.ServerStream hides
// behind a limit that is the same for all methods, and behind reading and
// decoding whatever is within it.
type transportStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
	WriteStatus(*status.Status) error
}

// method is what there is to know of a method before a request of it is read.
type method struct {
	name string // "/service/method"
	// open: no token is needed.
	open bool
	// streams: the client sends frames, and a bad one does not end its stream.
	streams bool
	plan    *plan
	limit   int // of a request or frame, in bytes
}

// reader reads the messages of one call: each within its method's limit, and
// only when the budgets have room for it. It is used by one goroutine at a
// time.
type reader struct {
	service *Service
	method  *method
	ctx     context.Context //nolint:containedctx // it is the stream's
	stream  transportStream
	flow    limit.Flow // nil: the transport has flow control
	prefix  [prefixLen]byte
	decoded limit.Lease // of the message that is carried out
	large   bool        // the last message has very many entries
}

var errNoReader = errors.New("this version of grpc-go has no way to read a message within a limit")

func (s *Service) newReader(ctx context.Context, m *method) *reader {
	stream, _ := grpc.ServerTransportStreamFromContext(ctx).(transportStream)
	return &reader{service: s, method: m, ctx: ctx, stream: stream, flow: limit.FlowOf(ctx)}
}

// badFrameError is why a frame is refused. Its stream goes on.
type badFrameError struct {
	*refusal
	requestID string // empty if it has none that can be echoed
}

// Unwrap has a bad frame be its refusal where its stream cannot go on.
func (f *badFrameError) Unwrap() error { return f.refusal }

// done gives back what the last message held of the budgets.
func (r *reader) done() { r.decoded.Release() }

// ended gives back what the call's last message held, and has one wait that was
// large and is refused for what it says: looking into it was not cheap.
func (r *reader) ended(err error) {
	r.done()
	if r.large && err != nil && refuse(err).reason == reason.InvalidField {
		_ = r.service.penalty.large.Allow(auth.FromContext(r.ctx).User)
		r.service.penalty.wait(r.ctx)
	}
}

// single reads the one request of a method whose client does not stream.
func (r *reader) single(m proto.Message) error {
	err := r.next(m)
	if errors.Is(err, io.EOF) {
		return cardinality("none came")
	}
	if err != nil {
		return err
	}
	switch err := r.stream.ReadMessageHeader(r.prefix[:]); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return r.failed(err)
	}
	return cardinality("another one came")
}

func cardinality(what string) error {
	return &refusal{
		reason:  reason.Cardinality,
		message: "this method takes one request, and " + what,
	}
}

// next reads the next message into m. The error is io.EOF at the end, a
// *badFrameError if the client streams and may go on, or what the call ends with.
func (r *reader) next(m proto.Message) error {
	r.done()
	if r.stream == nil {
		return errNoReader
	}
	if err := r.stream.ReadMessageHeader(r.prefix[:]); err != nil {
		return r.failed(err)
	}
	if r.flow != nil {
		r.flow.Took(prefixLen)
	}
	flag, n := r.prefix[0], int(binary.BigEndian.Uint32(r.prefix[1:]))
	var head mem.BufferSlice
	if n > r.method.limit {
		var err error
		if head, err = r.takeHead(n); err != nil {
			return err
		}
		defer head.Free()
		if n > r.service.opts.MaxResume() || !isResume(head) {
			return r.skip(n, head, tooLarge(fmt.Sprintf("has %d bytes", n), r.method.limit))
		}
	}
	need := 2 * n // as it comes, and in one piece
	if flag != 0 {
		need = n + 2*r.method.limit
	}
	lease, err := r.service.reading.lease(r.ctx, need)
	if err != nil {
		return r.skip(n, head, refuse(err))
	}
	defer lease.Release()
	b, err := r.read(n, head, lease != limit.Lease{})
	if err != nil {
		return err
	}
	defer func() { b.Free() }()
	if flag != 0 {
		if b, err = r.decompress(flag, b); err != nil {
			return r.refused(nil, err)
		}
	}
	return r.decode(b, m)
}

// decode decodes b if it is within the bounds and there is room for it.
func (r *reader) decode(b mem.Buffer, m proto.Message) error {
	raw := b.ReadOnlyData()
	cost, err := r.method.plan.scan(raw, 0)
	if fault.Broken(fault.DecodeAnything) {
		cost, err = 0, nil
	}
	if r.large = cost > costly; err == nil && r.large {
		err = r.service.penalty.large.Spent(auth.FromContext(r.ctx).User)
	}
	if err == nil {
		if r.decoded, err = r.service.decoding.lease(r.ctx, cost+len(raw)); err == nil {
			err = decode(raw, m)
		}
	}
	if err != nil {
		return r.refused(raw, r.refusal(err))
	}
	return nil
}

func (r *reader) refusal(err error) *refusal {
	var many *tooManyError
	switch {
	case errors.As(err, &many):
		var v violations
		v.many(many.field, many.has, many.most)
		return refuse(v.err())
	case errors.Is(err, errMalformed):
		return malformed(fmt.Sprintf("the bytes are not an encoded %s: encode it with the contract of this server", r.method.plan.name))
	}
	return refuse(err)
}

func malformed(what string) *refusal {
	return &refusal{reason: reason.Malformed, message: what}
}

func tooLarge(what string, most int) *refusal {
	return &refusal{
		reason:  reason.FrameTooLarge,
		message: fmt.Sprintf("the frame %s; at most %d are taken: send less at once", what, most),
	}
}

// read reads the rest of a message of n bytes that begins with head, in a
// bounded time if it is leased.
func (r *reader) read(n int, head mem.BufferSlice, leased bool) (mem.Buffer, error) {
	if leased {
		late := time.AfterFunc(messageTime, func() {
			_ = r.stream.WriteStatus((&refusal{
				reason:  reason.RequestTimeout,
				message: fmt.Sprintf("a message has not come within %v of its beginning", messageTime),
			}).GRPCStatus())
		})
		defer late.Stop()
	}
	rest, err := r.take(n - head.Len())
	if err != nil {
		return nil, err
	}
	defer rest.Free()
	return append(head[:len(head):len(head)], rest...).MaterializeToBuffer(mem.DefaultBufferPool()), nil
}

// take takes n bytes off the stream.
func (r *reader) take(n int) (mem.BufferSlice, error) {
	if r.flow != nil {
		r.flow.Want(n)
		defer r.flow.Took(n)
	}
	data, err := r.stream.Read(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, r.failed(err)
	}
	return data, nil
}

// takeHead takes the beginning of a message of n bytes, if its method can do
// anything with it.
func (r *reader) takeHead(n int) (mem.BufferSlice, error) {
	if !r.method.streams {
		return nil, nil
	}
	return r.take(min(n, idBytes))
}

// skip refuses a message of n bytes of which head was read.
func (r *reader) skip(n int, head mem.BufferSlice, why *refusal) error {
	if !r.method.streams {
		return r.refused(nil, why)
	}
	if head == nil {
		var err error
		if head, err = r.takeHead(n); err != nil {
			return err
		}
		defer head.Free()
	}
	const piece = 16 << 10
	for n -= head.Len(); n > 0; n -= min(n, piece) {
		data, err := r.take(min(n, piece))
		if err != nil {
			return err
		}
		data.Free()
	}
	return r.refused(head.Materialize(), why)
}

// refused refuses a message that begins with head and has been read.
func (r *reader) refused(head []byte, why error) error {
	r.service.penalty.wait(r.ctx)
	refusal, ok := why.(*refusal) //nolint:errorlint // it is not wrapped
	if !r.method.streams {
		return r.service.fail(r.ctx, why) // nobody else logs it
	}
	if !ok {
		return why
	}
	return &badFrameError{refusal, requestID(head)}
}

// requestID returns the request_id that a frame begins with, so that a Fault
// can name it.
func requestID(head []byte) string {
	num, typ, n := protowire.ConsumeTag(head)
	if n < 0 || num != 1 || typ != protowire.BytesType {
		return ""
	}
	id, k := protowire.ConsumeString(head[n:])
	if k < 0 || name.CheckRequest(id) != nil {
		return ""
	}
	return id
}

// isResume says whether a frame that begins with head is a resume, which may
// be larger than others.
func isResume(head mem.BufferSlice) bool {
	const requestID, resume = 1, 3
	b := head.Materialize()
	num, typ, n := protowire.ConsumeTag(b)
	if num == requestID && typ == protowire.BytesType {
		if _, k := protowire.ConsumeBytes(b[n:]); k > 0 {
			num, _, _ = protowire.ConsumeTag(b[n+k:])
		}
	}
	return num == resume
}

// decompress returns what b unpacks to, which is at most the method's limit,
// and frees b.
func (r *reader) decompress(flag byte, b mem.Buffer) (mem.Buffer, error) {
	defer b.Free()
	c := encoding.GetCompressor(r.stream.RecvCompress())
	if flag != 1 || c == nil || c.Name() == encoding.Identity {
		return mem.SliceBuffer(nil), malformed("a message is marked as compressed, and the call names no compression that is known")
	}
	in := mem.BufferSlice{b}.Reader()
	defer in.Close()
	z, err := c.Decompress(in)
	if err != nil {
		return mem.SliceBuffer(nil), malformed("a message is not compressed as the call says")
	}
	if closer, ok := z.(io.Closer); ok {
		defer closer.Close()
	}
	data, err := mem.ReadAll(io.LimitReader(z, int64(r.method.limit)+1), mem.DefaultBufferPool())
	defer data.Free()
	switch {
	case err != nil:
		return mem.SliceBuffer(nil), malformed("a message is not compressed as the call says")
	case data.Len() > r.method.limit:
		return mem.SliceBuffer(nil), tooLarge(fmt.Sprintf("unpacks to more than %d bytes", r.method.limit), r.method.limit)
	}
	return data.MaterializeToBuffer(mem.DefaultBufferPool()), nil
}

// failed says how a call ends that the transport does not read on.
func (r *reader) failed(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("the call ended within a message")
	case r.ctx.Err() != nil:
		return status.FromContextError(r.ctx.Err()).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}

// budget is a Budget that is shared by address.
type budget struct{ *limit.Budget }

// lease returns a part of n bytes, or the zero Lease if so little needs none.
func (b budget) lease(ctx context.Context, n int) (limit.Lease, error) {
	if n <= unleased {
		return limit.Lease{}, nil
	}
	return b.Acquire(ctx, addressOf(ctx), n)
}

// addressOf returns whom a call counts for in bounds by address: its peer, or
// for whom a trusted proxy forwards it (see TrustProxies, and package gateway).
func addressOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return limit.Address(p.Addr.String())
	}
	return ""
}

// newBudget returns a budget in which a frame of the largest size has room.
func newBudget(what string, maxFrame int) budget {
	const total = 32 << 20
	per := max(total/4, 4*maxFrame)
	return budget{limit.NewBudget(what, max(total, 2*per), per, 2*time.Second)}
}
