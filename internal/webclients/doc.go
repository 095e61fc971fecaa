// Package webclients has the grpc-web client libraries that people use call a
// real server, and requires that whatever the gateway refuses arrives in each
// of them with its code, its reason, and RetryInfo if waiting cures it:
// @connectrpc/connect-web, Google's grpc-web in both of its formats, and
// @improbable-eng/grpc-web over HTTP and over websockets, all under Node.
package webclients
