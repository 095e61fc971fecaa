// Package place keeps the places of this machine's chats: one file for each
// chat that is open at the same time, by server and user.
package place

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	reprise "github.com/reprise-chat/reprise/client"
)

// maxChats bounds how many chats of one user with one server have places on
// this machine. It is the server's own limit of sessions a user.
const maxChats = 32

// ErrTooMany says that as many chats of the user are open as may be.
var ErrTooMany = errors.New("too many chats are open")

// Dir returns where places are kept: below $XDG_STATE_HOME, or
// ~/.local/state.
func Dir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "reprise"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("neither $XDG_STATE_HOME nor $HOME says where to keep the chat's place: set one")
	}
	return filepath.Join(home, ".local", "state", "reprise"), nil
}

// maxElement bounds a name in a path; most file systems take 255 bytes.
const maxElement = 200

// element makes a name one element of a path, whatever it is: neither "." nor
// "..", and not longer than file systems take.
func element(name string) string {
	s := url.PathEscape(name)
	switch {
	case len(s) > maxElement:
		return fmt.Sprintf("%%%x", sha256.Sum256([]byte(name)))
	case strings.Trim(s, ".") == "":
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return s
}

// Open returns the first place of user on server, below dir, that no running
// chat has. So a chat that is opened again goes on where it was closed, and a
// second one at the same time has a place of its own, which it too finds
// again. Close the store.
func Open(dir, server, user string) (*reprise.FileStore, error) {
	dir = filepath.Join(dir, element(server), element(user))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep the chat's place: %w", err)
	}
	for n := 1; n <= maxChats; n++ {
		file := filepath.Join(dir, fmt.Sprintf("%d.json", n))
		store, err := reprise.OpenFile(file)
		if !errors.Is(err, reprise.ErrStoreLocked) {
			return store, err
		}
	}
	return nil, fmt.Errorf("%w: %d of %s: close one", ErrTooMany, maxChats, user)
}
