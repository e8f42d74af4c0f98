package ingress

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// exchange is one request and its response on the way: the ResponseWriter that
// every handler of the ingress gets. It holds all that a request needs. One of a
// clientConn is used again for the next request, once net/http has written the
// response: nothing of it may be kept when the handler has returned.
type exchange struct {
	http.ResponseWriter
	ingress *Ingress
	request *http.Request
	id      string
	start   time.Time

	conn      *clientConn // that it belongs to; nil for a server that is not NewServer's
	unwatched bool        // net/http does not watch it
	client    *clientContext

	function *function // once known
	sent     bool      // the call or event was handed to the broker
	status   int       // once written
	gone     bool      // the client left before the answer
	cause    error     // why it failed, for the log

	values [12]string // backs the response's header fields
	n      int
}

// context ends when the client leaves, and with the handler.
func (x *exchange) context() context.Context {
	if !x.unwatched {
		return x.request.Context()
	}
	if x.client == nil {
		x.client = &clientContext{Context: x.request.Context(), conn: x.conn}
	}
	return x.client
}

// release ends what serves this request alone. Of a clientConn's exchange,
// net/http still needs the values; all else would be kept by an idle connection.
func (x *exchange) release() {
	if x.client != nil {
		x.client.end()
	}
	if x.conn != nil {
		x.conn.listener.solo.Busy(-1)
		x.conn.answered(time.Since(x.start))
		x.ResponseWriter, x.request, x.function, x.client, x.cause = nil, nil, nil, nil, nil
	}
}

// set sets a response header field whose name is in canonical form already.
func (x *exchange) set(name, value string) {
	if x.n == len(x.values) {
		x.Header()[name] = []string{value}
		return
	}
	x.values[x.n] = value
	x.Header()[name] = x.values[x.n : x.n+1 : x.n+1]
	x.n++
}

// WriteHeader notes the status for the log. What says nothing else may be kept
// by nobody. The answer is the last chance to tell a client that the connection
// ends, the request's beginning may be long ago.
func (x *exchange) WriteHeader(status int) {
	if x.ingress.draining.Load() {
		x.set("Connection", "close")
	}
	if x.Header()["Cache-Control"] == nil {
		x.set("Cache-Control", "no-store")
	}
	x.status = status
	x.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// log tells of what the line of the worker that ran the function, or the proxy
// in front, does not: failures here, and clients that went away.
func (x *exchange) log() {
	log := x.ingress.cfg.Log
	status, level := x.status, zapcore.DebugLevel
	if x.gone {
		status, level = statusClientGone, zapcore.InfoLevel
	} else if status >= 500 {
		level = zapcore.WarnLevel
	}
	line := log.Check(level, "request")
	if line == nil {
		return
	}
	function := ""
	if x.function != nil {
		function = x.function.Name
	}
	line.Write(
		zap.String("method", x.request.Method),
		zap.String("path", limited(x.request.URL.Path)),
		zap.Int("status", status),
		zap.Duration("took", time.Since(x.start)),
		zap.String("function", function),
		zap.String("id", x.id),
		zap.String("client", x.ingress.client(x.request)),
		zap.Error(x.cause),
	)
}

// limited keeps a log line from growing with what a client sends.
func limited(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}

// client is the address that the request came from: the peer's, or what a
// trusted proxy says.
func (i *Ingress) client(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr // a unix socket's
	}
	if !i.trusts(peer.Addr()) {
		return peer.Addr().String()
	}
	if real, err := netip.ParseAddr(r.Header.Get("X-Real-Ip")); err == nil {
		return real.String()
	}
	// Each proxy appends whom it got the request from: the last one that is
	// not a proxy of ours is as far as anybody can be believed.
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
	for _, p := range i.cfg.TrustProxy {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}
