package session

import (
	"errors"
	"strings"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

func TestKey(t *testing.T) {
	key := newKey("alice")
	if again := newKey("alice"); again == key {
		t.Fatal("two keys are the same")
	}
	for what, c := range map[string]struct {
		key, user string
		want      error
	}{
		"own":                {key, "alice", nil},
		"of another user":    {key, "bob", ErrKeyNotYours},
		"of a longer name":   {key, "alice2", ErrKeyNotYours},
		"of nobody":          {key, "", ErrKeyNotYours},
		"made up":            {keyPrefix + strings.Repeat("A", keyLen-3), "alice", ErrKeyNotYours},
		"empty":              {"", "alice", ErrKeyMalformed},
		"prefix only":        {keyPrefix, "alice", ErrKeyMalformed},
		"another prefix":     {"xk_" + key[3:], "alice", ErrKeyMalformed},
		"cut off":            {key[:len(key)-1], "alice", ErrKeyMalformed},
		"longer":             {key + "A", "alice", ErrKeyMalformed},
		"padded":             {key[:len(key)-1] + "=", "alice", ErrKeyMalformed},
		"another alphabet":   {key[:10] + "+" + key[11:], "alice", ErrKeyMalformed},
		"only line breaks":   {keyPrefix + strings.Repeat("\n", keyLen-3), "alice", ErrKeyMalformed},
		"with a line break":  {key[:10] + "\n" + key[11:], "alice", ErrKeyMalformed},
		"not quite that one": {key[:20] + string("AB"[strings.Count(key[20:21], "A")]) + key[21:], "alice", ErrKeyNotYours},
		"bits to spare":      {key[:len(key)-1] + "B", "alice", ErrKeyMalformed},
	} {
		if err := CheckKey(c.key, c.user); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", what, err, c.want)
		}
	}
}

// attaches is a session whose client gets or loses each Welcome.
type attaches struct {
	keys   []store.Key
	minted []string
}

func (a *attaches) attach(present string) bool {
	rest, ok := prove(a.keys, present)
	if !ok {
		return false
	}
	a.mint(rest)
	return true
}

func (a *attaches) mint(rest []store.Key) {
	key := newKey("alice")
	a.minted = append(a.minted, key)
	a.keys = mint(rest, key, uint64(len(a.minted)), 0)
}

// TestKeyLostWelcomes: the key one holds works however many Welcomes in a row
// are lost, and each key minted since is good until a newer one is proven.
func TestKeyLostWelcomes(t *testing.T) {
	var a attaches
	a.mint(nil)
	held := a.minted[0]
	for lost := range 20 {
		if !a.attach(held) {
			t.Fatalf("locked out after %d lost Welcomes", lost)
		}
		if len(a.keys) > maxKeys {
			t.Fatalf("%d keys are valid", len(a.keys))
		}
	}
	// The newest maxKeys-1 that were minted since work too; those between are
	// the bound's victims.
	for i, key := range a.minted[1:] {
		_, ok := prove(a.keys, key)
		if want := i >= len(a.minted)-1-(maxKeys-1); ok != want {
			t.Errorf("key %d of %d: valid is %t", i+1, len(a.minted), ok)
		}
	}
}

// TestKeyTwoLostWelcomes is the case that clients meet: two in a row, and then
// one arrives.
func TestKeyTwoLostWelcomes(t *testing.T) {
	var a attaches
	a.mint(nil)
	held := a.minted[0]
	for range 2 {
		if !a.attach(held) {
			t.Fatal("locked out")
		}
	}
	if !a.attach(held) { // this Welcome arrives
		t.Fatal("locked out")
	}
	newest := a.minted[3]
	if !a.attach(newest) {
		t.Fatal("the newest key is refused")
	}
	for _, stale := range []string{held, a.minted[1], a.minted[2]} {
		if _, ok := prove(a.keys, stale); ok {
			t.Error("a key older than the last one proven is taken")
		}
	}
	if _, ok := prove(a.keys, newest); !ok {
		t.Error("the last key proven is stale")
	}
}

func TestSessionIDs(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := newID()
		if !strings.HasPrefix(id, "s_") || len(id) != 18 || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}

// FuzzResumeKey: only what newKey makes is taken, and only for its user.
func FuzzResumeKey(f *testing.F) {
	const known = "rk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AAAAAAAAAAA"
	f.Add(known, "alice")
	f.Add("rk_", "alice")
	f.Add("", "")
	f.Add("rk_"+strings.Repeat("\r\n", 27), "alice")
	f.Add(strings.Repeat("\xff", keyLen), "bob")
	f.Fuzz(func(t *testing.T, key, user string) {
		if err := CheckKey(key, user); err == nil && len(key) != keyLen {
			t.Fatalf("%q is taken", key)
		} else if err != nil && !errors.Is(err, ErrKeyMalformed) && !errors.Is(err, ErrKeyNotYours) {
			t.Fatal(err)
		}
		mine := newKey(user)
		if err := CheckKey(mine, user); err != nil {
			t.Fatalf("own key: %v", err)
		}
		if err := CheckKey(mine, user+key); key != "" && !errors.Is(err, ErrKeyNotYours) {
			t.Fatalf("another user's key: %v", err)
		}
	})
}
