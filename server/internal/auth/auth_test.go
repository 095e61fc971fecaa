package auth_test

import (
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
		id, err := auth.Development{}.Verify(t.Context(), token)
		if id.User != want.user || !errors.Is(err, want.err) {
			t.Errorf("%q is %q, %v; want %q, %v", token, id.User, err, want.user, want.err)
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
