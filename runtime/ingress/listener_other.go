//go:build !linux

package ingress

import "net"

// turnAway cannot: what is in the middle of connecting when l is closed is lost.
func turnAway(net.Listener) {}
