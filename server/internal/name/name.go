// Package name checks the names that clients give: of rooms, users, client ids
// and so on. They are short runs of plain characters, so that they can stand
// in a log line, a key or a terminal without quoting.
package name

import (
	"fmt"
	"strings"
)

// Bounds of the names, in bytes.
const (
	MaxRoom     = 128
	MaxUser     = 128
	MaxClientID = 64
	MaxInstance = 64
	MaxType     = 64
	MaxRequest  = 64
)

// Error says what is wrong with a name and what the bound is.
type Error struct {
	// Rule is the rule that is broken, as a person reads it.
	Rule string
}

func (e *Error) Error() string { return e.Rule }

// CheckRoom checks a room name.
func CheckRoom(s string) error { return check(s, 1, MaxRoom, "") }

// CheckUser checks a user name.
func CheckUser(s string) error { return check(s, 1, MaxUser, "@") }

// CheckClientID checks an idempotency key; the empty one is valid.
func CheckClientID(s string) error { return check(s, 0, MaxClientID, "") }

// CheckInstance checks an instance id; the empty one is valid.
func CheckInstance(s string) error { return check(s, 0, MaxInstance, "") }

// CheckType checks the type of a custom event.
func CheckType(s string) error { return check(s, 1, MaxType, "") }

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

func check(s string, minLen, maxLen int, extra string) error {
	if len(s) < minLen || len(s) > maxLen {
		return &Error{fmt.Sprintf("must have %d to %d characters, has %d", minLen, maxLen, len(s))}
	}
	for _, c := range s { // a byte that is not UTF-8 comes as U+FFFD
		if !plain(c) && !strings.ContainsRune(extra, c) {
			return &Error{fmt.Sprintf(`may only have A-Z a-z 0-9 and "_.:-%s", not %q`, extra, c)}
		}
	}
	return nil
}

func plain(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == ':' || c == '-'
}
