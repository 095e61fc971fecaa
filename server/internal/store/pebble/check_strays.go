package pebble

import (
	"encoding/binary"

	db "github.com/cockroachdb/pebble/v2"
)

// checkStrays looks for records that belong to no room, and for ones of which
// this release does not know the kind.
func (c *checker) checkStrays() error {
	for _, kind := range []byte{prefixEvent, prefixStretch, prefixMember, prefixInvitee, prefixClientID, prefixTail} {
		if !c.whole {
			break // what seems to be of no room may be of one that cannot be read
		}
		if err := c.strays(kind); err != nil {
			return err
		}
	}
	from := []byte{0}
	for _, kind := range kinds {
		if err := c.unknown(from, []byte{kind}); err != nil {
			return err
		}
		from = []byte{kind + 1}
	}
	return c.unknown(from, nil)
}

// strays reports rooms' numbers that a kind of record has and no room. It
// jumps from room to room.
func (c *checker) strays(kind byte) error {
	iter, err := c.db.NewIter(&db.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return readError(err)
	}
	defer iter.Close() // what cannot be read was found before
	for ok := iter.First(); ok; {
		c.begin()
		key := iter.Key()
		if len(key) < 9 {
			c.bad(key, "malformed key")
			ok = iter.Next()
			continue
		}
		number := binary.BigEndian.Uint64(key[1:])
		if c.numbers[number] == nil {
			c.bad(key, "it belongs to room number %d, which there is not", number)
		}
		end := prefixEnd(appendRoomPrefix(nil, kind, number))
		ok = iter.SeekGE(end)
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// unknown reports the first record of [from, to).
func (c *checker) unknown(from, to []byte) error {
	c.begin()
	err := scan(c.db, from, to, func(key, _ []byte) (bool, error) {
		c.bad(key, "this release does not know records of this kind")
		return false, nil
	})
	if err == nil || c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	// Between the kinds of records there is nothing of which it could be said
	// what is missing.
	c.lost(err, "", false)
	c.begin()
	return nil
}
