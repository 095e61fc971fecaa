// Package auth says who a caller is.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/reprise-chat/reprise/server/internal/name"
)

// Errors that a Verifier returns, possibly wrapped.
var (
	// ErrMissing: there is no token.
	ErrMissing = errors.New("auth: no token")
	// ErrInvalid: the token is not valid.
	ErrInvalid = errors.New("auth: invalid token")
)

// Identity is a verified caller.
type Identity struct {
	// User is the name that rooms and sessions know the caller by.
	User string
}

// NameError says that a token is good and that the user it names cannot be one.
// It wraps ErrInvalid.
type NameError struct {
	// Rule is what a user id must be and this one is not.
	Rule string
}

func (e *NameError) Error() string { return "auth: the user id of the token " + e.Rule }

// Unwrap returns ErrInvalid.
func (e *NameError) Unwrap() error { return ErrInvalid }

// Verifier verifies bearer tokens. Implementations are safe for concurrent
// use.
type Verifier interface {
	// Verify returns whose token it is, or an error that wraps ErrMissing or
	// ErrInvalid if it is nobody's. The token comes without "Bearer ".
	Verify(ctx context.Context, token string) (Identity, error)
}

// Identify returns whose token it is. Whatever the Verifier says goes through
// here: a user id is a name by the rule of package name, or the token is
// refused with a *NameError.
func Identify(ctx context.Context, v Verifier, token string) (Identity, error) {
	id, err := v.Verify(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	if err := name.CheckUser(id.User); err != nil {
		return Identity{}, &NameError{Rule: err.Error()}
	}
	return id, nil
}

// Development accepts the token "dev:NAME" from anybody as user NAME. NAME is
// percent-encoded, because metadata is ASCII: url.PathEscape, or
// encodeURIComponent. It is for servers that only their own machine can reach.
type Development struct{}

// Verify implements Verifier.
func (Development) Verify(_ context.Context, token string) (Identity, error) {
	if token == "" {
		return Identity{}, ErrMissing
	}
	encoded, ok := strings.CutPrefix(token, "dev:")
	if !ok {
		return Identity{}, ErrInvalid
	}
	user, err := url.PathUnescape(encoded)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Identity{User: user}, nil
}

type key struct{}

// NewContext returns ctx with the identity of the caller.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, key{}, id)
}

// FromContext returns the identity of the caller, the zero one if there is
// none.
func FromContext(ctx context.Context) Identity {
	id, _ := ctx.Value(key{}).(Identity)
	return id
}
