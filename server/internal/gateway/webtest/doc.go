// Package webtest has clients of a gateway for tests: grpc-web over
// websockets and over HTTP as a browser speaks them, and a raw websocket that
// says anything. Nothing outside tests imports it.
package webtest
