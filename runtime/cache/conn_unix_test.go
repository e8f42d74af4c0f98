//go:build unix

package cache

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// A glance finds what is there. The more of them are in vain, the more are left
// out; one that is not starts over.
func TestConnGlances(t *testing.T) {
	c, server := dialed(t, &conns{dial: new(net.Dialer).DialContext})
	b := make([]byte, 1)
	answer := func() {
		t.Helper()
		if _, err := server.Write([]byte("+")); err != nil {
			t.Fatal(err)
		}
		if err := c.raw.Read(isThere); err != nil {
			t.Fatal(err)
		}
	}
	for i, skipped := range []int{1, 3, 7, 15, 31, 63, 63} {
		if n := c.glance(b); n != 0 {
			t.Fatalf("a glance in vain finds %d bytes", n)
		}
		if c.skip != skipped {
			t.Fatalf("%d glances in vain: %d are left out, want %d", i+1, c.skip, skipped)
		}
		answer()
		for range skipped {
			if n := c.glance(b); n != 0 {
				t.Fatalf("a glance that is to be left out finds %d bytes", n)
			}
		}
		if i < 6 {
			if _, err := io.ReadFull(c.Conn, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if n := c.glance(b); n != 1 {
			t.Fatalf("a glance finds %d bytes, want the answer", n)
		}
		answer()
	}
	if n := c.glance(b); n != 1 {
		t.Fatalf("a glance finds %d bytes, want the answer", n)
	}
	server.Close()
	if n := c.glance(b); n != 0 {
		t.Fatalf("a glance at a connection that has ended finds %d bytes", n)
	}
}

// isThere reports whether there is something to read from fd.
func isThere(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
	return !errors.Is(err, syscall.EAGAIN)
}
