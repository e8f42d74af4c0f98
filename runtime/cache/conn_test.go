package cache

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
)

// The client looks through a connection that has rested, and through all of them
// once one has failed; not through one that has just answered.
func TestConnIsLookedThrough(t *testing.T) {
	all := &conns{dial: new(net.Dialer).DialContext}
	one, server := dialed(t, all)
	other, otherServer := dialed(t, all)
	expect := func(when string, want bool) {
		t.Helper()
		socket, err := one.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		looked := false
		if err := socket.Read(func(uintptr) bool { looked = true; return true }); err != nil {
			t.Fatal(err)
		}
		if looked != want {
			t.Errorf("%s: looked through: %v, want %v", when, looked, want)
		}
	}
	answer := func() { t.Helper(); answered(t, one, server) }
	expect("new", true)
	answer()
	expect("it has just answered", false)
	one.answered = one.answered.Add(-trusted)
	expect("it has rested", true)
	answer()
	otherServer.Close()
	if _, err := other.Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection that was closed answers")
	}
	expect("another one has failed", true)
	answer()
	expect("it has answered since", false)
	other.Close()
	if _, err := other.Write([]byte("PING")); err == nil {
		t.Fatal("a connection that is closed takes a question")
	}
	expect("another one could not ask", true)
}

// Only a question that is alone, after many that were, is worth a glance: any
// other has better things to do. What fails does not count as under way for ever.
func TestConnKnowsWhetherItIsAlone(t *testing.T) {
	all := &conns{dial: new(net.Dialer).DialContext}
	one, server := dialed(t, all)
	other, _ := dialed(t, all)
	ask := func(c *conn) {
		t.Helper()
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
	}
	answer := func() { t.Helper(); answered(t, one, server) }
	expect := func(when string, asking, alone int32) {
		t.Helper()
		if a, b := all.asking.Load(), all.alone.Load(); a != asking || b != alone {
			t.Errorf("%s: %d ask and %d in a row were alone, want %d and %d", when, a, b, asking, alone)
		}
	}
	ask(one)
	ask(one) // in two writes
	expect("one asks", 1, 1)
	answer()
	ask(one)
	answer()
	expect("one has asked twice", 0, 2)
	ask(one)
	ask(other)
	expect("another one asks meanwhile", 2, 0)
	answer()
	other.Close()
	expect("the other one has gone", 0, 0)
	ask(one)
	expect("one asks again", 1, 1)
	server.Close()
	if _, err := one.Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection that was closed answers")
	}
	one.Close()
	expect("both have gone", 0, 1)

	all.alone.Store(aloneSince)
	third, _ := dialed(t, all)
	ask(third)
	expect("many were alone", 1, aloneSince)
}

// What a glance finds out of a connection is not lost.
func TestConnIsResetAtAGlance(t *testing.T) {
	all := &conns{dial: new(net.Dialer).DialContext}
	all.alone.Store(aloneSince)
	c, server := dialed(t, all)
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if err := server.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want that it was reset", err)
	}
	if all.failed.Load() == 0 {
		t.Error("the connection has not failed")
	}
}

// answered sends an answer from server, and reads it from c.
func answered(t *testing.T, c *conn, server net.Conn) {
	t.Helper()
	if _, err := server.Write([]byte("+PONG")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

// dialed returns a new connection of all, and its other end.
func dialed(t *testing.T, all *conns) (c *conn, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := all.Dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return dialed.(*conn), server
}
