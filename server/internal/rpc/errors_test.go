package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/reprise-chat/reprise/server/internal/attach"
	"github.com/reprise-chat/reprise/server/internal/auth"
	"github.com/reprise-chat/reprise/server/internal/limit"
	"github.com/reprise-chat/reprise/server/internal/reason"
	"github.com/reprise-chat/reprise/server/internal/room"
	"github.com/reprise-chat/reprise/server/internal/session"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// verdicts are all the errors that the core names, and what a client is told.
var verdicts = map[string]struct {
	err  error
	want *reason.Reason
}{
	"store.ErrNotFound":    {store.ErrNotFound, reason.SessionNotFound},
	"store.ErrConflict":    {store.ErrConflict, reason.StoreUnavailable},
	"store.ErrClosed":      {store.ErrClosed, reason.Draining},
	"store.ErrDiskReserve": {store.ErrDiskReserve, reason.DiskReserve},
	"store.ErrCorrupt":     {store.ErrCorrupt, reason.StoreUnavailable},
	"store.ErrRead":        {store.ErrRead, reason.StoreUnavailable},
	"store.ErrQueueFull":   {store.ErrQueueFull, reason.TooManyInFlight},

	"room.ErrNotFound":           {room.ErrNotFound, reason.RoomNotFound},
	"room.ErrExists":             {room.ErrExists, reason.RoomExists},
	"room.ErrInviteRefused":      {room.ErrInviteRefused, reason.InviteRefused},
	"room.ErrTooManyInvitations": {room.ErrTooManyInvitations, reason.TooManyInvitations},
	"room.ErrClientIDReused":     {room.ErrClientIDReused, reason.ClientIDReused},
	"room.ErrBusy":               {room.ErrBusy, reason.TooManyInFlight},
	"room.ErrUnavailable":        {room.ErrUnavailable, reason.RoomUnavailable},

	"session.ErrNotFound":        {session.ErrNotFound, reason.SessionNotFound},
	"session.ErrFenced":          {session.ErrFenced, reason.Fenced},
	"session.ErrHeld":            {session.ErrHeld, reason.SessionHeld},
	"session.ErrKeyNotYours":     {session.ErrKeyNotYours, reason.ResumeKeyNotYours},
	"session.ErrPositionsNeeded": {session.ErrPositionsNeeded, reason.PositionsNeeded},
	"session.ErrTooMany":         {session.ErrTooMany, reason.TooManySessions},
	"session.ErrNotAttached":     {session.ErrNotAttached, reason.NotAttached},

	"attach.ErrDraining": {attach.ErrDraining, reason.Draining},
	"attach.ErrEnded":    {attach.ErrEnded, reason.SessionNotFound},

	"auth.ErrMissing": {auth.ErrMissing, reason.TokenMissing},
	"auth.ErrInvalid": {auth.ErrInvalid, reason.TokenInvalid},
}

// elsewhere are the errors that do not come here, and why.
var elsewhere = map[string]string{
	"store.ErrLocked":         "the server does not start",
	"session.ErrKeyMalformed": "resume answers with the field that is wrong",
	"attach.ErrBeyondSent":    "ack answers with the position that is wrong",
}

// TestEveryErrorHasItsReason reads from the source which errors the core can
// return, so that a new one gets its answer here. INTERNAL is for bugs only.
func TestEveryErrorHasItsReason(t *testing.T) {
	var declared []string
	for _, pkg := range []string{"store", "room", "session", "attach", "auth"} {
		declared = append(declared, sentinels(t, pkg)...)
	}
	if len(declared) < 20 {
		t.Fatalf("only %d errors were found in the source", len(declared))
	}
	for _, name := range declared {
		v, ok := verdicts[name]
		if _, not := elsewhere[name]; ok == not {
			t.Errorf("%s: say here what a client is told of it, or why it never is", name)
		}
		if !ok {
			continue
		}
		for _, err := range []error{v.err, fmt.Errorf("doing something: %w", v.err), errors.Join(errors.New("another"), v.err)} {
			checkVerdict(t, name, refuse(err), v.want)
		}
	}
	for name := range verdicts {
		if !slices.Contains(declared, name) {
			t.Errorf("%s is not in the source", name)
		}
	}
}

func checkVerdict(t *testing.T, name string, r *refusal, want *reason.Reason) {
	t.Helper()
	if r.reason != want {
		t.Errorf("%s is told as %s, want %s", name, r.reason.Name(), want.Name())
	}
	if r.reason.Code() == codes.Internal {
		t.Errorf("%s is INTERNAL", name)
	}
	waits := r.fault("").GetFault().GetRetryAfter().AsDuration() > 0
	if passing := want.Code() == codes.Unavailable || want.Retries(); waits != passing {
		t.Errorf("%s says when to try again: %t", name, waits)
	}
}

// TestErrorsThatWrap: what an error is about goes before what it was caused by,
// and whoever is at fault before what happened.
func TestErrorsThatWrap(t *testing.T) {
	in := func(err error) error { return &room.UnavailableError{Room: "lobby", Err: err} }
	for _, c := range []struct {
		err  error
		want *reason.Reason
	}{
		{in(fmt.Errorf("%w: input/output error", store.ErrRead)), reason.RoomUnavailable},
		{in(&store.CorruptError{Room: "lobby", Offset: 7, Detail: "the event is missing"}), reason.RoomUnavailable},
		{in(store.ErrConflict), reason.RoomUnavailable},
		{&store.CorruptError{Detail: "a session"}, reason.StoreUnavailable},
		{fmt.Errorf("%w: %w", store.ErrClosed, errors.New("commit failed")), reason.Draining},
		{&limit.Error{RetryAfter: 3 * time.Second}, reason.RateLimited},
		{context.Canceled, reason.Canceled},
		{context.DeadlineExceeded, reason.Deadline},
		{fmt.Errorf("store: read: %w", context.DeadlineExceeded), reason.Deadline},
		{errors.New("a bug"), reason.Internal},
	} {
		if got := refuse(c.err).reason; got != c.want {
			t.Errorf("%v is told as %s, want %s", c.err, got.Name(), c.want.Name())
		}
	}
}

// sentinels returns the exported errors of a package of the core, "pkg.ErrX".
func sentinels(t *testing.T, pkg string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", pkg, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				for _, id := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, pkg+"."+id.Name)
					}
				}
			}
		}
	}
	return names
}
