package auth

import (
	"errors"
	"net/url"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/name"
)

// FuzzDevelopment verifies any token: it is of a user with a valid name, or of
// nobody.
func FuzzDevelopment(f *testing.F) {
	for _, token := range []string{"dev:alice", "dev:", "", "Dev:alice", "dev:dev:alice", "dev:al ice", "dev:\x00", "dev:%E8%8A%B1", "dev:%", "dev:a%2fb"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := Identify(t.Context(), Development{}, token)
		switch {
		case err != nil && (!errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMissing) || id.User != ""):
			t.Errorf("%q: %+v, %v", token, id, err)
		case err == nil && name.CheckUser(id.User) != nil:
			t.Errorf("%q is of %q", token, id.User)
		case err == nil:
			again, err := Identify(t.Context(), Development{}, "dev:"+url.PathEscape(id.User))
			if err != nil || again != id {
				t.Errorf("%q is of %q, and its encoding of %+v, %v", token, id.User, again, err)
			}
		}
	})
}
