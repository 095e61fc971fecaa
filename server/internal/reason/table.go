package reason

import (
	"time"

	"google.golang.org/grpc/codes"
)

var all []*Reason

// final adds a reason that waiting does not cure. It has no RetryInfo: clients
// take a RESOURCE_EXHAUSTED without one for final.
func final(name string, code codes.Code) *Reason {
	return add(&Reason{name: name, code: code, final: true})
}

// passing adds a reason that waiting cures, with the delay that is told where
// nobody knows a better one.
func passing(name string, code codes.Code, retry time.Duration) *Reason {
	return add(&Reason{name: name, code: code, retry: retry})
}

// unknown adds a reason of which the server cannot say whether waiting cures
// it. RESOURCE_EXHAUSTED and UNAVAILABLE are never that.
func unknown(name string, code codes.Code) *Reason {
	return add(&Reason{name: name, code: code})
}

func add(r *Reason) *Reason {
	all = append(all, r)
	return r
}

// What is wrong with a request.
var (
	InvalidField = final("INVALID_FIELD", codes.InvalidArgument)
	Malformed    = final("MALFORMED", codes.InvalidArgument)
	FirstFrame   = final("FIRST_FRAME", codes.FailedPrecondition)
	SecondOpen   = final("SECOND_OPEN", codes.FailedPrecondition)

	MethodUnknown   = final("METHOD_UNKNOWN", codes.Unimplemented)
	EncodingUnknown = final("ENCODING_UNKNOWN", codes.Unimplemented)
	ContentType     = final("CONTENT_TYPE", codes.InvalidArgument)
	Cardinality     = final("CARDINALITY", codes.Unimplemented)
)

// Rooms and events.
var (
	RoomNotFound   = final("ROOM_NOT_FOUND", codes.NotFound)
	RoomExists     = final("ROOM_EXISTS", codes.AlreadyExists)
	InviteRefused  = final("INVITE_REFUSED", codes.PermissionDenied)
	ClientIDReused = final("CLIENT_ID_REUSED", codes.AlreadyExists)
	// RoomUnavailable: something of the room could not be read or written just
	// now. StoreUnavailable: something else.
	RoomUnavailable  = passing("ROOM_UNAVAILABLE", codes.Unavailable, time.Second)
	StoreUnavailable = passing("STORE_UNAVAILABLE", codes.Unavailable, time.Second)
	AckBeyondSent    = final("ACK_BEYOND_SENT", codes.FailedPrecondition)
)

// Sessions.
var (
	SessionNotFound   = final("SESSION_NOT_FOUND", codes.NotFound)
	SessionHeld       = final("SESSION_HELD", codes.FailedPrecondition)
	ResumeKeyNotYours = final("RESUME_KEY_NOT_YOURS", codes.PermissionDenied)
	PositionsNeeded   = final("POSITIONS_NEEDED", codes.FailedPrecondition)
	NotAttached       = final("NOT_ATTACHED", codes.FailedPrecondition)
	Fenced            = final("FENCED", codes.FailedPrecondition)
)

// Limits. What a client has too much of is final until it has less; what comes
// too fast passes.
var (
	FrameTooLarge      = final("FRAME_TOO_LARGE", codes.ResourceExhausted)
	TooManyRooms       = final("TOO_MANY_ROOMS", codes.ResourceExhausted)
	TooManySessions    = final("TOO_MANY_SESSIONS", codes.ResourceExhausted)
	TooManyInvitations = final("TOO_MANY_INVITATIONS", codes.ResourceExhausted)
	TooManyTails       = final("TOO_MANY_TAILS", codes.ResourceExhausted)
	RateLimited        = passing("RATE_LIMITED", codes.ResourceExhausted, time.Second)
	TooManyInFlight    = passing("TOO_MANY_IN_FLIGHT", codes.ResourceExhausted, time.Second)
	TooManyCalls       = passing("TOO_MANY_CALLS", codes.ResourceExhausted, 2*time.Second)
	TooManyStreams     = passing("TOO_MANY_STREAMS", codes.ResourceExhausted, 2*time.Second)
	DiskReserve        = passing("DISK_RESERVE", codes.ResourceExhausted, time.Second)
)

// Who asks, and from where.
var (
	HostNotServed = final("HOST_NOT_SERVED", codes.PermissionDenied)
	OriginRefused = final("ORIGIN_REFUSED", codes.PermissionDenied)

	TokenMissing = final("TOKEN_MISSING", codes.Unauthenticated)
	TokenInvalid = final("TOKEN_INVALID", codes.Unauthenticated)
)

// The end of a call for other reasons.
var (
	Draining = passing("DRAINING", codes.Unavailable, time.Second)
	// RequestTimeout: the client did not send as fast as a call has to.
	// CallStalled: it sent faster than its answers are read.
	RequestTimeout = passing("REQUEST_TIMEOUT", codes.Unavailable, time.Second)
	CallStalled    = passing("CALL_STALLED", codes.ResourceExhausted, time.Second)

	Canceled = unknown("CANCELED", codes.Canceled)
	Deadline = unknown("DEADLINE", codes.DeadlineExceeded)
	Internal = unknown("INTERNAL", codes.Internal)
)
