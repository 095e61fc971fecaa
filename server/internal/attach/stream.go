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
	// SendEvents sends an encoded frame: header followed by elements. Neither
	// is ever changed afterwards; the callee may keep them.
	SendEvents(header, elements []byte) error
}
