//go:build !unix

package ingress

const canPeek = false // net/http watches

func (*clientConn) left() bool { return false }
