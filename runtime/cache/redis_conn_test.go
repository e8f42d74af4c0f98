package cache

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The client looks through a connection that has rested, and through all of them
// once one has failed; not through one that has just answered.
func TestRedisConnIsLookedThrough(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conns := newRedisConns(&redis.UniversalOptions{DialTimeout: time.Minute})
	dial := func() (*redisConn, net.Conn) {
		t.Helper()
		c, err := conns.Dial(context.Background(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		return c.(*redisConn), server
	}
	one, server := dial()
	other, otherServer := dial()
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
	answer := func() {
		t.Helper()
		if _, err := server.Write([]byte("+PONG")); err != nil {
			t.Fatal(err)
		}
		if _, err := one.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
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
