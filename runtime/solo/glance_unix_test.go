//go:build unix

package solo

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A glance finds what is there. The more of them are in vain, the more are left
// out; one that is not starts over.
func TestGlance(t *testing.T) {
	socket, peer := pair(t)
	conn := NewConn(socket, nil)

	g := Glance{lasts: time.Millisecond}
	b := make([]byte, 1)
	expect := func(when string, n int) {
		t.Helper()
		if got, err := g.Read(conn, b); got != n || err != nil {
			t.Fatalf("%s: a glance finds %d bytes and %v, want %d", when, got, err, n)
		}
	}
	answer := func() {
		t.Helper()
		if _, err := peer.Write([]byte("+")); err != nil {
			t.Fatal(err)
		}
		if err := conn.Socket().Read(isThere); err != nil {
			t.Fatal(err)
		}
	}
	ours, _ := net.Pipe()
	if n, err := g.Read(NewConn(ours, nil), b); n != 0 || err != nil || g.skip != 0 {
		t.Fatalf("without a socket %d bytes and %v are found, and %d glances left out", n, err, g.skip)
	}
	for i, skipped := range []int{1, 3, 7, 15, 31, 63, 63} {
		expect("nothing is there", 0)
		if g.skip != skipped {
			t.Fatalf("%d glances in vain: %d are left out, want %d", i+1, g.skip, skipped)
		}
		answer()
		for range skipped {
			expect("it is to be left out", 0)
		}
		if i < 6 {
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		expect("the answer is there", 1)
		answer()
	}
	expect("the last answer is there", 1)
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write([]byte("+")); err != nil {
		t.Fatal(err)
	}
	g.lasts = 10 * time.Second
	expect("a deadline has passed that is to be moved before the read that waits", 1)
	peer.Close()
	began := time.Now()
	expect("the connection has ended", 0)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a glance at a connection that has ended took %v", took)
	}
}

// isThere reports whether there is something to read from fd.
func isThere(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
	return !errors.Is(err, syscall.EAGAIN)
}
