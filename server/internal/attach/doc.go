// Package attach is one live stream: positions in, frames out.
//
// An [Attachment] owns a place (a cursor) in each of its rooms and a list of
// the places that have news. It has no goroutine and no queue of events: when
// a room moves, the place is put on the list, the attachment on the [Pool]'s
// queue, and a worker sends what each place lacks.
//
//	room ── Wake ──► place ──► news list ──► Attachment ──► Pool queue
//	                                                          │ worker
//	   Welcome, RoomState* ─┐                                 ▼
//	   receipts, faults ────┼──────── step ── Stream.Send ── step ── ...
//	   heartbeat, drain ────┤
//	   Cursor.Next ─────────┘   live, replay and slow readers are this one path
//
// What an attachment holds in memory is bounded whatever its client does: a
// place for each room, the answers to at most maxInFlight client frames, and
// one frame in the hands of the stream. A stalled client falls behind in the
// log.
package attach
