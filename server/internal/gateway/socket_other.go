//go:build !linux

package gateway

import (
	"errors"
	"net"
)

// seesAcks is false where only Linux's TCP_INFO would tell: then each write
// has a plain deadline, and keep-alive finds a peer that vanished.
const seesAcks = false

func sendState(*net.TCPConn) (acked uint64, waiting bool, err error) {
	return 0, false, errors.ErrUnsupported
}
