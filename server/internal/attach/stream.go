package attach

import (
	"context"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Stream is where frames go. Its methods are called by one goroutine at a
// time. They may block for as long as the client does not read, and must
// return with an error soon after the stream's context ended.
type Stream interface {
	// Context ends when the client is gone or the stream was ended.
	Context() context.Context
	// Send sends a frame.
	Send(*reprisev1.ServerFrame) error
	// SendEncoded sends an encoded frame in up to three pieces: a whole one, or a
	// header and elements that lie in one place or two. They are never changed
	// afterwards; the callee may keep them.
	SendEncoded(header, elements, rest []byte) error
}
