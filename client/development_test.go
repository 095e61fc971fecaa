package reprise

import (
	"errors"
	"strings"
	"testing"
)

func TestDevelopmentToken(t *testing.T) {
	for user, want := range map[string]string{
		"alice":                  "dev:alice",
		"josé":                   "dev:jos%C3%A9",
		"花子":                     "dev:%E8%8A%B1%E5%AD%90",
		"auth0|abc":              "dev:auth0%7Cabc",
		"50%":                    "dev:50%25",
		"a@example.com":          "dev:a@example.com",
		"":                       "",
		"jose\u0301":             "", // not composed
		"a b":                    "",
		"a\nb":                   "",
		"caf\xe9":                "",
		strings.Repeat("x", 129): "",
	} {
		got, err := DevelopmentToken(user)
		if got != want || (want == "") != errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %q, %v; want %q", user, got, err, want)
		}
	}
}
