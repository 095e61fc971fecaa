// Package controls shows that the tests of the promises can fail: it builds
// them with a server whose rules can be broken (package fault), breaks one rule
// after another, and requires the test of its promise to notice.
//
// `make test-controls` runs it; it has no code but tests.
package controls
