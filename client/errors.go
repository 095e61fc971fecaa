package reprise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Errors to be found with errors.Is. Those that come from the server are also
// an [Error].
var (
	// ErrClosed: the Client is closed.
	ErrClosed = errors.New("reprise: client is closed")
	// ErrRunning: Run was called while it is running.
	ErrRunning = errors.New("reprise: Run is already running")
	// ErrNotRunning: the call needs Run to be running.
	ErrNotRunning = errors.New("reprise: Run is not running")
	// ErrFenced: another client has taken the session over. Run never resumes
	// by itself then; calling it again takes the session back or forks it, as
	// Config.Takeover says. Until then nothing is sent.
	ErrFenced = errors.New("reprise: another client has taken this session over")
	// ErrSessionHeld: another client holds the session, and Config.Takeover
	// is TakeoverRefuse.
	ErrSessionHeld = errors.New("reprise: another client holds this session")
	// ErrUnauthenticated: the server does not accept the token.
	ErrUnauthenticated = errors.New("reprise: the token is not accepted")
	// ErrPermissionDenied: the user may not do this.
	ErrPermissionDenied = errors.New("reprise: permission denied")
	// ErrInvalid: a value is outside its bounds; Error.Fields says which. Most
	// of these are found before anything is sent.
	ErrInvalid = errors.New("reprise: invalid argument")
	// ErrRoomNotFound: there is no such room, or the user is not a member.
	ErrRoomNotFound = errors.New("reprise: no such room, or not a member of it")
	// ErrRoomExists: a room of this name exists already.
	ErrRoomExists = errors.New("reprise: room exists already")
	// ErrSessionNotFound: the user has no such session.
	ErrSessionNotFound = errors.New("reprise: no such session")
	// ErrTooManySessions: the user has as many sessions attached as the server
	// allows; end one.
	ErrTooManySessions = errors.New("reprise: the user has too many sessions attached")
	// ErrTooManyRooms: the user is in as many rooms as the server allows; leave
	// one.
	ErrTooManyRooms = errors.New("reprise: the user is in too many rooms")
	// ErrTooLarge: the request has more bytes than the server takes.
	ErrTooLarge = errors.New("reprise: larger than the server takes")
	// ErrClientIDReused: the client id was used for something else before.
	ErrClientIDReused = errors.New("reprise: client id was used for another event")
	// ErrProtocol: the server broke the protocol, for example with a hole
	// between two events. The stream is dropped and resumed.
	ErrProtocol = errors.New("reprise: protocol error")
	// ErrSilent: no frame came for longer than the heartbeat and its grace.
	ErrSilent = errors.New("reprise: the server has gone silent")
	// ErrStoreLocked: another process uses the position file.
	ErrStoreLocked = errors.New("reprise: position file is in use by another process")
)

// Error is what was answered instead of doing what was asked: by a Reprise
// server, or by something on the way to it (a proxy, a captive portal, gRPC
// itself), which has no say in the matter: then Reason is empty, it matches
// none of ErrUnauthenticated, ErrPermissionDenied and ErrInvalid, and what was
// asked is asked again.
type Error struct {
	// Code is the canonical gRPC code.
	Code codes.Code
	// Reason is stable and in capitals, as "ROOM_NOT_FOUND"; empty when the
	// error does not come from a Reprise server.
	Reason string
	// Message is for people.
	Message string
	// Fields are what is wrong with the request, for InvalidArgument.
	Fields []FieldViolation
	// RetryAfter is when the server wants to be asked again; 0 if it does not
	// say.
	RetryAfter time.Duration
}

// FieldViolation names one bad field of a request.
type FieldViolation struct {
	Field       string
	Description string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("reprise: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("reprise: %s (%s): %s", e.Code, e.Reason, e.Message)
}

// GRPCStatus lets status.Code see through an Error.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Is lets errors.Is find the package's sentinels.
func (e *Error) Is(target error) bool {
	switch e.Reason {
	case "FENCED":
		return target == ErrFenced
	case "SESSION_HELD":
		return target == ErrSessionHeld
	case "ROOM_NOT_FOUND":
		return target == ErrRoomNotFound
	case "ROOM_EXISTS":
		return target == ErrRoomExists
	case "SESSION_NOT_FOUND":
		return target == ErrSessionNotFound
	case "TOO_MANY_SESSIONS":
		return target == ErrTooManySessions
	case "TOO_MANY_ROOMS":
		return target == ErrTooManyRooms
	case "FRAME_TOO_LARGE":
		return target == ErrTooLarge
	case "CLIENT_ID_REUSED":
		return target == ErrClientIDReused
	}
	switch e.Code {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	}
	if e.Reason == "" {
		return false
	}
	switch e.Code {
	case codes.Unauthenticated:
		return target == ErrUnauthenticated
	case codes.PermissionDenied:
		return target == ErrPermissionDenied
	case codes.InvalidArgument:
		return target == ErrInvalid
	}
	return false
}

// fromServer reports whether a Reprise server has answered, and not something
// on the way to it.
func (e *Error) fromServer() bool { return e.Reason != "" }

// isFinal reports whether asking again would get the same answer. Only a
// server's own answer can be.
func isFinal(err error) bool {
	var e *Error
	if !errors.As(err, &e) || !e.fromServer() {
		return errors.Is(err, ErrInvalid) || errors.Is(err, ErrNotRunning)
	}
	switch e.Code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.Unimplemented, codes.FailedPrecondition, codes.OutOfRange, codes.DataLoss:
		return true
	case codes.ResourceExhausted: // a server says when waiting cures it
		return e.RetryAfter == 0
	}
	return false
}

// isNetwork reports whether an attempt failed for want of an answer by a
// server, so that another address should be tried.
func isNetwork(err error) bool {
	var e *Error
	return errors.Is(err, errAttachTimeout) || errors.As(err, &e) && (!e.fromServer() || e.Code == codes.Unavailable)
}

// invalid is the error for a value that no server would take.
func invalid(field, format string, args ...any) *Error {
	description := fmt.Sprintf(format, args...)
	return &Error{
		Code: codes.InvalidArgument, Reason: "INVALID_FIELD", Message: field + " " + description,
		Fields: []FieldViolation{{Field: field, Description: description}},
	}
}

// UnknownOutcomeError is returned by a send whose context ended before the
// server had answered: the event may or may not exist. Sending again with the
// same client id is safe and tells. [Client.Create] returns it, without a client
// id, when the room exists and it cannot know whether an attempt before, whose
// answer was lost, has made it.
type UnknownOutcomeError struct {
	Room     string
	ClientID string
	// Err is the context's error, joined with the last failure, if any.
	Err error
}

// Error implements error.
func (e *UnknownOutcomeError) Error() string {
	if e.ClientID == "" {
		return fmt.Sprintf("reprise: whether this call has made the room %s is not known: %v", e.Room, e.Err)
	}
	return fmt.Sprintf("reprise: send to %s has no answer yet (client id %s; sending again with it is safe): %v", e.Room, e.ClientID, e.Err)
}

// Unwrap returns Err.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// errorDomain is the ErrorInfo.domain of every answer of a Reprise server.
const errorDomain = "reprise.chat"

// errorOf turns what gRPC returned into an *Error; nil stays nil. What else is
// in an answer counts only if it is a server's.
func errorOf(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &Error{Code: s.Code(), Message: s.Message()}
	details := s.Details()
	for _, detail := range details {
		if d, ok := detail.(*errdetails.ErrorInfo); ok && d.GetDomain() == errorDomain {
			e.Reason = d.GetReason()
		}
	}
	if !e.fromServer() {
		return e
	}
	for _, detail := range details {
		switch d := detail.(type) {
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, FieldViolation{Field: v.GetField(), Description: v.GetDescription()})
			}
		}
	}
	return e
}

// errorOfFault turns a Fault frame into an *Error.
func errorOfFault(f *reprisev1.Fault) *Error {
	e := &Error{
		Code:       codes.Code(f.GetCode()),
		Reason:     f.GetReason(),
		Message:    f.GetMessage(),
		RetryAfter: f.GetRetryAfter().AsDuration(),
	}
	if e.Reason == "" {
		e.Reason = "UNSPECIFIED" // a frame of an attached stream can only be the server's
	}
	for _, v := range f.GetFields() {
		e.Fields = append(e.Fields, FieldViolation{Field: v.GetField(), Description: v.GetDescription()})
	}
	return e
}

func reasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// retryAfter returns what the server asked to wait, 0 if it did not.
func retryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
