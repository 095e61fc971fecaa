package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/reprise-chat/reprise/gen/reprise/store/v1"
	reprisev1 "github.com/reprise-chat/reprise/gen/reprise/v1"
	"github.com/reprise-chat/reprise/server/internal/event"
	"github.com/reprise-chat/reprise/server/internal/store"
	"github.com/reprise-chat/reprise/server/internal/store/crashfs"
)

// change appends the event of a membership that begins or ends.
func change(tb testing.TB, l *Log, user string, joined bool) {
	tb.Helper()
	kind := reprisev1.MemberChange_KIND_LEFT
	if joined {
		kind = reprisev1.MemberChange_KIND_JOINED
	}
	head := l.State().Head
	e, err := event.Encode(&reprisev1.Event{
		Time: timestamppb.New(time.Unix(1_700_000_000, 0)), Sender: user,
		Body: &reprisev1.Event_MemberChange{MemberChange: &reprisev1.MemberChange{Kind: kind, User: user}},
	})
	must(err)
	event.Place(e, head+1, head)
	a := &store.Append{
		Expect: head, Events: []store.Event{{Encoded: e, Sender: user}},
		Members: []store.MemberChange{{User: user, Joined: joined, Offset: head + 1, By: user}},
	}
	if head == 0 {
		a.Create = &store.Meta{Name: l.room.name, Creator: user}
	}
	done := make(chan error, 1)
	a.Done = func(err error) { done <- err }
	must(l.Append(a))
	must(<-done)
}

// populate gives a store a bit of everything: rooms, members that come, go and
// come back, client ids, trimmed events, sessions with positions.
func populate(tb testing.TB, s *Store, round int) {
	tb.Helper()
	for i := range 4 {
		l := logOf(tb, s, fmt.Sprint("room", i))
		change(tb, l, "alice", true)
		change(tb, l, fmt.Sprint("guest", round), true)
		fill(tb, l, l.State().Head+30)
		invite(tb, l, fmt.Sprint("invited", round), "alice")
		change(tb, l, fmt.Sprint("guest", round), round%2 == 0)
		session := store.Session{ID: fmt.Sprintf("s_%d_%d", round, i), User: "alice", Attach: 1, Created: time.Unix(int64(round), 0)}
		at := store.Position{Room: l.room.name, Incarnation: l.Incarnation(), Offset: l.State().Head}
		if err := s.PutSession(tb.Context(), session, []store.Position{at}); err != nil {
			tb.Fatal(err)
		}
	}
	removed(tb, s)
}

// removed has a room that is made, left and removed.
func removed(tb testing.TB, s *Store) {
	tb.Helper()
	l := logOf(tb, s, "gone")
	change(tb, l, "alice", true)
	invite(tb, l, "bob", "alice")
	change(tb, l, "alice", false)
	rooms, err := s.EmptyRooms(tb.Context(), 0, s.Version(), 10)
	if err != nil || len(rooms) != 1 {
		tb.Fatalf("without members are %v, %v", rooms, err)
	}
	if ok, err := s.RemoveRoom(tb.Context(), rooms[0]); !ok || err != nil {
		tb.Fatalf("not removed: %v", err)
	}
}

// invite appends an invitation with its event.
func invite(tb testing.TB, l *Log, user, by string) {
	tb.Helper()
	head := l.State().Head
	e, err := event.Encode(&reprisev1.Event{Sender: by, Body: &reprisev1.Event_MemberChange{
		MemberChange: &reprisev1.MemberChange{Kind: reprisev1.MemberChange_KIND_INVITED, User: user},
	}})
	must(err)
	event.Place(e, head+1, head)
	done := make(chan error, 1)
	l.Append(&store.Append{
		Expect: head, Events: []store.Event{{Encoded: e, Sender: by}},
		Members: []store.MemberChange{{User: user, Invited: true, Offset: head + 1, By: by, Time: time.Unix(1_700_000_000, 0)}},
		Done:    func(err error) { done <- err },
	})
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
}

// directory makes a data directory in memory that has been opened several
// times, so that it has tables and a log, and in which events were trimmed. A
// crashed one was not closed. ever has all events there have been.
func directory(tb testing.TB, crashed bool) (mem *crashfs.FS, dir string, ever map[string]string) {
	tb.Helper()
	mem, dir = crashfs.New(), "data"
	ever = make(map[string]string)
	o := options(tb)
	o.FS = mem
	for round := range 4 {
		s := mustOpen(tb, dir, o)
		populate(tb, s, round)
		all, err := readContents(tb.Context(), s)
		if err != nil {
			tb.Fatal(err)
		}
		maps.Copy(ever, all.events)
		if _, err := logOf(tb, s, "room0").Trim(tb.Context(), store.Bounds{MaxEvents: 40}); err != nil {
			tb.Fatal(err)
		}
		if crashed && round == 3 {
			clone := mem.CrashClone(vfs.CrashCloneCfg{})
			mustClose(tb, s)
			return clone, dir, ever
		}
		mustClose(tb, s)
	}
	return mem, dir, ever
}

func mustCheck(tb testing.TB, fsys vfs.FS, dir string) Report {
	tb.Helper()
	r, err := Check(tb.Context(), dir, CheckOptions{FS: fsys})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// contents reads everything through the store.
type contents struct {
	events  map[string]string // by room and offset
	records map[string]any
	err     error // of the reads that failed
}

func readContents(ctx context.Context, s *Store) (contents, error) {
	all := contents{events: make(map[string]string), records: make(map[string]any)}
	rooms, err := s.Rooms(ctx, "", 100)
	if err != nil {
		return all, err
	}
	all.records["rooms"] = rooms
	var errs []error
	for i := range 4 {
		errs = append(errs, all.readRoom(ctx, s, fmt.Sprint("room", i)))
	}
	memberships, version, err := s.UserRooms(ctx, "alice")
	all.records["user"], all.records["version"] = memberships, version
	errs = append(errs, err)
	sessions, err := s.Sessions(ctx, "alice")
	all.records["sessions"] = sessions
	errs = append(errs, err)
	for _, session := range sessions {
		p, err := s.Positions(ctx, session.ID)
		all.records["positions of "+session.ID] = p
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (all *contents) readRoom(ctx context.Context, s *Store, name string) error {
	l, err := s.OpenLog(ctx, name)
	if err != nil {
		return err
	}
	state := l.State()
	all.records["state of "+name] = state
	var errs []error
	for offset := state.Oldest; offset <= state.Head; offset++ {
		p, err := l.Read(ctx, offset-1, offset, 1, nil)
		errs = append(errs, err)
		if err != nil {
			continue
		}
		all.events[fmt.Sprint(name, "/", offset)] = string(p.Data)
		if e, err := event.Decode(p.Data); err == nil && e.GetClientId() != "" {
			at, err := l.Lookup(ctx, e.GetSender(), e.GetClientId())
			all.records[fmt.Sprint("client id of ", name, "/", offset)] = at
			errs = append(errs, err)
		}
	}
	members, err := l.Members(ctx, "", 100)
	all.records["members of "+name] = members
	return errors.Join(append(errs, err)...)
}

func TestCheckClean(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		mem, dir, _ := directory(t, crashed)
		r := mustCheck(t, mem, dir)
		if noted := len(r.Notes) > 0; r.Damaged() || noted != crashed {
			t.Errorf("crashed %t: %+v", crashed, r)
		}
		if r.Rooms != 4 || r.Events < 400 || r.Sessions != 16 || r.Positions != 16 || r.Members < 4 || r.ClientIDs == 0 || r.Tables == 0 {
			t.Errorf("crashed %t: counted %+v", crashed, r)
		}
	}
}

// TestCheckChangesNothing has a directory on a disk, which reads the same
// afterwards, and a server that comes in between.
func TestCheckChangesNothing(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, options(t))
	populate(t, s, 0)
	if _, err := Check(t.Context(), dir, CheckOptions{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("beside a server: %v", err)
	}
	mustClose(t, s)
	before := snapshot(t, dir)
	if r, err := Check(t.Context(), dir, CheckOptions{}); err != nil || r.Damaged() {
		t.Errorf("%+v, %v", r, err)
	}
	if after := snapshot(t, dir); !reflect.DeepEqual(before, after) {
		t.Error("the directory was changed")
	}
	if err := os.Remove(filepath.Join(dir, "LOCK")); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(t.Context(), dir, CheckOptions{}); err != nil || r.Damaged() {
		t.Errorf("without a lock: %+v, %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a lock was made")
	}
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range names {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		info, infoErr := entry.Info()
		if err := errors.Join(err, infoErr); err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(data)
		if entry.Name() != "LOCK" {
			files[entry.Name()] += info.ModTime().String()
		}
	}
	return files
}

func TestCheckRefuses(t *testing.T) {
	if _, err := Check(t.Context(), filepath.Join(t.TempDir(), "none"), CheckOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Check(t.Context(), t.TempDir(), CheckOptions{}); err == nil || !strings.Contains(err.Error(), "is no data directory") {
		t.Errorf("an empty one: %v", err)
	}
	mem, dir, _ := directory(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Check(ctx, dir, CheckOptions{FS: mem}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestCheckFindsDisagreement changes one record after another, each with a
// right checksum, and wants it found with its room and offset.
func TestCheckFindsDisagreement(t *testing.T) {
	type pairs = map[string][]byte // nil deletes
	tail := func(oldest, head, bytes uint64, members uint32) []byte {
		return encode(&storev1.Tail{Oldest: oldest, Head: head, Bytes: bytes, Members: members})
	}
	withTotal := func(total uint64, element []byte) []byte { return append(encodeUint64(total), element...) }
	for name, c := range map[string]struct {
		change pairs
		want   string
	}{
		"event missing":           {pairs{string(eventKey(2, 5)): nil}, `room "room1": offset 5: the event is missing`},
		"events missing":          {pairs{string(eventKey(2, 5)): nil, string(eventKey(2, 6)): nil}, `offset 5: the events from here to 6 are missing`},
		"first event missing":     {pairs{string(eventKey(2, 1)): nil}, `room "room1": offset 1: the event is missing`},
		"event of another place":  {pairs{string(eventKey(2, 5)): withTotal(500, element(6, "alice", ""))}, `room "room1": offset 5: the event says offset 6 after 5`},
		"no event":                {pairs{string(eventKey(2, 5)): withTotal(500, []byte("nonsense"))}, `room "room1": offset 5: event: malformed`},
		"no total":                {pairs{string(eventKey(2, 5)): []byte("abc")}, `room "room1": offset 5: event record of 3 bytes`},
		"wrong total":             {pairs{string(eventKey(2, 5)): withTotal(5, element(5, "alice", ""))}, `room "room1": offset 5: the running total of bytes is 5`},
		"below the oldest":        {pairs{string(eventKey(1, 1)): withTotal(5, element(1, "alice", ""))}, `room "room0": offset 1: it is before the oldest event`},
		"beyond the head":         {pairs{string(eventKey(2, 1000)): withTotal(5, element(1000, "alice", ""))}, `are missing`},
		"rooms of one number":     {pairs{string(roomKey("late")): encode(roomRecord(2, &store.Meta{}))}, `room "room1": it has the number 2, and so has room "late"`},
		"room without events":     {pairs{string(roomKey("late")): encode(roomRecord(5, &store.Meta{})), string(keyLastRoom): encodeUint64(5)}, `room "late": it has no event`},
		"room beyond the last":    {pairs{string(roomKey("late")): encode(roomRecord(99, &store.Meta{}))}, `room "late": it has the number 99`},
		"room malformed":          {pairs{string(roomKey("room1")): []byte("\xff")}, `record "rroom1"`},
		"room missing":            {pairs{string(roomKey("room1")): nil}, `it belongs to room number 2, which there is not`},
		"tail missing":            {pairs{string(tailKey(2)): nil}, `room "room1": it has`},
		"tail malformed":          {pairs{string(tailKey(2)): []byte("\xff")}, `room "room1": its tail is malformed`},
		"wrong count":             {pairs{string(tailKey(2)): tail(1, 1, 0, 77)}, `room "room1": it has 3 members, and should have 77`},
		"wrong oldest":            {pairs{string(tailKey(1)): tail(1, 1, 0, 3)}, `room "room0": offset 1: the events from here to`},
		"wrong head":              {pairs{string(tailKey(2)): tail(1, 9999, 0, 3)}, `room "room1": offset 137: the events up to 9999 are missing`},
		"stretch missing":         {pairs{string(stretchKey(2, 1)): nil}, `room "room1": offset 1: no stretch begins here`},
		"stretch beyond":          {pairs{string(stretchKey(2, 5000)): []byte("i_x")}, `room "room1": offset 5000: a stretch begins here, beyond the head`},
		"stretch without":         {pairs{string(stretchKey(2, 7)): nil, string(stretchKey(2, 8)): []byte("")}, `malformed stretch`},
		"client id missing":       {pairs{string(appendClientIDKey(nil, 2, "alice", "c5")): nil}, `room "room1": offset 5: its client id is not in the index`},
		"client id elsewhere":     {pairs{string(appendClientIDKey(nil, 2, "alice", "c5")): encodeUint64(6)}, `room "room1": offset 5: its client id is not in the index`},
		"client id of nobody":     {pairs{string(appendClientIDKey(nil, 2, "bob", "c5")): encodeUint64(5)}, `room "room1": offset 5: the index has a client id`},
		"member without event":    {pairs{string(memberKey(2, "bob")): encodeUint64(5)}, `room "room1": offset 5: the event does not say that "bob" joined`},
		"member missing":          {pairs{string(memberKey(2, "alice")): nil}, `joined, who is no member`},
		"member elsewhere":        {pairs{string(memberKey(2, "alice")): encodeUint64(2)}, `"alice", and the record says: member since 2`},
		"user record missing":     {pairs{string(userRoomKey("alice", "room1")): nil}, `the user's own record does not say so`},
		"user of no room":         {pairs{string(userRoomKey("alice", "none")): nil, string(userRoomKey("bob", "none")): encode(&storev1.UserRoom{Joined: true, Offset: 1, Version: 1})}, `room "none": user "bob" has a membership`},
		"user who is not listed":  {pairs{string(userRoomKey("bob", "room1")): encode(&storev1.UserRoom{Joined: true, Offset: 2, Version: 1})}, `room "room1": offset 2: "bob" has a membership of it, and the room does not list it`},
		"user of the future":      {pairs{string(userRoomKey("bob", "room1")): encode(&storev1.UserRoom{Offset: 2, Version: 1 << 40})}, `has version 1099511627776`},
		"count of a user":         {pairs{string(countsKey("alice")): encode(&storev1.UserCounts{Rooms: 9})}, `user "alice" has 4 memberships and 1 that have ended, and should have 9 and 0`},
		"counts malformed":        {pairs{string(countsKey("alice")): []byte("\xff")}, `record "nalice"`},
		"end of no membership":    {pairs{string(endedKey("alice", 1)): []byte("room1")}, `the index says that "alice" left room "room1"`},
		"invitation not listed":   {pairs{string(inviteeKey(2, "invited1")): nil}, `room "room1": it has 3 open invitations, and should have 4`},
		"invitation of nobody":    {pairs{string(inviteeKey(2, "bob")): encode(&storev1.Invitation{Number: 2, Offset: 1})}, `"bob" is invited, and the user's own record does not say so`},
		"invitation unlisted":     {pairs{string(invitedKey("bob", "room1")): encode(&storev1.Invitation{Number: 2, Offset: 1})}, `"bob" has an invitation to it, and the room does not list it`},
		"invitation to no room":   {pairs{string(invitedKey("bob", "none")): encode(&storev1.Invitation{Number: 9, Offset: 1})}, `room "none": user "bob" is invited to it`},
		"invitation malformed":    {pairs{string(inviteeKey(2, "invited1")): []byte("\xff")}, `invited1": proto`},
		"wrong count of a giver":  {pairs{string(givenKey("invited1", "alice")): encodeUint64(7)}, `there are 4 such invitations, and should be 7`},
		"no count of a giver":     {pairs{string(givenKey("invited1", "alice")): nil}, `there are 4 such invitations, and no count of them`},
		"empty room with members": {pairs{string(emptyKey(1)): []byte("room1")}, `the index says that room "room1" has no members`},
		"empty room of no name":   {pairs{string(emptyKey(1)): []byte("none")}, `the index says that room "none" has no members`},
		"session missing":         {pairs{string(sessionKey("s_0_1")): nil}, `session "s_0_1", which there is not`},
		"session not indexed":     {pairs{string(sessionsKey("alice", time.Unix(0, 0), "s_0_1")): nil}, `the session is not in the index of "alice"`},
		"session malformed":       {pairs{string(sessionKey("s_0_1")): []byte("\xff")}, `record "ss_0_1"`},
		"position ahead":          {pairs{string(positionKey("s_0_1", "room1")): encode(&storev1.Position{Offset: 1, Checkpoint: 99})}, `a position of checkpoint 99`},
		"position malformed":      {pairs{string(positionKey("s_0_1", "room1")): []byte("\xff")}, `record "p\x05s_0_1room1"`},
		"unknown record":          {pairs{"qy": {}}, `does not know records of this kind`},
		"no format":               {pairs{string(keyFormat): nil}, `the format of the store is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem, dir, _ := directory(t, false)
			rewrite(t, mem, dir, c.change)
			r := mustCheck(t, mem, dir)
			for _, p := range r.Problems {
				if strings.Contains(p.String(), c.want) {
					return
				}
			}
			t.Errorf("%q is not among %v", c.want, r.Problems)
		})
	}
}

func rewrite(t *testing.T, mem *crashfs.FS, dir string, pairs map[string][]byte) {
	t.Helper()
	d, err := db.Open(dir, &db.Options{FS: mem, FormatMajorVersion: db.FormatNewest, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range pairs {
		if value == nil {
			err = d.Delete([]byte(key), nil)
		} else {
			err = d.Set([]byte(key), value, nil)
		}
		must(err)
	}
	must(d.Close())
}

// TestCheckPositionsBeyond has positions that clients claim and the log never
// had: no damage, and told.
func TestCheckPositionsBeyond(t *testing.T) {
	mem, dir, _ := directory(t, false)
	rewrite(t, mem, dir, map[string][]byte{
		string(positionKey("s_0_1", "room1")): encode(&storev1.Position{Offset: 30, Incarnation: []byte("i_lost")}),
	})
	r := mustCheck(t, mem, dir)
	if r.Damaged() || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "1 positions of sessions are not in their rooms' logs") {
		t.Errorf("%+v", r)
	}
}

// TestCheckPositionsOfRemovedRooms has a position of a room that is not there,
// as the removal of an empty room leaves it: that is no lost tail.
func TestCheckPositionsOfRemovedRooms(t *testing.T) {
	mem, dir, _ := directory(t, false)
	rewrite(t, mem, dir, map[string][]byte{
		string(positionKey("s_0_1", "removed")): encode(&storev1.Position{Offset: 3, Incarnation: []byte("i_removed")}),
	})
	r := mustCheck(t, mem, dir)
	if r.Damaged() || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "1 positions of sessions are of rooms that are not there any more") {
		t.Errorf("%+v", r)
	}
}

func readFile(tb testing.TB, fsys vfs.FS, name string) []byte {
	tb.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// FuzzLogEnd gives the check any bytes as the end of a log, and as keys: never
// a panic, and no place outside of them.
func FuzzLogEnd(f *testing.F) {
	f.Add([]byte(nil), int64(0), uint32(1))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x05\x02\x00\x00\x00"), int64(32760), uint32(1))
	f.Add([]byte("\x12\x34\x56\x78\x08\x00\x09\x01\x00\x00\x00"), int64(5), uint32(1))
	f.Fuzz(func(t *testing.T, rest []byte, at int64, number uint32) {
		at &= 1<<40 - 1 // a place in a file
		if i := firstBroken(rest, at); i < 0 || i > len(rest) {
			t.Errorf("broken at %d of %d", i, len(rest))
		}
		if later, ok := provesDamage(rest, at, number); ok && (later < 0 || later >= len(rest)) {
			t.Errorf("proven at %d of %d", later, len(rest))
		}
		_ = closed(rest, at, number)
		_, _ = readRecords(bytes.NewReader(rest), uint64(number))
		if len(rest) > 0 {
			if s, tail, err := splitLengthed(rest); err == nil && len(s)+len(tail) >= len(rest) {
				t.Errorf("%q is %q and %q", rest, s, tail)
			}
		}
	})
}
