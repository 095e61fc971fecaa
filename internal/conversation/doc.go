// Package conversation has the test that matters most: a Go client, grpcurl
// and the page in a real Chromium talk in one room while the server is killed
// with SIGKILL and restarted and their connections are cut. Afterwards each
// one's list of events must be the stored log, in order, without repeats, and
// every acknowledged send must be in it exactly once.
//
//	Go client ──► proxy ──┐
//	grpcurl   ──► proxy ──┼──► reprise serve   (killed and restarted)
//	Chromium  ──► proxy ──┘
//	               (cut)
//
// `make test-conversation` runs it; it has no code but tests.
package conversation
