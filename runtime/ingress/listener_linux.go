package ingress

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// turnAway lets the kernel refuse new connections to l, while those that it has
// made, or is about to make, can still be accepted. Closing l would reset these,
// and with them requests that their clients have sent already.
//
// There is no call for it. But a socket that is bound to a network interface
// takes connections over that one only, and l gets one that does not exist;
// connections that have begun keep theirs. Linux lets everybody do that since
// 5.7; where it does not, l goes on as before.
func turnAway(l net.Listener) {
	socket, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, math.MaxInt32)
	})
}
