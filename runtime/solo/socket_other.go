//go:build !unix

package solo

import (
	"net"
	"syscall"
	"time"
)

// All is left to the connection's own reads and writes.

// SocketOf is nil: there is no socket that Conn and Glance can read from.
func SocketOf(net.Conn) syscall.RawConn { return nil }

func readWithin(time.Duration, uintptr, []byte, *Switch) int { return 0 }

func quietRead(uintptr, []byte) (n int, wait bool) { return 0, false }

func quietWrite(uintptr, []byte) int { return 0 }

func plainWrite(uintptr, []byte) int { return 0 }
