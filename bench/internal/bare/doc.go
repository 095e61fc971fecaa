// Package bare is the limits that Reprise is measured against: servers that do
// one of the things it does, as well as it can be done, and nothing else.
//
//   - [Server]: a broadcast over grpc-go. No storage, sessions, members,
//     limits or validation. Events are encoded once into append-only chunks; a
//     frame for any range is a short header and one slice of a chunk, shared by
//     all readers; a pool with a worker for each processor sends, and replaces a
//     worker that a reader holds up.
//   - [Committer]: group commit on Pebble, with the keys and sizes that
//     Reprise's store writes.
//   - [File]: group fdatasync of a plain file.
//   - a Server with a Committer behind it: what durable publishing over gRPC
//     costs at least.
//
// The Server speaks as much of reprise.v1 as the load client does, so both are
// driven by the same code and send the same bytes for a delivery.
package bare
