//go:build !unix

package solo

import (
	"net"
	"syscall"
	"time"
)

// All is left to the connection's own reads and writes.

// socketOf is nil: there is no socket that Conn and Glance can read from.
func socketOf(net.Conn) syscall.RawConn { return nil }

func readWithin(time.Duration, uintptr, []byte, *Switch) (int, error) { return 0, nil }

func quietRead(uintptr, []byte) (int, error) { return 0, nil }

func quietWrite(uintptr, []byte) int { return 0 }

func plainWrite(uintptr, []byte) int { return 0 }

func yield() {}
