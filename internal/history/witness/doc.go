// Package witness has clients of the Go SDK write down what happens to them,
// as package history wants it. A [Client] is both of the places where that can
// be seen:
//
//	server ── wire ── SDK ── handler
//	           │               └── under the client's name, for as long as it lives
//	           └── each stream under a name of its own ("ann~3")
//
// What the handler is given must be exactly once over all streams; what a
// stream brings must be whole by itself, from where it says that it starts.
package witness
