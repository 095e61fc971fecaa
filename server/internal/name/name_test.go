package name_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/secure/precis"

	"github.com/reprise-chat/reprise/server/internal/name"
)

// TestNames checks the rule for rooms and users (DESIGN §7): the forms of
// subjects that providers give are names, and what could mislead a reader is
// none.
func TestNames(t *testing.T) {
	good := []string{
		"a", strings.Repeat("x", 128), strings.Repeat("é", 64), "AZaz09_.:-", "auth0|abc", "alice@example.com",
		"google-oauth2|108204", "https://issuer.example/users/7", "a/b", "50%", "!~", `"`, "it's",
		"花子", "josé", "Ωμέγα", "Яна", "दे", "משה", "\u0641\u0631\u062d",
	}
	bad := map[string]string{
		"":                       "must have 1 to 128 bytes, has 0",
		strings.Repeat("x", 129): "must have 1 to 128 bytes, has 129",
		strings.Repeat("é", 65):  "must have 1 to 128 bytes, has 130",
		"a\xff":                  "must be valid UTF-8",
		"caf\xe9":                "must be valid UTF-8",
		"a b":                    "without spaces, not ' '",
		"a\x00":                  `not '\x00'`,
		"a\n":                    `not '\n'`,
		"a\x1b[2J":               `not '\x1b'`,
		"a\x7f":                  `not '\x7f'`,
		"a\u200bb":               `not '\u200b'`, // zero width
		"a\u202eb":               `not '\u202e'`, // writes backwards
		"a\u00a0b":               `not '\u00a0'`,
		"jose\u0301":             `must be in its normal form (RFC 8265), which is "josé"`,
		"ａｌｉｃｅ":                  `must be in its normal form (RFC 8265), which is "alice"`,
		"ﬁ":                      `not 'ﬁ'`, // a compatibility character
		"広場%":                    "ends with a letter or a digit",
		"♞":                      `not '♞'`,
		"a\u05d0b":               "reads in one direction",
	}
	for what, check := range map[string]func(string) error{"room": name.CheckRoom, "user": name.CheckUser} {
		for _, s := range good {
			if err := check(s); err != nil {
				t.Errorf("%s %q is refused: %v", what, s, err)
			}
		}
		for s, want := range bad {
			err := check(s)
			if !errors.As(err, new(*name.Error)) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: %v; want an Error with %q", what, s, err, want)
			}
		}
	}
}

// TestPlain checks what only programs read.
func TestPlain(t *testing.T) {
	const plain = "AZaz09_.:-"
	for what, c := range map[string]struct {
		check       func(string) error
		least, most int
		extra       string
	}{
		"client id": {name.CheckClientID, 0, 64, ""},
		"instance":  {name.CheckInstance, 0, 64, ""},
		"type":      {name.CheckType, 1, 64, ""},
		"issued":    {func(s string) error { return name.CheckIssued(s, 64) }, 1, 64, ""},
		"request":   {name.CheckRequest, 0, 64, " !~@/\""},
	} {
		for _, good := range []string{plain, strings.Repeat("x", c.most), strings.Repeat("x", c.least), plain + c.extra} {
			if err := c.check(good); err != nil {
				t.Errorf("%s: %q is refused: %v", what, good, err)
			}
		}
		bad := []string{strings.Repeat("x", c.most+1), "a\x00", "a\n", "a\x1b[2J", "a\x7f", "caf\u00e9", "a\u202eb", "\xff"}
		if c.least > 0 {
			bad = append(bad, "")
		}
		if c.extra == "" {
			bad = append(bad, "a b", "a@b", "a/b", "a|b")
		}
		for _, s := range bad {
			if err := c.check(s); !errors.As(err, new(*name.Error)) {
				t.Errorf("%s: %q is not refused with an Error: %v", what, s, err)
			}
		}
	}
	if err, want := name.CheckType("a b"), `may only have A-Z a-z 0-9 and "_.:-", not ' '`; err == nil || err.Error() != want {
		t.Errorf("%v, not %s", err, want)
	}
}

// FuzzCheck: what is accepted can stand anywhere, and what is refused is
// refused with words that can. A name is what the profile says it is.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"lobby", "a\x1b[2J", "\xff", "auth0|abc", "花子", "jose\u0301", "a\u05d0", "a\u200db", "\u0660\u06f0", "l\u00b7l"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		issued := func(s string) error { return name.CheckIssued(s, 64) }
		for _, check := range []func(string) error{name.CheckRoom, name.CheckUser, name.CheckClientID, name.CheckInstance, name.CheckType, name.CheckRequest, issued} {
			said := s
			if err := check(s); err != nil {
				said = err.Error()
			} else if len(s) > 128 {
				t.Fatalf("%d bytes are accepted", len(s))
			}
			if strings.ContainsFunc(said, unicode.IsControl) || strings.ToValidUTF8(said, "") != said {
				t.Fatalf("%q", said)
			}
		}
		if len(s) > 1024 {
			return // the profile takes its time
		}
		same, err := precis.UsernameCasePreserved.String(s)
		want := err == nil && same == s && len(s) >= 1 && len(s) <= 128 && strings.ToValidUTF8(s, "") == s
		if err := name.CheckUser(s); (err == nil) != want {
			t.Fatalf("%q: %v, and the profile says %t", s, err, want)
		}
	})
}
