package reprise

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
)

// Bounds that the contract gives.
const (
	maxName       = 128 // bytes of the name of a user or a room
	maxID         = 64  // characters of a client id or a type
	maxHistory    = 1000
	maxFocus      = 100
	maxTitle      = 256 // bytes
	maxAgeSeconds = 290 * 366 * 24 * 60 * 60
	maxMembers    = 100
	maxList       = 1000
	maxTailLast   = 10_000
)

// Bounds that a server may have changed, as they are if it says nothing.
const (
	defaultMessageBytes    = 64 << 10
	defaultFrameBytes      = 1 << 20
	defaultResumeBytes     = 256 << 10
	defaultResumePositions = 1000
	maxAckPositions        = 1000
)

// checkName checks the name of a user or a room as servers do: 1 to 128 bytes
// of UTF-8 that the profile UsernameCasePreserved of RFC 8265 leaves as they
// are.
func checkName(field, name string) error {
	if len(name) < 1 || len(name) > maxName {
		return invalid(field, "must have 1 to %d bytes, has %d", maxName, len(name))
	}
	same, err := precis.UsernameCasePreserved.String(name)
	if err != nil {
		return invalid(field, "%q is no name by RFC 8265: letters and digits of any script, ASCII without spaces", name)
	}
	if same != name {
		return invalid(field, "%q is not in the form that all clients agree on: use %q", name, same)
	}
	return nil
}

// checkID checks a client id or the type of a custom event.
func checkID(field, id string) error {
	if len(id) < 1 || len(id) > maxID {
		return invalid(field, "must have 1 to %d characters, has %d", maxID, len(id))
	}
	for _, c := range id {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-", c) {
			return invalid(field, `may only have A-Z a-z 0-9 and "_.:-", not %q`, c)
		}
	}
	return nil
}

// checkText checks text that is shown to people or handed to programs. A most
// of 0 is no bound.
func checkText(field, text string, least, most int) error {
	switch {
	case len(text) < least:
		return invalid(field, "must not be empty")
	case most > 0 && len(text) > most:
		return invalid(field, "must have at most %d bytes, has %d", most, len(text))
	case !utf8.ValidString(text):
		return invalid(field, "must be valid UTF-8")
	}
	return nil
}

func checkAtMost(field string, n, most uint64) error {
	if n > most {
		return invalid(field, "must be at most %d, is %d", most, n)
	}
	return nil
}

func checkNames(field string, names []string, most int) error {
	if len(names) > most {
		return invalid(field, "must have at most %d entries, has %d", most, len(names))
	}
	for i, name := range names {
		if err := checkName(fmt.Sprintf("%s[%d]", field, i), name); err != nil {
			return err
		}
	}
	return nil
}

// checkToken checks that a token can be sent: metadata is printable ASCII.
func checkToken(token string) error {
	for i := range len(token) {
		if token[i] < ' ' || token[i] > '~' {
			return invalid("token", "can only have printable ASCII characters, has byte %#x at %d", token[i], i)
		}
	}
	return nil
}

// check checks what is to be sent, within the limits of the server that spoke
// last; those that are not known are left to the server.
func (m message) check(limits *reprisev1.Limits) error {
	if err := checkName("room", m.room); err != nil {
		return err
	}
	if err := checkID("client_id", m.clientID); err != nil {
		return err
	}
	most := int(limits.GetMessageBytes())
	if !m.custom {
		return checkText("text", m.text, 1, most)
	}
	if err := checkID("type", m.typ); err != nil {
		return err
	}
	return checkText("data", m.data, 0, most)
}

// check checks a room that is to be made.
func (o CreateOptions) check(room string) error {
	if err := checkName("room", room); err != nil {
		return err
	}
	if err := checkText("title", o.Title, 0, maxTitle); err != nil {
		return err
	}
	for _, c := range o.Title {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return invalid("title", "must be one line without control characters, has %q", c)
		}
	}
	if age := o.Retention.GetMaxAge(); age != nil && (!age.IsValid() || age.AsDuration() < 0 || age.GetSeconds() > maxAgeSeconds) {
		return invalid("retention.max_age", "must be a duration from 0 to 290 years")
	}
	return checkNames("members", o.Members, maxMembers)
}

// check checks what a store has loaded: what could not be sent would be refused
// at each attempt.
func (s Saved) check() error {
	for field, text := range map[string]string{
		"session.id": s.Session.ID, "session.resume_key": s.Session.ResumeKey, "session.checkpoint": s.Session.Checkpoint,
	} {
		if err := checkText(field, text, 0, maxID); err != nil {
			return err
		}
	}
	seen := make(map[string]bool, len(s.Places))
	for _, place := range s.Places {
		p := place.Position
		field := fmt.Sprintf("position of %q", p.Room)
		if err := checkName(field, p.Room); err != nil {
			return err
		}
		if seen[p.Room] {
			return invalid(field, "is there twice")
		}
		seen[p.Room] = true
		if err := checkText(field, p.Incarnation, 0, maxID); err != nil {
			return err
		}
		for _, e := range p.Earlier {
			if err := checkText(field, e.Incarnation, 0, maxID); err != nil {
				return err
			}
		}
	}
	return nil
}
