package auth

import (
	"errors"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/name"
)

// FuzzDevelopment verifies any token: it is of a user with a valid name, or of
// nobody.
func FuzzDevelopment(f *testing.F) {
	for _, token := range []string{"dev:alice", "dev:", "", "Dev:alice", "dev:dev:alice", "dev:al ice", "dev:\x00"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := Development{}.Verify(t.Context(), token)
		switch {
		case err != nil && (!errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMissing) || id.User != ""):
			t.Errorf("%q: %+v, %v", token, id, err)
		case err == nil && (name.CheckUser(id.User) != nil || token != "dev:"+id.User):
			t.Errorf("%q is of %q", token, id.User)
		}
	})
}
