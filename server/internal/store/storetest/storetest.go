// Package storetest is the one suite of tests that every engine passes: what
// the comments of package store say, sentence by sentence.
package storetest

import (
	"testing"

	"github.com/reprise-chat/reprise/server/internal/store"
)

// Harness is an engine with data of its own. Its maker closes what is open
// when the test ends.
type Harness struct {
	// Store is open and empty.
	Store store.Store
	// Reopen closes the newest store that this Harness returned and opens its
	// data anew.
	Reopen func() store.Store
	// Crash opens the data as they are after a loss of power at this moment,
	// with writes under way. The former store goes on until the next Crash or the
	// end of the test, in vain. nil if the engine's tests cannot do that.
	Crash func() store.Store
}

// Run runs the suite. Each case gets a Harness of its own.
func Run(t *testing.T, harness func(testing.TB) Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Harness)
	}{
		{"Incarnation", testIncarnation},
		{"RoomThatDoesNotExist", testNoRoom},
		{"Create", testCreate},
		{"Rooms", testRooms},
		{"Read", testRead},
		{"ReadLimits", testReadLimits},
		{"Ownership", testOwnership},
		{"InvalidAppend", testInvalidAppend},
		{"AppendConflict", testAppendConflict},
		{"TwoLogs", testTwoLogs},
		{"Pipeline", testPipeline},
		{"TestP1_VisibleWhenDone", testVisibleWhenDone},
		{"ConcurrentAppends", testConcurrentAppends},
		{"Stretches", testStretches},
		{"TestP4_Lookup", testLookup},
		{"TestP4_LookupIsExact", testLookupExact},
		{"Members", testMembers},
		{"MembersPages", testMembersPages},
		{"CountRooms", testCountRooms},
		{"EndedMemberships", testEndedMemberships},
		{"Invitations", testInvitations},
		{"EmptyRooms", testEmptyRooms},
		{"RemoveRoom", testRemoveRoom},
		{"UserRooms", testUserRooms},
		{"UserRoomsSnapshot", testUserRoomsSnapshot},
		{"TrimEvents", testTrimEvents},
		{"TrimBytes", testTrimBytes},
		{"TrimAge", testTrimAge},
		{"TrimAll", testTrimAll},
		{"TrimCanceled", testTrimCanceled},
		{"TestP4_TrimClientIDs", testTrimClientIDs},
		{"TrimWhileInUse", testTrimWhileInUse},
		{"Session", testSession},
		{"SessionConflict", testSessionConflict},
		{"SessionUse", testSessionUse},
		{"Sessions", testSessions},
		{"DeleteSession", testDeleteSession},
		{"Positions", testPositions},
		{"SavePositions", testSavePositions},
		{"ConcurrentSessions", testConcurrentSessions},
		{"TestP8_Clock", testClock},
		{"Context", testContext},
		{"TestP1_Close", testClose},
		{"TestP1_PowerLoss", testPowerLoss},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.f(t, harness(t))
		})
	}
}
