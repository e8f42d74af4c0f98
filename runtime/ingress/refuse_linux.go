package ingress

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// refuseConnections makes the kernel refuse new connections to l, while l can
// still accept those that are established. To close l would reset these, and
// with them requests that their clients have already sent; NGINX does not send
// such a request again unless its method is idempotent.
//
// It binds the listening socket to a network interface that does not exist: a
// socket receives new connections only over the interface that it is bound to,
// and established ones keep their own binding (socket(7), SO_BINDTODEVICE).
// Linux allows that without privileges since 5.7. Where it fails, connections
// are accepted until l is closed.
func refuseConnections(l net.Listener) {
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
