// Package reason is the table of the reasons for which the server refuses:
// what a client reads in ErrorInfo.reason or Fault.reason, on every edge. The
// code, whether waiting cures it, and RetryInfo all follow from the reason, so
// that no place that refuses can get them wrong. docs/protocol.md has the same
// table for people, and a test compares them.
package reason

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the ErrorInfo.domain of every error.
const Domain = "reprise.chat"

// maxMessage bounds the message of an error, in bytes: it travels in a header,
// percent-encoded, beside the details.
const maxMessage = 512

// Reason is one row of the table. The values are those of this package.
type Reason struct {
	name  string
	code  codes.Code
	final bool
	retry time.Duration
}

// Name is what clients read. It never changes.
func (r *Reason) Name() string { return r.name }

// Code is the status code.
func (r *Reason) Code() codes.Code { return r.code }

// Final says that waiting does not cure it: the same request, sent again with
// nothing else done, is refused again.
func (r *Reason) Final() bool { return r.final }

// Retries says that it carries RetryInfo: waiting cures it, and the server
// says how long.
func (r *Reason) Retries() bool { return r.retry > 0 }

// RetryAfter returns the delay to tell: the one given, or if that is not
// positive the reason's own. It is 0 for a reason without RetryInfo, whatever
// is given.
func (r *Reason) RetryAfter(d time.Duration) time.Duration {
	if r.retry > 0 && d > 0 {
		return d
	}
	return r.retry
}

// Status makes the status of a refused call: ErrorInfo, RetryInfo if the
// reason has one, and the further details given. The message is cut to what
// fits into a header.
func (r *Reason) Status(message string, retry time.Duration, more ...protoadapt.MessageV1) *status.Status {
	details := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: r.name, Domain: Domain}}, more...)
	if d := r.RetryAfter(retry); d > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	}
	s, err := status.New(r.code, Cut(message, maxMessage)).WithDetails(details...)
	if err != nil {
		panic(err) // details of these types marshal; a code is never OK
	}
	return s
}

// Error is a refusal as an error, for layers that end calls without answering
// them themselves.
type Error struct {
	Reason  *Reason
	Message string
}

func (e *Error) Error() string { return e.Reason.name + ": " + e.Message }

// GRPCStatus makes it the status of a call.
func (e *Error) GRPCStatus() *status.Status { return e.Reason.Status(e.Message, 0) }

// Cut returns s, valid UTF-8 and of at most n bytes.
func Cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	const more = "…"
	s = s[:n-len(more)]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + more
}

// All returns the table, by name.
func All() []*Reason {
	return slices.SortedFunc(slices.Values(all), func(a, b *Reason) int { return strings.Compare(a.name, b.name) })
}
