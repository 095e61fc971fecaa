package reprise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzPositionFile reads any bytes as a position file: a session and places, or
// an error that names the file; never a panic, and the file is left as it was.
func FuzzPositionFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"session":{"id":"s_1","resume_key":"rk_1"},"places":[{"position":{"room":"r","incarnation":"i_1","offset":7}}]}` + "\n"))
	f.Add([]byte(`{"version":1,"places":[{"position":{"room":"r","offset":18446744073709551615}},{"position":{"room":"r","offset":3},"moved":true}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "positions")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := OpenFile(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%v: which file?", err)
			}
			return
		}
		saved, err := store.Load(t.Context())
		if err != nil {
			t.Errorf("Load: %v", err)
		}
		rooms := make(map[string]bool)
		for _, p := range saved.Places {
			if rooms[p.Position.Room] {
				t.Errorf("two places in room %q", p.Position.Room)
			}
			rooms[p.Position.Room] = true
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(b) {
			t.Errorf("the file was changed to %q, %v", after, err)
		}
	})
}
