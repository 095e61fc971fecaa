package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// refusal is an error as a client sees it: the status of a call or the Fault
// of a frame. Its code, and whether it says when to try again, follow from its
// reason.
type refusal struct {
	reason  *reason.Reason
	message string // for people: what is wrong and what to do
	fields  []*reprisev1.FieldViolation
	retry   time.Duration // a slot; 0: the reason's own delay, if it has one
	cause   error         // for the log, when it is the server's fault
}

func (r *refusal) Error() string { return r.reason.Name() + ": " + r.message }

func (r *refusal) Unwrap() error { return r.cause }

// GRPCStatus makes a refusal the status of a call.
func (r *refusal) GRPCStatus() *status.Status {
	if len(r.fields) == 0 {
		return r.reason.Status(r.message, r.retry)
	}
	bad := new(errdetails.BadRequest)
	for _, f := range r.fields {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: f.GetField(), Description: f.GetDescription(),
		})
	}
	return r.reason.Status(r.message, r.retry, bad)
}

// fault makes a refusal the answer to a frame.
func (r *refusal) fault(requestID string) *reprisev1.ServerFrame {
	f := &reprisev1.Fault{
		RequestId: requestID, Code: int32(r.reason.Code()), Reason: r.reason.Name(), Message: r.message, Fields: r.fields,
	}
	if d := r.reason.RetryAfter(r.retry); d > 0 {
		f.RetryAfter = durationpb.New(d)
	}
	return &reprisev1.ServerFrame{Frame: &reprisev1.ServerFrame_Fault{Fault: f}}
}

// known lists what the core's errors mean to a client. An error that wraps
// several means the first of them.
var known = []struct {
	err     error
	reason  *reason.Reason
	message string
}{
	{room.ErrNotFound, reason.RoomNotFound, "no such room, or you are not a member of it: join it first (JoinRoom)"},
	{room.ErrExists, reason.RoomExists, "that name is taken: join the room if it is open (JoinRoom), have yourself invited, or choose another name"},
	{room.ErrInviteRefused, reason.InviteRefused, "only the creator of this room may invite: ask its creator"},
	{room.ErrTooManyInvitations, reason.TooManyInvitations, "too many invitations are open, to this room, by you to this room, or by you to this user: wait until they are used"},
	{room.ErrClientIDReused, reason.ClientIDReused, "you have published another event with this client_id in this room: choose a new one for each event"},
	{room.ErrBusy, reason.TooManyInFlight, "too many events of this room wait to be stored: try again"},
	{room.ErrUnavailable, reason.RoomUnavailable, "this room cannot be read or written just now: try again, a publish with the same client_id"},
	{session.ErrNotFound, reason.SessionNotFound, "no such session of yours: open a new one (Open)"},
	{session.ErrFenced, reason.Fenced, "another client has taken this session over: do not resume by yourself"},
	{session.ErrHeld, reason.SessionHeld, "another client holds this session and is alive: fork it or take it over (ResumeRequest.takeover)"},
	{session.ErrKeyNotYours, reason.ResumeKeyNotYours, "this resume key belongs to another user: use the one from your own Welcome"},
	{session.ErrPositionsNeeded, reason.PositionsNeeded, "the server does not have that checkpoint: resume with all your positions and no checkpoint"},
	{session.ErrTooMany, reason.TooManySessions, "you have as many sessions attached as you may have: end one (ListSessions, EndSession), have your programs resume theirs, or open those that keep nothing as ephemeral (OpenRequest.ephemeral)"},
	{session.ErrNotAttached, reason.NotAttached, "the session has no live stream: resume it (Resume), with your positions"},
	{attach.ErrEnded, reason.SessionNotFound, "the session was ended: open a new one (Open)"},
	{attach.ErrDraining, reason.Draining, "the server is stopping: resume in a moment"},
	{store.ErrDiskReserve, reason.DiskReserve, "the server's disk is nearly full and takes no writes; reading goes on: tell its operator"},
	{store.ErrClosed, reason.Draining, "the server is stopping: resume in a moment"},
	{store.ErrQueueFull, reason.TooManyInFlight, "too many events wait to be stored: try again"},
	{store.ErrNotFound, reason.SessionNotFound, "no such session of yours: open a new one (Open)"},
	{store.ErrConflict, reason.StoreUnavailable, "somebody else changed the same thing at the same time: try again"},
	{store.ErrRead, reason.StoreUnavailable, "the server could not read its disk just now: try again"},
	{store.ErrCorrupt, reason.StoreUnavailable, "the server could not read its disk just now: try again; its operator finds more in its log"},
	{auth.ErrMissing, reason.TokenMissing, `no token: send metadata "authorization: Bearer TOKEN" (on a development server: "Bearer dev:YOUR_NAME")`},
	{auth.ErrInvalid, reason.TokenInvalid, `the token is not valid: send one metadata "authorization: Bearer TOKEN" (on a development server: "Bearer dev:YOUR_NAME", percent-encoded)`},
	{context.Canceled, reason.Canceled, "the client went away"},
	{context.DeadlineExceeded, reason.Deadline, "the deadline has passed; a publish may still succeed: retry with the same client_id"},
}

// refuse says what an error means to a client. What is not known is the
// server's fault; it is logged by the caller and not explained to strangers.
func refuse(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var e *reason.Error
	if errors.As(err, &e) {
		return &refusal{reason: e.Reason, message: e.Message}
	}
	var l *limit.Error
	if errors.As(err, &l) {
		return &refusal{reason: reason.RateLimited, message: l.Error(), retry: l.RetryAfter}
	}
	var n *auth.NameError
	if errors.As(err, &n) {
		return &refusal{
			reason:  reason.TokenInvalid,
			message: "the user id of the token " + n.Rule + ": this server cannot take its bearer as a user",
		}
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			r := &refusal{reason: k.reason, message: k.message}
			if k.reason == reason.RoomUnavailable || k.reason == reason.StoreUnavailable {
				r.cause = err
			}
			return r
		}
	}
	switch status.Code(err) { // gRPC's own
	case codes.Canceled, codes.Unavailable:
		return refuse(context.Canceled)
	case codes.DeadlineExceeded:
		return refuse(context.DeadlineExceeded)
	}
	return &refusal{reason: reason.Internal, message: "internal error; the server's log says more", cause: err}
}

// What a refusal says about fields. It travels in headers, of which some
// clients take 8 KiB in all; base64 makes a third more of it.
const (
	maxViolations  = 20
	maxFields      = 3 << 10 // bytes of all names and descriptions
	maxDescription = 256
)

// violations gathers what is wrong with a request: the first of it, and how
// much more there is.
type violations struct {
	prefix string
	fields []*reprisev1.FieldViolation
	size   int // bytes in fields
	more   int // violations left out
}

// check notes err, if it is one, for a field.
func (v *violations) check(field string, err error) {
	if err != nil {
		v.add(field, err.Error())
	}
}

func (v *violations) add(field, description string) {
	field, description = reason.Cut(v.prefix+field, maxDescription), reason.Cut(description, maxDescription)
	size := len(field) + len(description)
	if v.more > 0 || len(v.fields) == maxViolations || v.size+size > maxFields {
		v.more++
		return
	}
	v.size += size
	v.fields = append(v.fields, &reprisev1.FieldViolation{Field: field, Description: description})
}

// err returns nil if nothing is wrong.
func (v *violations) err() error {
	if len(v.fields) == 0 {
		return nil
	}
	f := v.fields[0]
	message := f.GetField() + " " + f.GetDescription()
	if v.more > 0 {
		message += fmt.Sprintf("; and %d more violations, beyond the %d named", v.more, len(v.fields))
	}
	return &refusal{reason: reason.InvalidField, message: message, fields: v.fields}
}

// Status returns err as the status of a call that ended before a handler saw
// it.
func Status(err error) error { return refuse(err).GRPCStatus().Err() }
