// Package session keeps sessions: the durable place of one tab or process in
// all of its user's rooms.
//
// A session is attached by at most one live stream, its holder. Each attach
// raises the attach number by compare-and-swap on the durable record; the
// number is the fencing token, and everything a client says is checked against
// it at the moment it would take effect. A record lives in memory (as a
// [Session]) while it has a holder, is being used, or has acknowledgements
// that are not stored yet.
//
// Whether a session can be resumed never depends on time.
package session
