package name_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/name"
)

const plain = "AZaz09_.:-"

func TestBounds(t *testing.T) {
	for what, c := range map[string]struct {
		check       func(string) error
		least, most int
		extra       string
	}{
		"room":      {name.CheckRoom, 1, 128, ""},
		"user":      {name.CheckUser, 1, 128, "@"},
		"client id": {name.CheckClientID, 0, 64, ""},
		"instance":  {name.CheckInstance, 0, 64, ""},
		"type":      {name.CheckType, 1, 64, ""},
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
			bad = append(bad, "a b", "a@b", "a/b")
		}
		for _, s := range bad {
			if err := c.check(s); !errors.As(err, new(*name.Error)) {
				t.Errorf("%s: %q is not refused with an Error: %v", what, s, err)
			}
		}
	}
}

// TestRule checks that the message names the bound or the character.
func TestRule(t *testing.T) {
	for s, want := range map[string]string{
		"":                       "must have 1 to 128 characters, has 0",
		strings.Repeat("x", 200): "must have 1 to 128 characters, has 200",
		"a b":                    `may only have A-Z a-z 0-9 and "_.:-", not ' '`,
		"a\x1b":                  `may only have A-Z a-z 0-9 and "_.:-", not '\x1b'`,
		"caf\u00e9":              "may only have A-Z a-z 0-9 and \"_.:-\", not '\u00e9'",
		"a\xff":                  "may only have A-Z a-z 0-9 and \"_.:-\", not '\ufffd'",
	} {
		if err := name.CheckRoom(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v, not %s", s, err, want)
		}
	}
}

// FuzzCheck: what is accepted can stand anywhere, and what is refused is
// refused with words that can.
func FuzzCheck(f *testing.F) {
	f.Add("lobby")
	f.Add("a\x1b[2J")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, check := range []func(string) error{name.CheckRoom, name.CheckUser, name.CheckClientID, name.CheckInstance, name.CheckType, name.CheckRequest} {
			said := s
			if err := check(s); err != nil {
				said = err.Error()
			} else if len(s) > 128 {
				t.Fatalf("%d bytes are accepted", len(s))
			}
			if strings.ContainsFunc(said, func(c rune) bool { return c < ' ' || c == 0x7f }) || strings.ToValidUTF8(said, "") != said {
				t.Fatalf("%q", said)
			}
		}
	})
}
