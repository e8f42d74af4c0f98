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
	if lenient, err = (lenientListener{l}).Accept(); err != nil {
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
	const old, wanted = 30 * time.Millisecond, 150 * time.Millisecond
	full := make([]byte, 32<<20) // more than both sockets hold
	for name, c := range map[string]struct {
		operation func(net.Conn) error
		move      func(net.Conn, time.Time) error
	}{
		"read":  {func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, net.Conn.SetReadDeadline},
		"write": {func(c net.Conn) error { _, err := c.Write(full); return err }, net.Conn.SetWriteDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _ := pair(t)
			took := func() time.Duration {
				began := time.Now()
				if err := c.operation(conn); !isTimeout(err) {
					t.Errorf("got %v, want a timeout", err)
				}
				return time.Since(began)
			}
			c.move(conn, time.Now().Add(old))
			if d := took(); d < old {
				t.Errorf("ended after %v, want no sooner than %v", d, old)
			}
			c.move(conn, time.Now().Add(old))
			go func() { // ends by itself
				time.Sleep(old / 2)
				c.move(conn, time.Now().Add(wanted))
			}()
			if d := took(); d < wanted {
				t.Errorf("moved to later while under way: ended after %v, want no sooner than %v", d, wanted)
			}
			c.move(conn, time.Time{})
			go func() { // ends by itself
				time.Sleep(old)
				c.move(conn, time.Now())
			}()
			if d := took(); d < old {
				t.Errorf("cut: ended after %v, want no sooner than %v", d, old)
			}
			took() // too late to begin
		})
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
	d := &conn.(*lenientConn).read
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
