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
	// ErrInvalid: a value is outside its bounds; Error.Fields says which.
	ErrInvalid = errors.New("reprise: invalid argument")
	// ErrRoomNotFound: there is no such room, or the user is not a member.
	ErrRoomNotFound = errors.New("reprise: no such room, or not a member of it")
	// ErrRoomExists: a room of this name exists already.
	ErrRoomExists = errors.New("reprise: room exists already")
	// ErrSessionNotFound: the user has no such session.
	ErrSessionNotFound = errors.New("reprise: no such session")
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

// Error is what a server answered instead of doing what was asked.
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
	case "CLIENT_ID_REUSED":
		return target == ErrClientIDReused
	}
	switch e.Code {
	case codes.Unauthenticated:
		return target == ErrUnauthenticated
	case codes.PermissionDenied:
		return target == ErrPermissionDenied
	case codes.InvalidArgument:
		return target == ErrInvalid
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	}
	return false
}

// UnknownOutcomeError is returned by a send whose context ended before the
// server had answered: the event may or may not exist. Sending again with the
// same client id is safe and tells.
type UnknownOutcomeError struct {
	Room     string
	ClientID string
	// Err is the context's error, joined with the last failure, if any.
	Err error
}

// Error implements error.
func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("reprise: send to %s has no answer yet (client id %s; sending again with it is safe): %v", e.Room, e.ClientID, e.Err)
}

// Unwrap returns Err.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// errorOf turns what gRPC returned into an *Error; nil stays nil.
func errorOf(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &Error{Code: s.Code(), Message: s.Message()}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason = d.GetReason()
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
