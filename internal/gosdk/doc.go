// Package gosdk has the tests of the Go SDK that need a real server: what it
// does with answers that are not the server's, with what cannot be sent, and
// with much of everything.
package gosdk
