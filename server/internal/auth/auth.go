// Package auth says who a caller is.
package auth

import (
	"context"
	"errors"
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

// Verifier verifies bearer tokens. Implementations are safe for concurrent
// use.
type Verifier interface {
	// Verify returns whose token it is, or an error that wraps ErrMissing or
	// ErrInvalid if it is nobody's. The token comes without "Bearer ".
	Verify(ctx context.Context, token string) (Identity, error)
}

// Development accepts the token "dev:NAME" from anybody as user NAME. It is for
// servers that only their own machine can reach.
type Development struct{}

// Verify implements Verifier.
func (Development) Verify(_ context.Context, token string) (Identity, error) {
	if token == "" {
		return Identity{}, ErrMissing
	}
	user, ok := strings.CutPrefix(token, "dev:")
	if !ok || name.CheckUser(user) != nil {
		return Identity{}, ErrInvalid
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
