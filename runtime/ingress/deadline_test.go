package ingress

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// pair is a connection with lenient deadlines, and its other end.
func pair(t testing.TB) (lenient, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if other, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if lenient, err = (&clientListener{Listener: l}).Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lenient.Close() })
	return lenient, other
}

func TestLenientConnIsAConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = pair(t)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// An operation outlives the deadline that its socket still has of before, and
// ends at its own.
func TestLenientDeadlines(t *testing.T) {
	for name, c := range map[string]struct {
		operation func(net.Conn, []byte) error
		move      func(net.Conn, time.Time) error
		of        func(*clientConn) *deadline
	}{
		"read":  {func(c net.Conn, b []byte) error { _, err := c.Read(b); return err }, net.Conn.SetReadDeadline, func(c *clientConn) *deadline { return &c.read }},
		"write": {func(c net.Conn, b []byte) error { _, err := c.Write(b); return err }, net.Conn.SetWriteDeadline, func(c *clientConn) *deadline { return &c.write }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, other := pair(t)
			bytes := make([]byte, 32<<20) // more than both sockets hold
			in := func(d time.Duration) time.Time { return time.Now().Add(d) }
			end := func(what string, at time.Time) {
				t.Helper()
				if err := c.operation(conn, bytes); !isTimeout(err) {
					t.Errorf("%s: got %v, want a timeout", what, err)
				}
				if early := time.Until(at); early > 0 {
					t.Errorf("%s: it ended %v too early", what, early)
				}
			}

			if _, err := other.Write(bytes[:1]); err != nil {
				t.Fatal(err)
			}
			c.move(conn, in(50*time.Millisecond))
			_, _ = conn.Read(bytes[:1]) // if there is time, and then the socket knows of that
			_, _ = conn.Write(bytes[:1])
			own := in(200 * time.Millisecond)
			c.move(conn, own)
			end("the socket has an earlier one", own)

			moved := make(chan time.Time, 1)
			underWay := func(fn func()) {
				go func() { // ends with the operation that follows
					for d := c.of(conn.(*clientConn)); ; time.Sleep(time.Millisecond) {
						d.mu.Lock()
						busy := d.busy > 0
						d.mu.Unlock()
						if busy {
							fn()
							return
						}
					}
				}()
			}
			c.move(conn, time.Time{})
			underWay(func() {
				c.move(conn, in(500*time.Millisecond))
				at := in(600 * time.Millisecond)
				c.move(conn, at)
				moved <- at
			})
			end("moved to later while under way", time.Time{})
			if early := time.Until(<-moved); early > 0 {
				t.Errorf("moved to later while under way: it ended %v too early", early)
			}

			c.move(conn, time.Time{})
			underWay(func() { c.move(conn, time.Now()) })
			end("cut", time.Time{})
			end("too late to begin", time.Time{})
		})
	}
}

// Of two who move a deadline at the same time, the one who is overtaken does
// not undo what the other has done.
func TestTwoMoveADeadline(t *testing.T) {
	sooner, later := time.Now().Add(time.Second), time.Now().Add(time.Minute)
	var socket time.Time
	d := deadline{busy: 1}
	d.apply = func(at time.Time) error {
		if at.Equal(later) {
			d.move(sooner)
		}
		socket = at
		return nil
	}
	if err := d.move(later); err != nil || !socket.Equal(sooner) {
		t.Errorf("the socket has %v, %v; want %v", socket, err, sooner)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// The socket hears of far fewer deadlines than net/http sets for a request.
func TestSocketsHearOfFewDeadlines(t *testing.T) {
	conn, other := pair(t)
	heard := 0
	d := &conn.(*clientConn).read
	apply := d.apply
	d.apply = func(at time.Time) error { heard++; return apply(at) }
	b := make([]byte, 100)
	for range 100 { // what net/http does for a request and until the next one
		if _, err := other.Write(b); err != nil {
			t.Fatal(err)
		}
		for _, after := range []time.Duration{120 * time.Second, 0, 10 * time.Second, 40 * time.Second, 0} {
			at := time.Now().Add(after)
			if after == 0 {
				at = time.Time{}
			}
			conn.SetReadDeadline(at)
			if after == 120*time.Second {
				if _, err := conn.Read(b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if heard > 1 {
		t.Errorf("the socket was told %d times for 100 requests, want once", heard)
	}
}
