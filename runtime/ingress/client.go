package ingress

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientOf returns the address of the client of r: the peer's, or the one that a
// trusted proxy names.
func (i *Ingress) clientOf(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr // of a unix socket
	}
	if !i.trusts(peer.Addr()) {
		return peer.Addr().String()
	}
	if client, err := netip.ParseAddr(r.Header.Get("X-Real-Ip")); err == nil {
		return client.String()
	}
	// Each proxy appends the address of its peer. The last one that is not a
	// trusted proxy is the client; what stands before it cannot be trusted.
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, name := range slices.Backward(hops) {
		hop, err := netip.ParseAddr(strings.TrimSpace(name))
		if err != nil {
			break
		}
		if !i.trusts(hop) {
			return hop.String()
		}
	}
	return peer.Addr().String()
}

func (i *Ingress) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(i.cfg.TrustProxy, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}
