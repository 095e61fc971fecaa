package pebble

import (
	"fmt"
	"strings"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// userCounts is what the records of a user's memberships come to.
type userCounts struct{ rooms, ended uint64 }

func (c *checker) countMembership(user string, u store.UserRoom) {
	n := c.counts[user]
	if n == nil {
		n = new(userCounts)
		c.counts[strings.Clone(user)] = n
	}
	if u.Joined {
		n.rooms++
	} else {
		n.ended++
	}
}

// checkEnded compares the index of memberships that have ended with their
// records.
func (c *checker) checkEnded() error {
	_, err := c.scan([]byte{prefixEnded}, "the ended memberships of users", func(key, value []byte) {
		user, _, err := splitLengthed(key)
		var version uint64
		if err == nil {
			version, err = parseEndedKey(key, endedPrefix(user))
		}
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		record, ok := c.value(userRoomKey(user, string(value)))
		u, err := decodeUserRoom(string(value), record)
		if !ok || err != nil || u.Joined || u.Version != version {
			c.bad(key, "the index says that %q left room %q, and there is no record of it", user, value)
		}
	})
	return err
}

// checkCounts compares the counts of users with their memberships. A user whose
// memberships have not changed since format 1 has none.
func (c *checker) checkCounts() error {
	_, err := c.scan([]byte{prefixCounts}, "the counts of users", func(key, value []byte) {
		user := string(key[1:])
		n, err := decodeCounts(value)
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		if c.counts == nil {
			return
		}
		has := c.counts[user]
		if has == nil {
			has = new(userCounts)
		}
		if uint64(n.GetRooms()) != has.rooms || uint64(n.GetEnded()) != has.ended {
			c.bad(key, "user %q has %d memberships and %d that have ended, and should have %d and %d",
				user, has.rooms, has.ended, n.GetRooms(), n.GetEnded())
		}
	})
	c.counts = nil
	return err
}

// checkInvitees compares the invitations of a room with the users' own records
// of them.
func (r *checkedRoom) checkInvitees() error {
	var count uint64
	prefix := appendRoomPrefix(nil, prefixInvitee, r.number)
	whole, err := r.c.scan(prefix, fmt.Sprintf("the invitations of room %q", r.name), func(key, value []byte) {
		count++
		user := string(key[len(prefix):])
		i, err := decodeInvitation(r.name, user, value)
		if err != nil {
			r.c.bad(key, "%v", err)
			return
		}
		if i.Offset == 0 || r.whole && i.Offset > r.head {
			r.bad(i.Offset, "%q was invited at an offset that there is not; the head is %d", user, r.head)
		}
		if own, ok := r.c.value(invitedKey(user, r.name)); !ok || string(own) != string(value) {
			r.bad(i.Offset, "%q is invited, and the user's own record does not say so", user)
		}
	})
	if err != nil || !whole {
		return err
	}
	if r.tail != nil && uint64(r.tail.GetInvited()) != count {
		r.bad(0, "it has %d open invitations, and should have %d", count, r.tail.GetInvited())
	}
	return nil
}

// checkInvited compares the users' invitations with the rooms' and counts them
// by who gave them.
func (c *checker) checkInvited() error {
	c.given = make(map[string]uint64)
	whole, err := c.scan([]byte{prefixInvited}, "the invitations of users", func(key, value []byte) {
		user, name, err := splitLengthed(key)
		var i store.Invitation
		if err == nil {
			i, err = decodeInvitation(name, user, value)
		}
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		c.given[string(givenKey(user, i.By))]++
		r := c.rooms[name]
		if r == nil {
			if c.whole {
				c.found(Problem{Room: name, Detail: fmt.Sprintf("user %q is invited to it, and there is no such room", user)})
			}
			return
		}
		if listed, ok := c.value(inviteeKey(r.number, user)); !ok || string(listed) != string(value) {
			r.bad(i.Offset, "%q has an invitation to it, and the room does not list it", user)
		}
	})
	if !whole {
		c.given = nil
	}
	return err
}

// checkGiven compares the counts of invitations with the invitations.
func (c *checker) checkGiven() error {
	whole, err := c.scan([]byte{prefixGiven}, "the counts of invitations", func(key, value []byte) {
		n, err := decodeUint64(value)
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		if c.given == nil {
			return
		}
		if has := c.given[string(key)]; has != n {
			c.bad(key, "there are %d such invitations, and should be %d", has, n)
		}
		delete(c.given, string(key))
	})
	for key, n := range c.given {
		if whole {
			c.bad([]byte(key), "there are %d such invitations, and no count of them", n)
		}
	}
	c.given = nil
	return err
}

// checkEmpty compares the index of rooms without members with the rooms.
func (c *checker) checkEmpty() error {
	_, err := c.scan([]byte{prefixEmpty}, "the rooms without members", func(key, value []byte) {
		version, err := parseEmptyKey(key)
		if err != nil {
			c.bad(key, "%v", err)
			return
		}
		if version > c.version {
			c.bad(key, "its place is %d, and the newest is %d", version, c.version)
		}
		r := c.rooms[string(value)]
		if r == nil && !c.whole || r != nil && r.tailLost {
			return
		}
		if r == nil || r.tail.GetEmpty() != version {
			c.bad(key, "the index says that room %q has no members, and the room does not", value)
		}
	})
	return err
}
