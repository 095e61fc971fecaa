// Command conformance is the server under test of Connect's conformance suite
// (connectrpc.com/conformance): the suite's service behind one of the two edges
// that Reprise has. The client under test, the TypeScript SDK's transports in
// Node, is client.ts. It is a module of its own because the suite's types are
// made when it runs; see buf.gen.yaml and `make test-conformance`.
package main
