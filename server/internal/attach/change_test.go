package attach

import (
	"slices"
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// However long a client does not read, what waits to be told of a membership
// is at most its end and a new beginning.
func TestP6_ChangesAreBounded(t *testing.T) {
	at := func(room string, offset uint64, joined bool) change {
		return change{room, store.MemberChange{Offset: offset, Joined: joined}}
	}
	var waiting []change
	for offset := uint64(1); offset <= 1001; offset += 2 {
		waiting = addChange(waiting, at("was", offset, false))
		waiting = addChange(waiting, at("was", offset+1, true))
		waiting = addChange(waiting, at("is not", offset, true))
		waiting = addChange(waiting, at("is not", offset+1, false))
	}
	want := []change{at("was", 1, false), at("was", 1002, true)}
	if !slices.Equal(waiting, want) {
		t.Errorf("%d changes wait: %v", len(waiting), waiting)
	}
}
