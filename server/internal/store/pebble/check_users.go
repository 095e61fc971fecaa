package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// splitLengthed splits a key after its first byte into the string that has its
// length in front, and the rest.
func splitLengthed(key []byte) (s, rest string, err error) {
	length, n := binary.Uvarint(key[1:])
	if n <= 0 || length > uint64(len(key)-1-n) {
		return "", "", errBadKey
	}
	b := key[1+n:]
	return string(b[:length]), string(b[length:]), nil
}

// checkUsers compares the users' records of their rooms with the rooms'.
func (c *checker) checkUsers() error {
	c.counts = make(map[string]*userCounts)
	whole, err := c.scan([]byte{prefixUserRoom}, "the rooms of users", func(key, value []byte) {
		user, name, err := splitLengthed(key)
		var u store.UserRoom
		if err == nil {
			u, err = decodeUserRoom(name, value)
		}
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		c.userRoom(user, u)
		c.countMembership(user, u)
	})
	if !whole {
		c.counts = nil
	}
	return err
}

func (c *checker) userRoom(user string, u store.UserRoom) {
	r := c.rooms[u.Room]
	if r == nil && !c.whole {
		return
	}
	if r == nil && !u.Joined {
		return // the room was removed
	}
	if r == nil {
		c.found(Problem{Room: u.Room, Detail: fmt.Sprintf("user %q has a membership of it, and there is no such room", user)})
		return
	}
	if u.Offset == 0 || r.whole && u.Joined && u.Offset > r.head { // an end may be that of a room that was removed
		r.bad(u.Offset, "the membership of %q changed at an offset that there is not; the head is %d", user, r.head)
	}
	if u.Version > c.version {
		r.bad(u.Offset, "the membership of %q has version %d, and the newest is %d", user, u.Version, c.version)
	}
	joined, ok := c.number(memberKey(r.number, user))
	switch {
	case u.Joined && (!ok || joined != u.Offset):
		r.bad(u.Offset, "%q has a membership of it, and the room does not list it", user)
	case !u.Joined && ok:
		r.bad(u.Offset, "the membership of %q has ended, and the room still lists it", user)
	}
}

// checkSessions reads the sessions and their index by user.
func (c *checker) checkSessions() error {
	_, err := c.scan([]byte{prefixSession}, "the sessions", func(key, value []byte) {
		s, err := decodeSession(string(key[1:]), value)
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		c.report.Sessions++
		c.session(key, s)
	})
	if err != nil {
		return err
	}
	_, err = c.scan([]byte{prefixSessions}, "the sessions of users", func(key, _ []byte) {
		user, rest, err := splitLengthed(key)
		var id string
		if err == nil {
			id, err = parseSessionsKey(key, sessionsPrefix(user))
		}
		if err != nil || rest == "" {
			c.bad(key, "%v", errors.Join(errBadKey, err))
			return
		}
		s, ok := c.storedSession(id)
		if !ok || string(sessionsKey(s.User, s.Created, s.ID)) != string(key) {
			c.bad(key, "the index has session %q, which there is not, or which is not this one", id)
		}
	})
	return err
}

func (c *checker) session(key []byte, s store.Session) {
	if s.Revision == 0 {
		c.bad(key, "a session without a revision")
	}
	if s.Seen > c.version {
		c.bad(key, "the session has seen version %d of memberships, and the newest is %d", s.Seen, c.version)
	}
	if s.Used > c.version {
		c.bad(key, "the session was last used at %d, and the newest change is %d", s.Used, c.version)
	}
	for _, k := range s.Keys {
		if k.Attach > s.Attach {
			c.bad(key, "a resume key of attach number %d, and the session has %d", k.Attach, s.Attach)
		}
	}
	if _, ok := c.value(sessionsKey(s.User, s.Created, s.ID)); !ok {
		c.bad(key, "the session is not in the index of %q", s.User)
	}
}

// storedSession returns a session that decodes.
func (c *checker) storedSession(id string) (s store.Session, ok bool) {
	value, ok := c.value(sessionKey(id))
	if !ok {
		return store.Session{}, false
	}
	s, err := decodeSession(id, value)
	return s, err == nil
}

// checkPositions reads the positions of sessions. Positions are what clients
// claim, and a client may hold what a lost tail or a restored copy took away, or
// what went with a room that was empty for long: one beyond the log is no damage.
// Its client will be rewound, or told that it is not in the room any more.
func (c *checker) checkPositions() error {
	var session store.Session
	var ok bool
	beyond, gone := 0, 0
	_, err := c.scan([]byte{prefixPosition}, "the positions", func(key, value []byte) {
		id, room, err := splitLengthed(key)
		var p store.Position
		if err == nil {
			p, err = decodePosition(room, value)
		}
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		c.report.Positions++
		if id != session.ID || !ok {
			session, ok = c.storedSession(strings.Clone(id))
			session.ID = id
		}
		if c.unread > c.trusted {
			return
		}
		switch {
		case !ok:
			c.bad(key, "a position of session %q, which there is not", id)
		case p.Checkpoint > session.Checkpoint:
			c.bad(key, "a position of checkpoint %d, and the session has %d", p.Checkpoint, session.Checkpoint)
		}
		switch r := c.rooms[room]; {
		case r == nil && c.whole:
			gone++
		case r != nil && r.whole && !r.reaches(p):
			beyond++
		}
	})
	if gone > 0 { // usual: rooms that have been empty for long are removed
		c.note("%d positions of sessions are of rooms that are not there any more: they are forgotten when those clients resume", gone)
	}
	if beyond > 0 {
		c.note("%d positions of sessions are not in their rooms' logs: those clients hold events of a room that was removed when it was empty and made again, or that a lost tail or a restored copy took away, and will be rewound", beyond)
	}
	return err
}

// reaches reports whether the log has come to a position.
func (r *checkedRoom) reaches(p store.Position) bool {
	if p.Offset == 0 {
		return true
	}
	end := r.head
	for i := len(r.stretches) - 1; i >= 0; i-- {
		if r.stretches[i].Incarnation == p.Incarnation {
			return p.Offset <= end
		}
		end = r.stretches[i].First - 1
	}
	return p.Incarnation == "" && p.Offset <= r.head
}
