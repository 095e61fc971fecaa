package pebble

import (
	"encoding/binary"
	"errors"
	"time"
)

// The first byte of a key says what it is; see the package comment. Numbers
// are big-endian and fixed-width, so that byte order is number order. A string
// that is followed by another one carries its length in front, so that no two
// pairs of strings, whatever bytes they have, share a key; the last string of a
// key stands as it is, so that it sorts in byte order.
const (
	prefixStore    = 'a'
	prefixClientID = 'c'
	prefixEnded    = 'd'
	prefixEvent    = 'e'
	prefixGiven    = 'g'
	prefixStretch  = 'i'
	prefixInvited  = 'j'
	prefixInvitee  = 'k'
	prefixMember   = 'm'
	prefixCounts   = 'n'
	prefixPosition = 'p'
	prefixRoom     = 'r'
	prefixSession  = 's'
	prefixTail     = 't'
	prefixUserRoom = 'u'
	prefixSessions = 'x'
	prefixEmpty    = 'z'
)

// Keys of the store itself.
var (
	keyFormat   = []byte{prefixStore, 'f'}
	keyLastRoom = []byte{prefixStore, 'r'}
	keyVersion  = []byte{prefixStore, 'v'}
	keyClock    = []byte{prefixStore, 'c'}
)

// eventKeyLen is the length of the key of an event.
const eventKeyLen = 1 + 8 + 8

var errBadKey = errors.New("malformed key")

func appendLengthed(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendRoomPrefix is the beginning of the keys of one kind and one room.
func appendRoomPrefix(b []byte, kind byte, room uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), room)
}

func appendEventKey(b []byte, room, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(appendRoomPrefix(b, prefixEvent, room), offset)
}

func eventKey(room, offset uint64) []byte {
	return appendEventKey(make([]byte, 0, eventKeyLen), room, offset)
}

func parseEventKey(k []byte) (room, offset uint64, err error) {
	return parseNumbers(k, prefixEvent)
}

func stretchKey(room, first uint64) []byte {
	return binary.BigEndian.AppendUint64(appendRoomPrefix(nil, prefixStretch, room), first)
}

func parseStretchKey(k []byte) (room, first uint64, err error) {
	return parseNumbers(k, prefixStretch)
}

func parseNumbers(k []byte, kind byte) (a, b uint64, err error) {
	if len(k) != eventKeyLen || k[0] != kind {
		return 0, 0, errBadKey
	}
	return binary.BigEndian.Uint64(k[1:]), binary.BigEndian.Uint64(k[9:]), nil
}

func appendClientIDKey(b []byte, room uint64, sender, clientID string) []byte {
	b = appendLengthed(appendRoomPrefix(b, prefixClientID, room), sender)
	return append(b, clientID...)
}

func tailKey(room uint64) []byte { return appendRoomPrefix(nil, prefixTail, room) }

func memberKey(room uint64, user string) []byte {
	return append(appendRoomPrefix(nil, prefixMember, room), user...)
}

func parseMemberKey(k []byte) (user string, err error) {
	if len(k) < 9 || k[0] != prefixMember {
		return "", errBadKey
	}
	return string(k[9:]), nil
}

func roomKey(name string) []byte { return append([]byte{prefixRoom}, name...) }

func userRoomPrefix(user string) []byte { return appendLengthed([]byte{prefixUserRoom}, user) }

func userRoomKey(user, room string) []byte { return append(userRoomPrefix(user), room...) }

func countsKey(user string) []byte { return append([]byte{prefixCounts}, user...) }

func endedPrefix(user string) []byte { return appendLengthed([]byte{prefixEnded}, user) }

// endedKey puts the memberships of a user that have ended in the order of
// their ends.
func endedKey(user string, version uint64) []byte {
	return binary.BigEndian.AppendUint64(endedPrefix(user), version)
}

func parseEndedKey(k, prefix []byte) (version uint64, err error) {
	if len(k) != len(prefix)+8 {
		return 0, errBadKey
	}
	return binary.BigEndian.Uint64(k[len(prefix):]), nil
}

func invitedPrefix(user string) []byte { return appendLengthed([]byte{prefixInvited}, user) }

func invitedKey(user, room string) []byte { return append(invitedPrefix(user), room...) }

func inviteeKey(room uint64, user string) []byte {
	return append(appendRoomPrefix(nil, prefixInvitee, room), user...)
}

func givenKey(user, by string) []byte {
	return append(appendLengthed([]byte{prefixGiven}, user), by...)
}

func emptyKey(version uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixEmpty}, version)
}

func parseEmptyKey(k []byte) (version uint64, err error) {
	if len(k) != 9 || k[0] != prefixEmpty {
		return 0, errBadKey
	}
	return binary.BigEndian.Uint64(k[1:]), nil
}

func sessionKey(id string) []byte { return append([]byte{prefixSession}, id...) }

func positionPrefix(id string) []byte { return appendLengthed([]byte{prefixPosition}, id) }

func positionKey(id, room string) []byte { return append(positionPrefix(id), room...) }

func sessionsPrefix(user string) []byte { return appendLengthed([]byte{prefixSessions}, user) }

// sessionsKey puts the sessions of a user in the order of their creation.
func sessionsKey(user string, created time.Time, id string) []byte {
	k := sessionsPrefix(user)
	// The sign bit is flipped so that times before 1970, the zero time among
	// them, sort before the others.
	k = binary.BigEndian.AppendUint64(k, uint64(created.Unix())^1<<63)
	k = binary.BigEndian.AppendUint32(k, uint32(created.Nanosecond()))
	return append(k, id...)
}

// parseSessionsKey returns the session id of a key that begins with prefix.
func parseSessionsKey(k, prefix []byte) (id string, err error) {
	if len(k) < len(prefix)+12 {
		return "", errBadKey
	}
	return string(k[len(prefix)+12:]), nil
}

// prefixEnd returns the first key after all keys that begin with prefix. The
// first byte of a prefix is a letter, so there always is one.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// keyAfter returns the first key after k.
func keyAfter(k []byte) []byte { return append(k, 0) }
