package reprise

import (
	"fmt"
	"net/url"

	"golang.org/x/text/secure/precis"
)

// maxName bounds the names of users and rooms, in bytes.
const maxName = 128

// checkName checks the name of a user or a room as servers do: 1 to 128 bytes
// of UTF-8 that the profile UsernameCasePreserved of RFC 8265 leaves as they
// are. The error wraps [ErrInvalid].
func checkName(what, name string) error {
	if len(name) < 1 || len(name) > maxName {
		return fmt.Errorf("%w: %s must have 1 to %d bytes, has %d", ErrInvalid, what, maxName, len(name))
	}
	same, err := precis.UsernameCasePreserved.String(name)
	if err != nil {
		return fmt.Errorf("%w: %s %q is no name by RFC 8265: letters and digits of any script, ASCII without spaces", ErrInvalid, what, name)
	}
	if same != name {
		return fmt.Errorf("%w: %s %q is not in the form that all clients agree on: use %q", ErrInvalid, what, name, same)
	}
	return nil
}

// DevelopmentToken returns the token by which a server with the development
// identity, the default on a loopback address, takes the caller for user. Other
// servers refuse it. The name is percent-encoded in it, because metadata is
// ASCII. The error wraps [ErrInvalid] if user cannot be a name.
func DevelopmentToken(user string) (string, error) {
	if err := checkName("the user", user); err != nil {
		return "", err
	}
	return "dev:" + url.PathEscape(user), nil
}
