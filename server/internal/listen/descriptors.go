package listen

import "fmt"

const (
	// unlimited stands for a system that has no bound.
	unlimited = 1 << 30
	// mostStore and leastStore are how many files the store may have open: what
	// it can use, and what it cannot do without.
	mostStore, leastStore = 1000, 64
	// spare is for everything else: listeners, logs, a backup, the store's log
	// of writes, what the runtime and its libraries keep.
	spare = 64
	// mostConnections is for each port, where the system would allow more.
	mostConnections = 16384
	// leastConnections of each port are worth serving with.
	leastConnections = 16
)

// Shares says who may use how many of a process's descriptors, so that
// connections never take what the store needs.
type Shares struct {
	All int // what the system allows
	// Store is for its files, GRPC and HTTP for connections.
	Store, GRPC, HTTP int
}

// Divide divides descriptors. grpc and http are how many connections are wanted
// for each port; 0 is as many as there are. The error says that there are too
// few.
func Divide(descriptors, grpc, http int) (Shares, error) {
	s := Shares{All: descriptors}
	s.Store = max(leastStore, min(mostStore, descriptors/4))
	left := descriptors - s.Store - spare
	s.GRPC, s.HTTP = grpc, http
	if grpc == 0 {
		s.GRPC = min(mostConnections, left-max(http, left/2))
	}
	if http == 0 {
		s.HTTP = min(mostConnections/2, left-s.GRPC)
	}
	if s.GRPC < leastConnections && grpc == 0 || s.HTTP < leastConnections && http == 0 || s.GRPC+s.HTTP > left {
		return s, fmt.Errorf("the process may have %d files and connections open, and needs %d for the store and itself, %d for gRPC connections and %d for those of browsers: raise the limit (ulimit -n), or take fewer connections",
			descriptors, s.Store+spare, max(grpc, leastConnections), max(http, leastConnections))
	}
	return s, nil
}
