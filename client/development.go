package reprise

import "net/url"

// DevelopmentToken returns the token by which a server with the development
// identity, the default on a loopback address, takes the caller for user. Other
// servers refuse it. The name is percent-encoded in it, because metadata is
// ASCII. The error is [ErrInvalid] if user cannot be a name.
func DevelopmentToken(user string) (string, error) {
	if err := checkName("user", user); err != nil {
		return "", err
	}
	return "dev:" + url.PathEscape(user), nil
}
