package ingress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// clientListener accepts connections that cost net/http less.
type clientListener struct {
	net.Listener
	solo   *solo.Switch
	latest atomic.Pointer[clientConn] // that began to wait for a request
}

func (l *clientListener) Accept() (net.Conn, error) {
	socket, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &clientConn{Conn: socket, listener: l, quiet: solo.NewConn(socket, l.solo)}
	c.raw = peekable(c.quiet)
	c.read.apply, c.write.apply = socket.SetReadDeadline, socket.SetWriteDeadline
	return c, nil
}

// clientConn is a connection to a client. Its deadlines are cheap to move, see
// deadline, and it spares net/http a watch that would cost more than it is worth.
//
// While a handler works, net/http reads from the connection, to learn that the
// client leaves. On a machine with little to do another thread takes that read
// up, and is waited for in the end: a quarter of what a result costs that is at
// hand, and 2 % of a lone call. So where the last answer was quick, or requests
// come one by one, the read ends at once; a request that has to wait looks for
// its client itself, see clientContext.
type clientConn struct {
	net.Conn
	listener    *clientListener
	quiet       *solo.Conn      // the same connection, to read and to write
	raw         syscall.RawConn // to look for the client with; nil: net/http watches always
	read, write deadline
	exchange    exchange    // of the request that is being served
	quick       atomic.Bool // the next answer is expected to be, see answered
	waits       atomic.Bool // nothing of a next request has come
	leaving     atomic.Bool // it is to end when it waits, see dismiss
	yields      int         // in a row, see yield
	glance      solo.Glance // for the next request: some clients have it ready
}

// quickAnswer is how long an answer takes at the most for the next one to be
// expected as soon: some times what one takes that waits for nothing, and less
// than a round trip to anywhere.
const quickAnswer = 25 * time.Microsecond

// answered notes how long the handler took. While requests come one by one, none
// is worth net/http's watch.
func (c *clientConn) answered(took time.Duration) {
	c.quick.Store(c.raw != nil && (took < quickAnswer || c.listener.solo.On()))
}

// await is told when c begins to wait for a request. It returns how much of one
// it has read by then, for who is alone: the last one to wait was c, too.
func (c *clientConn) await(b []byte) (n int, err error) {
	if c.listener.latest.Swap(c) != c { // its first request, or another one has had one since
		c.listener.solo.Crowded()
		c.yield()
		return 0, nil
	}
	c.listener.solo.Alone()
	if !c.listener.solo.On() {
		return 0, nil
	}
	return c.glance.Read(c.quiet, b)
}

// moved is told whenever something has come over c, or is to leave.
func (c *clientConn) moved() {
	if c.listener.latest.Load() != c {
		c.listener.solo.Crowded()
	}
}

// maxYields is how often in a row a connection yields. Who yields stays among
// those that can run, and the runtime asks for news of all others when none is
// left: the more yield, the longer the others wait.
const maxYields = 3

// yield lets the others go on before this connection looks for its next request.
// Just after an answer it would look in vain, and have to be woken. When the
// others have had their turn the request is often there. Without others it would
// only wake a thread that finds nothing to do.
func (c *clientConn) yield() {
	if c.yields++; c.yields > maxYields {
		c.yields = 0
		return
	}
	runtime.Gosched()
}

type clientConnKey struct{}

// withClientConn is a server's ConnContext.
func withClientConn(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*clientConn); ok {
		return context.WithValue(ctx, clientConnKey{}, c)
	}
	return ctx
}

// clientConnOf returns the connection that r came over, and over which no other
// request comes at the same time; nil if there is none like that.
func clientConnOf(r *http.Request) *clientConn {
	if r.ProtoMajor != 1 {
		return nil
	}
	c, _ := r.Context().Value(clientConnKey{}).(*clientConn)
	return c
}

func (c *clientConn) Read(b []byte) (int, error) {
	// net/http's watch reads a single byte and, unlike all else that it reads
	// for a server with NewServer's timeouts, for as long as it takes. Nothing,
	// and no error, is the end of it.
	if len(b) == 1 && c.quick.Load() && c.read.never() {
		return 0, nil
	}
	if c.waits.Load() {
		if n, err := c.await(b); n > 0 || err != nil {
			c.waits.Store(false)
			return n, err
		}
	}
	for {
		if c.leaving.Load() && c.waits.Load() && !c.pending() {
			return 0, os.ErrDeadlineExceeded
		}
		if err := c.read.begin(); err != nil {
			return 0, err
		}
		n, err := c.quiet.Read(b)
		if n > 0 {
			c.waits.Store(false)
			c.moved()
		}
		if !c.read.tooEarly(err) {
			return n, err
		}
	}
}

// dismiss ends the connection when it waits for a request, and none has come.
func (c *clientConn) dismiss() {
	c.leaving.Store(true)
	c.read.interrupt()
}

func (c *clientConn) Write(b []byte) (written int, err error) {
	c.moved()
	for {
		if err := c.write.begin(); err != nil {
			return written, err
		}
		n, err := c.quiet.Write(b[written:])
		written += n
		if !c.write.tooEarly(err) {
			return written, err
		}
	}
}

func (c *clientConn) SetReadDeadline(t time.Time) error  { return c.read.move(t) }
func (c *clientConn) SetWriteDeadline(t time.Time) error { return c.write.move(t) }

func (c *clientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.read.move(t), c.write.move(t))
}

// CloseWrite is what net/http looks for to close a connection without losing
// the response that it has just sent.
func (c *clientConn) CloseWrite() error {
	if socket, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return socket.CloseWrite()
	}
	return errors.ErrUnsupported
}
