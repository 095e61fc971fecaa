package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// Domain is the ErrorInfo.domain of every error.
const Domain = "reprise.chat"

// refusal is an error as a client sees it: the status of a call or the Fault
// of a frame.
type refusal struct {
	code    codes.Code
	reason  string // stable; see protocol.md
	message string // for people: what is wrong and what to do
	fields  []*reprisev1.FieldViolation
	retry   time.Duration
	cause   error // for the log, when it is the server's fault
}

func (r *refusal) Error() string { return r.reason + ": " + r.message }

func (r *refusal) Unwrap() error { return r.cause }

// GRPCStatus makes a refusal the status of a call.
func (r *refusal) GRPCStatus() *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: r.reason, Domain: Domain}}
	if len(r.fields) > 0 {
		bad := new(errdetails.BadRequest)
		for _, f := range r.fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: f.GetField(), Description: f.GetDescription(),
			})
		}
		details = append(details, bad)
	}
	if r.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retry)})
	}
	s := status.New(r.code, r.message)
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// fault makes a refusal the answer to a frame.
func (r *refusal) fault(requestID string) *reprisev1.ServerFrame {
	f := &reprisev1.Fault{
		RequestId: requestID, Code: int32(r.code), Reason: r.reason, Message: r.message, Fields: r.fields,
	}
	if r.retry > 0 {
		f.RetryAfter = durationpb.New(r.retry)
	}
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Fault{Fault: f}}
}

// known lists what the core's errors mean to a client.
var known = []struct {
	err     error
	code    codes.Code
	reason  string
	message string
}{
	{room.ErrNotFound, codes.NotFound, "ROOM_NOT_FOUND", "no such room, or you are not a member of it: join it first (JoinRoom)"},
	{room.ErrExists, codes.AlreadyExists, "ROOM_EXISTS", "there is a room of that name: join it (JoinRoom) or choose another name"},
	{room.ErrJoinRefused, codes.PermissionDenied, "JOIN_REFUSED", "you may not join this room: ask its creator, or create another one (CreateRoom)"},
	{room.ErrClientIDReused, codes.AlreadyExists, "CLIENT_ID_REUSED", "you have published another event with this client_id in this room: choose a new one for each event"},
	{room.ErrBusy, codes.ResourceExhausted, "TOO_MANY_IN_FLIGHT", "too many events of this room wait to be stored: try again"},
	{session.ErrNotFound, codes.NotFound, "SESSION_NOT_FOUND", "no such session of yours: open a new one (Open)"},
	{session.ErrFenced, codes.FailedPrecondition, "FENCED", "another client has taken this session over: do not resume by yourself"},
	{session.ErrHeld, codes.FailedPrecondition, "SESSION_HELD", "another client holds this session and is alive: fork it or take it over (ResumeRequest.takeover)"},
	{session.ErrKeyNotYours, codes.PermissionDenied, "RESUME_KEY_NOT_YOURS", "this resume key belongs to another user: use the one from your own Welcome"},
	{session.ErrPositionsNeeded, codes.FailedPrecondition, "POSITIONS_NEEDED", "the server does not have that checkpoint: resume with all your positions and no checkpoint"},
	{session.ErrTooMany, codes.ResourceExhausted, "TOO_MANY_SESSIONS", "you have too many sessions attached: end one (ListSessions, EndSession)"},
	{session.ErrNotAttached, codes.FailedPrecondition, "NOT_ATTACHED", "the session has no live stream: resume it (Resume), with your positions"},
	{attach.ErrEnded, codes.NotFound, "SESSION_NOT_FOUND", "the session was ended: open a new one (Open)"},
	{attach.ErrDraining, codes.Unavailable, "DRAINING", "the server is stopping: resume in a moment"},
	{store.ErrDiskReserve, codes.ResourceExhausted, "DISK_RESERVE", "the server's disk is nearly full and takes no writes; reading goes on: tell its operator"},
	{store.ErrClosed, codes.Unavailable, "DRAINING", "the server is stopping: resume in a moment"},
	{auth.ErrMissing, codes.Unauthenticated, "TOKEN_MISSING", `no token: send metadata "authorization: Bearer TOKEN" (on a development server: "Bearer dev:YOUR_NAME")`},
	{auth.ErrInvalid, codes.Unauthenticated, "TOKEN_INVALID", `the token is not valid: send one metadata "authorization: Bearer TOKEN" (on a development server: "Bearer dev:YOUR_NAME", a name of at most 128 of A-Z a-z 0-9 _.:@-)`},
	{context.Canceled, codes.Canceled, "CANCELED", "the client went away"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE", "the deadline has passed; a publish may still succeed: retry with the same client_id"},
}

// retryHint is when to try again after a passing condition without a slot.
const retryHint = time.Second

// refuse says what an error means to a client. What is not known is the
// server's fault; it is logged by the caller and not explained to strangers.
func refuse(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var l *limit.Error
	if errors.As(err, &l) {
		return &refusal{code: codes.ResourceExhausted, reason: "RATE_LIMITED", message: l.Error(), retry: l.RetryAfter}
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			r := &refusal{code: k.code, reason: k.reason, message: k.message}
			if k.code == codes.ResourceExhausted || k.code == codes.Unavailable {
				r.retry = retryHint
			}
			return r
		}
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return &refusal{code: s.Code(), reason: "TRANSPORT", message: s.Message()}
	}
	return &refusal{code: codes.Internal, reason: "INTERNAL", message: "internal error; the server's log says more", cause: err}
}

// violations gathers what is wrong with a request.
type violations struct {
	prefix string
	fields []*reprisev1.FieldViolation
}

// check notes err, if it is one, for a field.
func (v *violations) check(field string, err error) {
	if err != nil {
		v.add(field, err.Error())
	}
}

func (v *violations) add(field, description string) {
	v.fields = append(v.fields, &reprisev1.FieldViolation{Field: v.prefix + field, Description: description})
}

// err returns nil if nothing is wrong.
func (v *violations) err() error {
	if len(v.fields) == 0 {
		return nil
	}
	f := v.fields[0]
	return &refusal{
		code: codes.InvalidArgument, reason: "INVALID_FIELD",
		message: fmt.Sprintf("%s %s", f.GetField(), f.GetDescription()),
		fields:  v.fields,
	}
}

// Status returns err as the status of a call that ended before a handler saw
// it.
func Status(err error) error { return refuse(err).GRPCStatus().Err() }
