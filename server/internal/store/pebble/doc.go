// Package pebble is the embedded engine: a [store.Store] in one directory of
// one machine, on github.com/cockroachdb/pebble.
//
// # How a write becomes durable
//
// All writes of all callers go through one committer goroutine. It takes
// everything that waits, up to a bound, applies it to one Pebble batch and
// syncs once; the next batch fills while this one syncs. More syncs in flight
// would make the batches smaller and the whole slower. A second goroutine, the
// notifier, then calls the Done functions in order while the committer goes on.
//
// Pebble shows a batch to readers before its log is synced, and a power cut
// can still take it back. So nothing here reads the database itself: after each
// sync, while no write is under way, the committer takes a snapshot, and every
// read goes through the newest of those ([view]). Nobody sees what is not
// durable, and each read is of one moment.
//
// A failed sync is never retried: what the kernel did with the dirty pages is
// not known. The store fails for good ([Store.Failed]), acknowledges nothing
// more, and the process exits (Options.Fatal).
//
// # Keys
//
//	af                              format of this table, 8 bytes
//	ar                              number given to the newest room, 8 bytes
//	ac                              time when this was last in use, nanoseconds since 1970, 8 bytes
//	av                              version of the newest change of a membership or a session, 8 bytes
//	r name                          storev1.Room: the room's number and what never changes
//	t room                          storev1.Tail: floor, member count, last offset
//	i room first                    incarnation: a stretch begins at first
//	e room offset                   running total of bytes, then the encoded event
//	c room <sender> client_id       offset, 8 bytes
//	m room user                     offset by which the membership began, 8 bytes
//	u <user> room                   storev1.UserRoom: current or ended
//	n user                          storev1.UserCounts: how many of those
//	d <user> version                name of the room: index of those that have ended
//	k room user                     storev1.Invitation
//	j <user> room                   the same
//	g <user> by                     how many of the user's invitations are by by, 8 bytes
//	z version                       name of a room without members
//	s id                            storev1.Session
//	x <user> created id             nothing: index of sessions
//	p <id> room                     storev1.Position
//
// Format 1 has no n, d, k, j, g and z. Opening it makes z; n and d of a user are
// made when the user's memberships first change.
//
// room, first, offset and version are 8 bytes big-endian; created is seconds and
// nanoseconds, 12 bytes; <string> is a string with its length in front, as a
// varint. Pebble checks every block and log record against a checksum.
//
// # Recovery, case by case
//
//   - Kill -9, power loss: every batch that was acknowledged is there; a batch
//     whose sync had not returned is there whole or not at all, because it is
//     one log record.
//   - Damage in the log: Open refuses, except when nothing that was written
//     later says that the damaged place had been synced, which cannot be told
//     from a write that was cut off. Acknowledged events may then be gone. The
//     incarnation of this start makes that visible to every client that held
//     them: an offset is given twice only under another incarnation.
//   - A log that is missing, cut short, or an older one: Open refuses, with the
//     help of logs.sum ([logsName]), and so it does where another file is missing
//     without which the directory is not whole.
//   - The directory moved, replaced, deleted, or changed from outside while it is
//     open: the store fails before it acknowledges anything more ([home]).
//   - Damage in the manifest, Pebble's list of tables: Open refuses, with the
//     help of manifest.sum ([sumName]). A manifest whose last record was cut off
//     by the loss of power opens, and nothing is missing.
//   - Damage in a table: reads return an error that wraps [store.ErrCorrupt].
//     So do reads whose offsets do not follow one another.
//   - Full disk: below the reserve (Options.Reserve) appends are refused,
//     while sessions, which cost little, and trims, which free space, go on. On a
//     disk that is full to the last byte Open returns an error at once.
package pebble
