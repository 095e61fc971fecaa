// Package sim runs the whole server with several clients of the Go SDK inside
// a testing/synctest bubble: over connections in memory, on a file system in
// memory that loses what was not synced when the server dies, with a clock
// that jumps. A seed drives what goes wrong; package history says whether the
// promises held.
//
//	SDK ── conn (cut at any byte, half-open, frozen) ── server ── Pebble ── crashable memory
//
// A program may be copied with all that it saved: then two hold one session, and
// what the first one says arrives when the second one has it. The clock only
// jumps forward: a bubble's cannot go back.
//
// Go does not fix the scheduler's choices, so a seed alone does not repeat a
// run exactly; a failure is printed with the steps that were taken, and its
// whole trace is kept in a file.
//
// It has no code but tests. `make sim SEEDS=10000` runs many seeds.
package sim
