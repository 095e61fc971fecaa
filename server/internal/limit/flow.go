package limit

import "context"

// Flow is a call's transport, as whoever reads its messages sees it. A
// transport without flow control of its own (an HTTP request's body) may then
// read ahead a little, and more only when it is wanted.
type Flow interface {
	// Want says that n more bytes are about to be read.
	Want(n int)
	// Took says that n bytes were read and what was wanted has come.
	Took(n int)
}

type flowKey struct{}

// WithFlow returns ctx with the call's transport.
func WithFlow(ctx context.Context, f Flow) context.Context {
	return context.WithValue(ctx, flowKey{}, f)
}

// FlowOf returns the call's transport, or nil if it has flow control of its
// own.
func FlowOf(ctx context.Context) Flow {
	f, _ := ctx.Value(flowKey{}).(Flow)
	return f
}
