package pebble

import (
	"bytes"
	"cmp"
	"testing"
	"time"
)

// FuzzKeys has two of everything: keys are equal only if what they are of is
// equal, sort as it does, and can be read back.
func FuzzKeys(f *testing.F) {
	f.Add(uint64(1), uint64(2), "a", "a\x00", "b", "b")
	f.Add(uint64(1), uint64(256), "a", "ab", "bc", "c")
	f.Add(uint64(1)<<63, uint64(0), "\xff", "", "\x00", "\x01")
	f.Fuzz(func(t *testing.T, m, n uint64, a1, a2, b1, b2 string) {
		if room, offset, err := parseEventKey(eventKey(m, n)); room != m || offset != n || err != nil {
			t.Errorf("event key of %d, %d: %d, %d, %v", m, n, room, offset, err)
		}
		if room, first, err := parseStretchKey(stretchKey(m, n)); room != m || first != n || err != nil {
			t.Errorf("stretch key of %d, %d: %d, %d, %v", m, n, room, first, err)
		}
		if user, err := parseMemberKey(memberKey(m, a1)); user != a1 || err != nil {
			t.Errorf("member key of %q: %q, %v", a1, user, err)
		}
		if bytes.Compare(eventKey(m, 1), eventKey(n, 0)) != cmp.Or(cmp.Compare(m, n), 1) {
			t.Errorf("event keys of rooms %d and %d in the wrong order", m, n)
		}
		if bytes.Compare(memberKey(m, a1), memberKey(m, a2)) != cmp.Compare(a1, a2) {
			t.Errorf("member keys of %q and %q in the wrong order", a1, a2)
		}
		same := a1 == a2 && b1 == b2
		for name, pair := range map[string][2][]byte{
			"client id": {appendClientIDKey(nil, m, a1, b1), appendClientIDKey(nil, m, a2, b2)},
			"user room": {userRoomKey(a1, b1), userRoomKey(a2, b2)},
			"position":  {positionKey(a1, b1), positionKey(a2, b2)},
			"sessions":  {sessionsKey(a1, time.Time{}, b1), sessionsKey(a2, time.Time{}, b2)},
		} {
			if bytes.Equal(pair[0], pair[1]) != same {
				t.Errorf("%s keys of %q, %q and %q, %q: equal: %t", name, a1, b1, a2, b2, !same)
			}
		}
		// A scan of one user or session never meets another's.
		for name, pair := range map[string][2][]byte{
			"user":     {userRoomPrefix(a1), userRoomKey(a2, b2)},
			"session":  {positionPrefix(a1), positionKey(a2, b2)},
			"sessions": {sessionsPrefix(a1), sessionsKey(a2, time.Time{}, b2)},
		} {
			inside := bytes.Compare(pair[1], pair[0]) >= 0 && bytes.Compare(pair[1], prefixEnd(pair[0])) < 0
			if inside != (a1 == a2) {
				t.Errorf("%s %q has the key of %q: %t", name, a1, a2, inside)
			}
		}
		if id, err := parseSessionsKey(sessionsKey(a1, time.Unix(int64(m), 0), b1), sessionsPrefix(a1)); id != b1 || err != nil {
			t.Errorf("sessions key of %q: %q, %v", b1, id, err)
		}
	})
}

// FuzzSessionTimes checks that sessions sort by the time of their creation.
func FuzzSessionTimes(f *testing.F) {
	f.Add(int64(0), int64(0), int64(-1), int64(999))
	f.Add(int64(-62135596800), int64(0), int64(1_700_000_000), int64(5))
	f.Fuzz(func(t *testing.T, s1, n1, s2, n2 int64) {
		const second = int64(time.Second)
		t1, t2 := time.Unix(s1, ((n1%second)+second)%second), time.Unix(s2, ((n2%second)+second)%second)
		got := bytes.Compare(sessionsKey("u", t1, "a"), sessionsKey("u", t2, "a"))
		want := cmp.Or(cmp.Compare(t1.Unix(), t2.Unix()), cmp.Compare(t1.Nanosecond(), t2.Nanosecond()))
		if got != want {
			t.Errorf("%v and %v: %d", t1, t2, got)
		}
	})
}

// FuzzRecords decodes any bytes as each record: a value or an error, never a
// panic, and a value survives being written again.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x08\x01\x10\x02"))
	f.Add(value(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if number, meta, err := decodeRoom("r", b); err == nil {
			again, meta2, err := decodeRoom("r", encode(roomRecord(number, meta)))
			if err != nil || again != number || meta2.Title != meta.Title {
				t.Errorf("room %+v, then %+v, %v", meta, meta2, err)
			}
		}
		if s, err := decodeSession("s", b); err == nil {
			again, err := decodeSession("s", encode(sessionRecord(s)))
			if err != nil || again.Revision != s.Revision || len(again.Keys) != len(s.Keys) {
				t.Errorf("session %+v, then %+v, %v", s, again, err)
			}
		}
		if tail, err := decodeTail(b); err == nil && (tail.GetOldest() == 0 || tail.GetOldest()-1 > tail.GetHead()) {
			t.Errorf("tail %v", tail)
		}
		_, _ = decodeUserRoom("r", b)
		_, _ = decodePosition("r", b)
		_, _ = decodeUint64(b)
		_, _, _ = splitEvent(b)
		_, _, _ = parseEventKey(b)
		_, _, _ = parseStretchKey(b)
		_, _ = parseMemberKey(b)
		_, _ = parseSessionsKey(b, []byte("x"))
	})
}
