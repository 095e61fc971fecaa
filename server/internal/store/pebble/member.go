package pebble

import (
	"slices"
	"strings"

	storev1 "github.com/reprise-chat/reprise/gen/reprise/store/v1"
	"github.com/reprise-chat/reprise/server/internal/store"
)

// load makes sure that small has a record.
func (b *batch) load(key []byte) error {
	if _, known := b.small[string(key)]; known {
		return nil
	}
	value, ok, err := get(b.c.s.db, key)
	if err != nil {
		return err
	}
	if !ok {
		value = nil
	} else if value == nil {
		value = []byte{}
	}
	b.note(key, value)
	return nil
}

// have returns a record that was loaded; nil if there is none.
func (b *batch) have(key []byte) []byte { return b.small[string(key)] }

// keep writes a record of which later writes of the batch have to know.
func (b *batch) keep(key, value []byte) {
	b.note(key, value)
	b.set(key, value)
}

// drop deletes one.
func (b *batch) drop(key []byte) {
	b.note(key, nil)
	b.delete(key)
}

func (b *batch) note(key, value []byte) {
	if b.small == nil {
		b.small = make(map[string][]byte)
	}
	b.small[string(key)] = value
}

// readMembership loads the records that a change of a membership reads and
// replaces.
func (b *batch) readMembership(r *room, m *store.MemberChange) error {
	number := r.truth.number // 0: the room is about to be made, and has neither members nor invitations
	keys := [][]byte{memberKey(number, m.User), inviteeKey(number, m.User)}
	if m.Invited {
		keys = append(keys, givenKey(m.User, m.By))
	} else {
		keys = append(keys, userRoomKey(m.User, r.name), countsKey(m.User))
	}
	for _, key := range keys {
		if err := b.load(key); err != nil {
			return err
		}
	}
	if value := b.have(inviteeKey(number, m.User)); value != nil && m.Joined {
		i, err := decodeInvitation(r.name, m.User, value)
		if err != nil {
			return badRecord(inviteeKey(number, m.User), err)
		}
		if err := b.load(givenKey(m.User, i.By)); err != nil {
			return err
		}
	}
	if m.Invited {
		return nil
	}
	return b.readCounts(m.User)
}

// readCounts makes the counts of a user whose memberships have not changed
// since format 1, and makes place for one more that has ended.
func (b *batch) readCounts(user string) error {
	key := countsKey(user)
	if b.have(key) == nil {
		if err := b.countAnew(user); err != nil {
			return err
		}
	}
	c, err := decodeCounts(b.have(key))
	if err != nil {
		return badRecord(key, err)
	}
	if c.GetEnded() < store.MaxEnded {
		return nil
	}
	return b.forgetEnded(user, c)
}

// countAnew reads every membership of a user and makes its counts and the index
// of what has ended.
func (b *batch) countAnew(user string) error {
	prefix := userRoomPrefix(user)
	var ended []store.UserRoom
	c := new(storev1.UserCounts)
	err := scan(b.c.s.db, prefix, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		u, err := decodeUserRoom(strings.Clone(string(key[len(prefix):])), value)
		switch {
		case err != nil:
			return false, badRecord(key, err)
		case u.Joined:
			c.Rooms++
		default:
			ended = append(ended, u)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(ended, func(p, q store.UserRoom) int { return -compareVersions(p, q) })
	for i, u := range ended {
		if i >= store.MaxEnded {
			b.drop(userRoomKey(user, u.Room))
			continue
		}
		b.keep(endedKey(user, u.Version), []byte(u.Room))
		c.Ended++
		c.Floor = u.Version
	}
	b.keep(countsKey(user), encode(c))
	return nil
}

func compareVersions(p, q store.UserRoom) int {
	switch {
	case p.Version < q.Version:
		return -1
	case p.Version > q.Version:
		return 1
	}
	return 0
}

// forgetEnded removes the oldest memberships that have ended, so that one more
// has place. The floor keeps the search from walking over what was removed.
func (b *batch) forgetEnded(user string, c *storev1.UserCounts) error {
	prefix := endedPrefix(user)
	from := endedKey(user, c.GetFloor())
	err := scan(b.c.s.db, from, prefixEnd(prefix), func(key, value []byte) (bool, error) {
		version, err := parseEndedKey(key, prefix)
		if err != nil {
			return false, badRecord(key, err)
		}
		if now, known := b.small[string(key)]; known && now == nil {
			return true, nil // began again in this batch
		}
		b.drop(slices.Clone(key))
		b.drop(userRoomKey(user, string(value)))
		c.Ended--
		c.Floor = version + 1
		return c.GetEnded() >= store.MaxEnded, nil
	})
	if err != nil {
		return err
	}
	b.keep(countsKey(user), encode(c))
	return nil
}

// changeMember adds a change of a membership, for the room and for the user.
// A membership that begins again, or ends when it had ended, is not counted.
func (b *batch) changeMember(r *room, m *store.MemberChange) {
	if m.Invited {
		b.invite(r, m)
		return
	}
	t := &r.truth
	key := memberKey(t.number, m.User)
	was := b.have(key) != nil
	switch {
	case m.Joined:
		b.keep(key, encodeUint64(m.Offset))
		b.endInvitation(r, m.User)
		if !was {
			t.members++
		}
	case was:
		b.drop(key)
		t.members--
	}
	b.changeUser(r, m)
}

// changeUser does what changeMember does to the records of the user.
func (b *batch) changeUser(r *room, m *store.MemberChange) {
	key, version := userRoomKey(m.User, r.name), b.nextVersion()
	c, err := decodeCounts(b.have(countsKey(m.User)))
	must(err) // readCounts has decoded it
	if value := b.have(key); value != nil {
		was, err := decodeUserRoom(r.name, value)
		switch {
		case err != nil: // to be overwritten
		case was.Joined:
			c.Rooms--
		default:
			c.Ended--
			b.drop(endedKey(m.User, was.Version))
		}
	}
	if m.Joined {
		c.Rooms++
	} else {
		c.Ended++
		b.keep(endedKey(m.User, version), []byte(r.name))
	}
	b.keep(countsKey(m.User), encode(c))
	b.keep(key, encode(&storev1.UserRoom{
		Joined:  m.Joined,
		Offset:  m.Offset,
		By:      []byte(m.By),
		Version: version,
		Number:  r.truth.number,
	}))
}

// invite adds an invitation, unless the user is a member or invited already.
func (b *batch) invite(r *room, m *store.MemberChange) {
	t := &r.truth
	key := inviteeKey(t.number, m.User)
	if b.have(key) != nil || b.have(memberKey(t.number, m.User)) != nil {
		return
	}
	value := encode(invitationRecord(t.number, m))
	b.keep(key, value)
	b.keep(invitedKey(m.User, r.name), value)
	t.invited++
	b.countGiven(m.User, m.By, 1)
}

// endInvitation removes a user's open invitation, if there is one.
func (b *batch) endInvitation(r *room, user string) {
	t := &r.truth
	key := inviteeKey(t.number, user)
	value := b.have(key)
	if value == nil {
		return
	}
	b.drop(key)
	b.drop(invitedKey(user, r.name))
	t.invited--
	i, err := decodeInvitation(r.name, user, value)
	must(err) // readMembership has decoded it
	b.countGiven(user, i.By, -1)
}

// countGiven counts the invitations of a user by another.
func (b *batch) countGiven(user, by string, change int) {
	key := givenKey(user, by)
	n, _ := decodeUint64(b.have(key)) // 0 if there is none
	if n += uint64(change); n == 0 {
		b.drop(key)
		return
	}
	b.keep(key, encodeUint64(n))
}

// indexEmpty keeps the index of rooms without members.
func (b *batch) indexEmpty(r *room) {
	t := &r.truth
	switch {
	case t.members == 0 && t.empty == 0:
		t.empty = b.nextVersion()
		b.set(emptyKey(t.empty), []byte(r.name))
	case t.members > 0 && t.empty != 0:
		b.delete(emptyKey(t.empty))
		t.empty = 0
	}
}
