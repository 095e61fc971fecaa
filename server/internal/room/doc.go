// Package room is a room on this node: the single writer of its log, who its
// members are, the hot tail of its newest events, and the cursors that read it.
//
//	Publish ─ claim ─ look up ─ admit ─┐ under the room's lock:
//	          client_id  (I/O)         │ membership, fence, offset
//	                                   ▼
//	                             store.Log.Append ──── commit + sync
//	                                                        │ Done
//	  Cursor.Next ◄── tail ◄────────────────────────────────┤
//	       │  (or store.Log.Read, when                    waker
//	       ▼   the tail no longer reaches back)             └► Subscriber.Wake
//	   a contiguous run of encoded events
//
// Nothing is shown before it is durable: an event enters the tail, and moves
// the head that readers may reach, in Done. Live readers, replays and slow
// readers use the same Cursor; there is no other way to read events.
//
// A Cursor is a place in the log, not a queue: a reader that does not read
// costs nothing here but the cursor.
package room
