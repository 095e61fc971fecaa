package gateway

import (
	"net"

	"golang.org/x/sys/unix"
)

// seesAcks says that the kernel tells what a peer has acknowledged.
const seesAcks = true

// sendState returns how many bytes the peer has acknowledged in all, and
// whether any wait to be.
func sendState(c *net.TCPConn) (acked uint64, waiting bool, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var info *unix.TCPInfo
	var inner error
	err = raw.Control(func(fd uintptr) {
		info, inner = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil {
		return 0, false, err
	}
	if inner != nil {
		return 0, false, inner
	}
	return info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0, nil
}
