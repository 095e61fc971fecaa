// Package rpc is the gRPC edge: frames and unary calls to core calls and back.
// It is the only server package that knows gRPC.
//
// Every client frame and its unary twin land in the same function; the frame's
// answer is a Receipt or a Fault, the call's a response or a status, made from
// the same values. Everything from outside is validated here before anything
// else looks at it.
package rpc
