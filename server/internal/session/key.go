package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"strings"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// A resume key is "rk_" and the base64url of a secret of 256 random bits and
// a tag of 8 bytes. The tag ties the key to its user without any record: a key
// that somebody else's client presents is recognised as such whether or not
// the session it came from exists, so the answer tells a stranger nothing.
const (
	keyPrefix = "rk_"
	secretLen = 32
	tagLen    = 8
)

// maxKeys bounds how many resume keys of a session are valid at once: the last
// one proven and those minted since, for Welcomes that were lost in a row.
const maxKeys = 8

var keyEncoding = base64.RawURLEncoding.Strict()

// keyLen is the length of every resume key.
var keyLen = len(keyPrefix) + keyEncoding.EncodedLen(secretLen+tagLen)

// newKey mints a resume key for user.
func newKey(user string) string {
	secret := make([]byte, secretLen, secretLen+tagLen)
	_, _ = rand.Read(secret) // never fails; see crypto/rand
	return keyPrefix + keyEncoding.EncodeToString(append(secret, keyTag(secret, user)...))
}

func keyTag(secret []byte, user string) []byte {
	h := sha256.New()
	h.Write([]byte("reprise resume key\x00"))
	h.Write(secret)
	h.Write([]byte(user))
	return h.Sum(nil)[:tagLen]
}

// CheckKey returns nil if key was minted for user, ErrKeyMalformed if it is no
// resume key at all, and ErrKeyNotYours if it is another user's.
func CheckKey(key, user string) error {
	if len(key) != keyLen || !strings.HasPrefix(key, keyPrefix) {
		return ErrKeyMalformed
	}
	raw, err := keyEncoding.DecodeString(key[len(keyPrefix):])
	if err != nil || len(raw) != secretLen+tagLen { // line breaks do not count
		return ErrKeyMalformed
	}
	if subtle.ConstantTimeCompare(raw[secretLen:], keyTag(raw[:secretLen], user)) != 1 {
		return ErrKeyNotYours
	}
	return nil
}

func hashKey(key string) [32]byte { return sha256.Sum256([]byte(key)) }

// prove returns the keys that stay valid when key has been presented: itself
// and those minted after it. ok is false if the key is not among them: stale.
func prove(keys []store.Key, key string) (rest []store.Key, ok bool) {
	h := hashKey(key)
	found := -1
	for i := range keys { // no early exit: the time does not tell which one
		if subtle.ConstantTimeCompare(keys[i].Hash[:], h[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return nil, false
	}
	return keys[found:], true
}

// mint appends the hash of a new key for attach, whose Welcome tells the
// memberships up to version seen. At the bound the oldest key
// minted since the proven one goes: the proven one is known to be held.
func mint(keys []store.Key, key string, attach, seen uint64) []store.Key {
	out := make([]store.Key, 0, maxKeys)
	if n := len(keys); n >= maxKeys {
		out = append(out, keys[0])
		keys = keys[n-maxKeys+2:]
	}
	out = append(out, keys...)
	return append(out, store.Key{Hash: hashKey(key), Attach: attach, Told: seen + 1})
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID mints a session id: "s_" and 16 characters, 80 random bits.
func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return "s_" + idEncoding.EncodeToString(b[:])
}
