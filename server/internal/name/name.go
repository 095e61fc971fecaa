// Package name checks what clients call things: rooms and users by names of
// any script, and everything that only programs read by plain ASCII. What is
// accepted can stand in a log line or a terminal without quoting.
package name

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// Bounds of the names, in bytes.
const (
	MaxRoom     = 128
	MaxUser     = 128
	MaxClientID = 64
	MaxInstance = 64
	MaxType     = 64
	MaxRequest  = 64
	MaxTitle    = 256
)

// Error says what is wrong with a name and what the bound is.
type Error struct {
	// Rule is the rule that is broken, as a person reads it.
	Rule string
}

func (e *Error) Error() string { return e.Rule }

// CheckRoom checks a room name: 1 to 128 bytes of UTF-8 that the profile
// UsernameCasePreserved of RFC 8265 leaves as they are.
func CheckRoom(s string) error { return checkPrecis(s, MaxRoom) }

// CheckUser checks a user id, by the same rule as a room name.
func CheckUser(s string) error { return checkPrecis(s, MaxUser) }

// CheckClientID checks an idempotency key; the empty one is valid.
func CheckClientID(s string) error { return checkPlain(s, 0, MaxClientID) }

// CheckInstance checks an instance id; the empty one is valid.
func CheckInstance(s string) error { return checkPlain(s, 0, MaxInstance) }

// CheckType checks the type of a custom event.
func CheckType(s string) error { return checkPlain(s, 1, MaxType) }

// CheckIssued checks that an id or a key has the form of those that the server
// gives out: 1 to most plain characters.
func CheckIssued(s string, most int) error { return checkPlain(s, 1, most) }

// CheckRequest checks a request id; the empty one is valid. It is only echoed,
// so any printable ASCII will do.
func CheckRequest(s string) error {
	if len(s) > MaxRequest {
		return &Error{fmt.Sprintf("must have at most %d characters, has %d", MaxRequest, len(s))}
	}
	for _, c := range s {
		if c < ' ' || c > '~' {
			return &Error{fmt.Sprintf("may only have printable ASCII characters, not %q", c)}
		}
	}
	return nil
}

// CheckTitle checks what a room is called beside its name: one line of at most
// MaxTitle bytes of UTF-8, the empty one too. Whoever shows it in a list can
// rely on its being one line.
func CheckTitle(s string) error {
	if len(s) > MaxTitle {
		return &Error{fmt.Sprintf("must have at most %d bytes, has %d", MaxTitle, len(s))}
	}
	if !utf8.ValidString(s) {
		return &Error{"must be valid UTF-8"}
	}
	for _, c := range s {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return &Error{fmt.Sprintf("must be one line without control characters, has %q", c)}
		}
	}
	return nil
}

// checkPrecis is the rule for what people call rooms and each other. A name
// must be in the form to which the profile would bring it, so that no two
// names look and compare alike and are different bytes.
func checkPrecis(s string, most int) error {
	if len(s) < 1 || len(s) > most {
		return &Error{fmt.Sprintf("must have 1 to %d bytes, has %d", most, len(s))}
	}
	if isGraphicASCII(s) {
		return nil // the profile would say so too; most names are
	}
	if !utf8.ValidString(s) {
		return &Error{"must be valid UTF-8"}
	}
	canonical, err := precis.UsernameCasePreserved.String(s)
	switch {
	case err != nil:
		return &Error{misfit(s)}
	case canonical != s:
		return &Error{fmt.Sprintf("must be in its normal form (RFC 8265), which is %q", canonical)}
	}
	return nil
}

// misfit says why the profile does not take s.
func misfit(s string) string {
	const rule = "must be a name by RFC 8265: letters and digits of any script, ASCII without spaces"
	for _, c := range s {
		if _, err := precis.UsernameCasePreserved.String(string(c)); err != nil {
			return fmt.Sprintf("%s, not %q", rule, c)
		}
	}
	return rule + "; one that is not ASCII begins with a letter, ends with a letter or a digit, and reads in one direction"
}

// isGraphicASCII reports whether s has nothing but the characters from ! to ~.
func isGraphicASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func checkPlain(s string, least, most int) error {
	if len(s) < least || len(s) > most {
		return &Error{fmt.Sprintf("must have %d to %d characters, has %d", least, most, len(s))}
	}
	for _, c := range s { // a byte that is not UTF-8 comes as U+FFFD
		if !plain(c) {
			return &Error{fmt.Sprintf(`may only have A-Z a-z 0-9 and "_.:-", not %q`, c)}
		}
	}
	return nil
}

func plain(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == ':' || c == '-'
}
