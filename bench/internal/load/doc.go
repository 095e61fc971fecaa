// Package load is the clients of a benchmark and the servers they go to.
//
// A [Target] is one kind of server: how to start a process of it, how to give
// users their rooms, and how a client of it speaks. Every target is driven by
// the same scenarios, so a new one is compared in all of them.
//
// Each event's text carries a number, counted by room from 1, and the time at
// which it was meant to be sent. A [Client] reports every event; [Counter]
// checks that the numbers of a room follow one another. So a server that is
// fast because it loses, repeats or reorders fails.
package load
