package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/auth"
)

func TestDevelopment(t *testing.T) {
	for token, want := range map[string]struct {
		user string
		err  error
	}{
		"dev:alice":                        {"alice", nil},
		"dev:alice@example.com":            {"alice@example.com", nil},
		"dev:auth0|abc":                    {"auth0|abc", nil},
		"dev:auth0%7Cabc":                  {"auth0|abc", nil},
		"dev:%E8%8A%B1%E5%AD%90":           {"花子", nil},
		"dev:jos%C3%A9":                    {"josé", nil},
		"dev:a+b":                          {"a+b", nil},
		"dev:50%25":                        {"50%", nil},
		"dev:50%":                          {"", auth.ErrInvalid},
		"dev:%00":                          {"", auth.ErrInvalid},
		"dev:a%20b":                        {"", auth.ErrInvalid},
		"dev:jose%CC%81":                   {"", auth.ErrInvalid}, // not in its normal form
		"dev:dev:alice":                    {"dev:alice", nil},
		"dev:" + strings.Repeat("x", 128):  {strings.Repeat("x", 128), nil},
		"":                                 {"", auth.ErrMissing},
		"dev:":                             {"", auth.ErrInvalid},
		"dev":                              {"", auth.ErrInvalid},
		"alice":                            {"", auth.ErrInvalid},
		"DEV:alice":                        {"", auth.ErrInvalid},
		" dev:alice":                       {"", auth.ErrInvalid},
		"dev:al ice":                       {"", auth.ErrInvalid},
		"dev:alice\n":                      {"", auth.ErrInvalid},
		"dev:al\x00ice":                    {"", auth.ErrInvalid},
		"dev:\xff":                         {"", auth.ErrInvalid},
		"dev:" + strings.Repeat("x", 129):  {"", auth.ErrInvalid},
		"dev:" + strings.Repeat("x", 9999): {"", auth.ErrInvalid},
	} {
		id, err := auth.Identify(t.Context(), auth.Development{}, token)
		if id.User != want.user || !errors.Is(err, want.err) {
			t.Errorf("%q is %q, %v; want %q, %v", token, id.User, err, want.user, want.err)
		}
	}
}

// says is a Verifier that answers with its own text.
type says string

func (s says) Verify(context.Context, string) (auth.Identity, error) {
	return auth.Identity{User: string(s)}, nil
}

// TestIdentify: whatever a Verifier says, a user has a name.
func TestIdentify(t *testing.T) {
	for _, good := range []string{"alice", "auth0|abc", "花子"} {
		if id, err := auth.Identify(t.Context(), says(good), "t"); err != nil || id.User != good {
			t.Errorf("%q is %q, %v", good, id.User, err)
		}
	}
	for _, bad := range []string{"", "a\x00b", "a\n", strings.Repeat("x", 5000), "\xff", "a b", "jose\u0301"} {
		id, err := auth.Identify(t.Context(), says(bad), "t")
		if !errors.As(err, new(*auth.NameError)) || !errors.Is(err, auth.ErrInvalid) || id != (auth.Identity{}) {
			t.Errorf("%q is %+v, %v; want a NameError", bad, id, err)
		}
	}
}

func TestContext(t *testing.T) {
	if id := auth.FromContext(t.Context()); id != (auth.Identity{}) {
		t.Errorf("nobody is %v", id)
	}
	ctx := auth.NewContext(t.Context(), auth.Identity{User: "alice"})
	if id := auth.FromContext(ctx); id.User != "alice" {
		t.Errorf("alice is %v", id)
	}
}
