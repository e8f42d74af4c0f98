//go:build !unix || aix

package ingress

import (
	"syscall"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// peekable finds no socket that can be looked at without waiting: net/http watches.
func peekable(*solo.Conn) syscall.RawConn { return nil }

func (*clientConn) left() bool { return false } // never asked

func (*clientConn) pending() bool { return false }
