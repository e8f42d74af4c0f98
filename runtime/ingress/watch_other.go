//go:build !unix || aix

package ingress

import (
	"net"
	"syscall"
)

// peekable finds no socket that can be looked at without waiting: net/http watches.
func peekable(net.Conn) syscall.RawConn { return nil }

func (*clientConn) left() bool { return false } // never asked

func (*clientConn) pending() bool { return false }
