// Package fault lets tests of the real binary break it on purpose. Without the
// build tag "faults" every function of it is empty, and the compiler removes
// the calls.
//
// With the tag, two environment variables choose:
//
//	REPRISE_KILL=point[:n]   the process gets SIGKILL when it reaches that point
//	                         for the n-th time (default 1), and says so on
//	                         standard error
//	REPRISE_BROKEN=rule      that rule is broken: a negative control, which the
//	                         test of the promise must notice
package fault

import "time"

// Points at which the process can be killed.
const (
	Assigned  = "assigned"   // an event has its offset and is not committed
	Committed = "committed"  // it is committed and not in the tail
	Shown     = "shown"      // it is in the tail and its receipt is not sent
	Attached  = "attached"   // an attach number is raised and the Welcome is not sent
	Trimming  = "trimming"   // retention has removed some events
	BackingUp = "backing-up" // a backup is being written
)

// Lifetime is how long a session can be resumed when ExpireSessions is broken:
// no time at all stands for the two minutes that a test would have to wait for.
const Lifetime = time.Duration(0)

// Rules that can be broken.
const (
	AckBeforeSync     = "ack-before-sync"    // P1: acknowledged before it is synced
	SyncNothing       = "sync-nothing"       // P1: synced to the system's memory only, which a kill leaves and a power cut does not
	ForgetLogs        = "forget-logs"        // P1: which logs of writes there must be is not looked at
	FollowName        = "follow-name"        // P1: the data directory is whatever has its name
	SkipOnResume      = "skip-on-resume"     // P2: a resume starts one event late
	SubscribeLate     = "subscribe-late"     // P3: live begins at the head when the replay has ended: what came between is lost
	ForgetClientID    = "forget-client-id"   // P4: the dedupe index is not written
	DedupeSeparately  = "dedupe-separately"  // P4: the dedupe index is written after the event, by itself
	IgnoreFence       = "ignore-fence"       // P5: an older attachment is listened to
	FenceInMemory     = "fence-in-memory"    // P5: the attach number is not raised on disk
	DropSlow          = "drop-slow"          // P6: a reader that is behind is moved to the head
	DecodeAnything    = "decode-anything"    // P6: a message is decoded whatever it decodes to
	ForgetRooms       = "forget-rooms"       // P7: rooms joined while away are not restored
	ExpireSessions    = "expire-sessions"    // P8: a session that was away for two minutes is not resumed
	BelieveClock      = "believe-clock"      // P8: ages are reckoned with whatever the clock says
	IgnoreIncarnation = "ignore-incarnation" // P2: a position is good whatever its incarnation
	ShareIncarnation  = "share-incarnation"  // P2: a room that is made again has the incarnation of the one that was removed
	SessionFirst      = "session-first"      // P4: that a session has ended is looked at before whether a publish is a retry
	TellOnce          = "tell-once"          // P7: what a Welcome told counts as told, whether or not it arrived
	EvictByClock      = "evict-by-clock"     // P8: the session that makes room is the one whose last attach looks longest ago
	KeepNoSlots       = "keep-no-slots"      // P10: who is sent away is told a time, and has no claim to it
	NameEverything    = "name-everything"    // P13: every room is named at a resume
	SkipUnavailable   = "skip-unavailable"   // P2: a room that could not be read goes on at its head
	StayFailed        = "stay-failed"        // P4: a room whose write was refused never takes one again
)
