package exactlyonce

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	reprise "github.com/reprise-chat/reprise/client"
)

// kept is what the archive has of one room.
type kept struct {
	lines []string
	place *reprise.Position
}

// read opens the archive, whose program is not running, and returns what it has
// by room.
func (w *world) read() map[string]*kept {
	w.t.Helper()
	db, err := bbolt.Open(w.db, 0o600, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	rooms := make(map[string]*kept)
	of := func(room string) *kept {
		if rooms[room] == nil {
			rooms[room] = new(kept)
		}
		return rooms[room]
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte("places")) == nil || tx.Bucket([]byte("lines")) == nil {
			return nil // killed before it made them
		}
		err := tx.Bucket([]byte("lines")).ForEach(func(_, line []byte) error {
			room := roomOf(string(line))
			of(room).lines = append(of(room).lines, string(line))
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte("places")).ForEach(func(room, place []byte) error {
			p := new(reprise.Position)
			of(string(room)).place = p
			return json.Unmarshal(place, p)
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return rooms
}

func roomOf(line string) string {
	line = strings.TrimPrefix(line, "gap in ")
	return line[:strings.IndexAny(line, " /:")]
}

// lines returns the archive's lines of a room.
func (w *world) lines(room string) []string {
	if k := w.read()[room]; k != nil {
		return k.lines
	}
	return nil
}

// check fails the test if something is wrong with the archive.
func (w *world) check(end bool) {
	w.t.Helper()
	if problem := w.problem(end); problem != "" {
		w.t.Fatal(problem)
	}
}

// problem holds the archive against the logs of the rooms. At the end it must
// have everything.
func (w *world) problem(end bool) string {
	w.t.Helper()
	have := w.read()
	w.mu.Lock()
	rooms := slices.Clone(w.rooms)
	w.mu.Unlock()
	for room := range have {
		if !slices.Contains(rooms, room) {
			rooms = append(rooms, room)
		}
	}
	for _, room := range rooms {
		k := have[room]
		if k == nil {
			k = new(kept)
		}
		log := w.log(room)
		c := &checker{log: log, room: room}
		for _, line := range k.lines {
			if problem := c.take(line); problem != "" {
				return fmt.Sprintf("%s: %s: %s\nthe archive has\n%s", room, line, problem, strings.Join(k.lines, "\n"))
			}
		}
		if problem := c.end(k.place, end); problem != "" {
			return fmt.Sprintf("%s: %s\nthe archive has\n%s", room, problem, strings.Join(k.lines, "\n"))
		}
	}
	return ""
}

// log returns a room's whole log.
func (w *world) log(room string) (log []reprise.Event) {
	w.t.Helper()
	ctx, cancel := w.context()
	defer cancel()
	for after := uint64(0); ; {
		page, err := w.alice.ListEvents(ctx, room, reprise.Range{After: after, Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		log = append(log, page.Events...)
		if !page.More {
			return log
		}
		after = log[len(log)-1].Offset
	}
}

// checker reads a room's lines one after the other.
type checker struct {
	room  string
	log   []reprise.Event
	begun bool
	fresh bool   // nothing has come since the start
	last  uint64 // offset held
	gaps  []string
}

func (c *checker) at(offset uint64) string {
	for _, e := range c.log {
		if e.Offset == offset {
			return e.String()
		}
	}
	return "nothing"
}

// memberSince returns the offset of the event by which the archive's user
// became a member, the last time; 0 if it is none.
func (c *checker) memberSince() (since uint64) {
	for _, e := range c.log {
		change := e.Proto.GetMemberChange()
		if change.GetUser() != "archive" {
			continue
		}
		if since = 0; strings.HasSuffix(e.String(), "joined") {
			since = e.Offset
		}
	}
	return since
}

func (c *checker) take(line string) (problem string) {
	var first, last, offset uint64
	rest := strings.TrimPrefix(line, c.room)
	switch {
	case strings.HasPrefix(line, "gap in "):
		_, err := fmt.Sscanf(line, "gap in "+c.room+": %d to %d", &first, &last)
		switch {
		case err != nil:
			return err.Error()
		case !c.fresh || c.last != 0:
			return "a gap, although there was a position"
		case first != 1 || last <= c.last || !strings.Contains(line, "POSITION_UNKNOWN"):
			return "a gap that does not fit"
		}
		c.last, c.fresh = last, false
		c.gaps = append(c.gaps, fmt.Sprint(first, "-", last))
	case strings.HasPrefix(rest, " begins after "):
		if c.begun {
			return "begun twice"
		}
		if _, err := fmt.Sscanf(rest, " begins after %d", &offset); err != nil {
			return err.Error()
		}
		c.begun, c.fresh, c.last, c.gaps = true, true, offset, nil
	case rest == " is closed":
		c.begun = false
	default:
		if _, err := fmt.Sscanf(rest, "/%d", &offset); err != nil {
			return err.Error()
		}
		switch i := slices.IndexFunc(c.log, func(e reprise.Event) bool { return e.Offset == offset }); {
		case !c.begun:
			return "no start before it"
		case i < 0 || c.log[i].String() != line:
			return "the log has " + c.at(offset)
		case c.log[i].After != c.last:
			return fmt.Sprintf("it comes after %d, and %d is held", c.log[i].After, c.last)
		}
		c.last, c.fresh = offset, false
	}
	return ""
}

// end checks where the archive is. At the end of everything that must be at the
// head of each room that its user is in, with nothing left out but gaps.
func (c *checker) end(place *reprise.Position, end bool) (problem string) {
	if place != nil {
		var gaps []string
		for _, g := range place.Gaps {
			gaps = append(gaps, fmt.Sprint(g.First, "-", g.Last))
		}
		switch {
		case !c.begun || place.Offset != c.last:
			return fmt.Sprintf("the position is %d, the lines reach %d", place.Offset, c.last)
		case !slices.Equal(gaps, c.gaps):
			return fmt.Sprintf("open gaps %v, want %v", gaps, c.gaps)
		}
	}
	since := c.memberSince()
	switch head := c.log[len(c.log)-1].Offset; {
	case !end:
	case since == 0 && c.begun:
		return "the user has left, and the archive does not know"
	case since > 0 && (!c.begun || place == nil):
		return "the user is a member, and the archive does not know"
	case since > 0 && c.last != head:
		return fmt.Sprintf("the archive has reached %d of %d", c.last, head)
	}
	return ""
}
