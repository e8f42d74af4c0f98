//go:build !linux

package ingress

import "net"

// refuseConnections does nothing: this system has no means for it. A connection
// that is established and not accepted when l is closed is reset.
func refuseConnections(net.Listener) {}
