//go:build unix

package solo

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pair returns a connection, and its peer.
func pair(t *testing.T) (conn, peer *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialed.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}

// Whatever the switch, all comes over that is written, in both directions at
// once, and more than a socket takes.
func TestConnCarriesAll(t *testing.T) {
	for name, s := range map[string]*Switch{"no switch": nil, "off": NewSwitch(func(bool) {}), "on": switchedOn(t)} {
		t.Run(name, func(t *testing.T) {
			socket, peer := pair(t)
			conn := NewConn(socket, s)
			go func() { // echoes, and ends with its peer
				_, _ = io.Copy(peer, peer)
				_ = peer.CloseWrite()
			}()
			sent := make([]byte, 20<<20)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			written := make(chan error, 1)
			go func() {
				rest := sent
				for size := 1; len(rest) > 0; size *= 3 {
					b := rest[:min(size, len(rest))]
					if n, err := conn.Write(b); err != nil || n != len(b) {
						written <- errors.Join(err, io.ErrShortWrite)
						return
					}
					rest = rest[len(b):]
				}
				written <- socket.CloseWrite()
			}()
			got, err := io.ReadAll(conn) // to the end
			if err = errors.Join(err, <-written); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back that are not the %d sent", len(got), len(sent))
			}
		})
	}
}

// A read that waits ends with its deadline, with the connection, and goes on
// when the switch is turned.
func TestConnWaits(t *testing.T) {
	s := switchedOn(t)
	socket, peer := pair(t)
	conn := NewConn(socket, s)
	b := make([]byte, 10)
	for range 2 {
		if err := conn.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("past its deadline: got %d bytes and %v, want a deadline exceeded", n, err)
		}
	}
	if n, err := conn.Write([]byte("late")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a write past its deadline: wrote %d bytes, %v, want a deadline exceeded", n, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	answer := time.AfterFunc(20*time.Millisecond, func() {
		s.Crowded()
		_, _ = peer.Write([]byte("hello"))
	})
	defer answer.Stop()
	if n, err := conn.Read(b); string(b[:n]) != "hello" || err != nil {
		t.Fatalf("while the switch is turned: got %q and %v, want hello", b[:n], err)
	}
	conn = NewConn(socket, switchedOn(t))
	end := time.AfterFunc(20*time.Millisecond, func() { _ = conn.Close() })
	defer end.Stop()
	if n, err := conn.Read(b); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("closed meanwhile: got %d bytes and %v, want net.ErrClosed", n, err)
	}
	if n, err := conn.Write(b); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("a write after the end: wrote %d bytes, %v, want net.ErrClosed", n, err)
	}
}

// A reset shows as one, with the addresses, whoever meets it: the system tells
// of it once.
func TestConnIsReset(t *testing.T) {
	for name, read := range map[string]func(*Conn) error{
		"by a read": func(c *Conn) error {
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"by a glance": func(c *Conn) error {
			g := Glance{lasts: 10 * time.Second}
			_, err := g.Read(c, make([]byte, 1))
			return err
		},
	} {
		for when, after := range map[string]time.Duration{"before": 0, "meanwhile": 20 * time.Millisecond} {
			t.Run(name+", "+when, func(t *testing.T) {
				socket, peer := pair(t)
				conn := NewConn(socket, switchedOn(t))
				if err := peer.SetLinger(0); err != nil {
					t.Fatal(err)
				}
				reset := make(chan error, 1)
				go func() {
					time.Sleep(after)
					reset <- peer.Close()
				}()
				if after == 0 {
					reset <- <-reset // it has been
				}
				err := read(conn)
				if netErr, ok := errors.AsType[*net.OpError](err); !ok || !errors.Is(err, syscall.ECONNRESET) ||
					netErr.Op != "read" || netErr.Addr.String() != socket.RemoteAddr().String() {
					t.Errorf("got %v, want a read from %v that was reset", err, socket.RemoteAddr())
				}
				if err := <-reset; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A write makes way while the switch is on, and not otherwise.
func TestConnMakesWay(t *testing.T) {
	socket, _ := pair(t)
	for name, x := range map[string]struct {
		on   *Switch
		left int
	}{"on": {switchedOn(t), 9}, "off": {NewSwitch(func(bool) {}), 10}} {
		conn := NewConn(socket, x.on)
		conn.way.stay = 10
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if conn.way.stay != x.left {
			t.Errorf("%s: %d times are left that no way is made, want %d", name, conn.way.stay, x.left)
		}
	}
}

// What is no socket is used as it is.
func TestConnWithoutASocket(t *testing.T) {
	ours, peer := net.Pipe()
	defer peer.Close()
	conn := NewConn(ours, switchedOn(t))
	defer conn.Close()
	go func() { _, _ = io.Copy(peer, peer) }() // ends with peer
	if n := conn.WriteSome([]byte("hello")); n != 0 {
		t.Errorf("a write that does not wait wrote %d bytes, want none", n)
	}
	b := make([]byte, 5)
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b); string(b) != "hello" || err != nil {
		t.Errorf("got %q and %v, want hello", b, err)
	}
}

// Work that computes on and on after a quiet read does not keep other work from
// the only processor, though nothing happens here that would wake the runtime's
// monitor: the peer of both is another process.
func TestComputingIsInterrupted(t *testing.T) {
	const peerOf = "SOLO_TEST_PEER_OF"
	if address := os.Getenv(peerOf); address != "" {
		bePeer(t, address)
		return
	}
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	peer.Env = append(os.Environ(), peerOf+"="+l.Addr().String())
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Wait() }()
	s := switchedOn(t)
	var conns [2]*Conn
	for i := range conns {
		socket, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		conns[i] = NewConn(socket, s)
	}
	var came atomic.Bool
	go func() { // ends with its connection
		if n, _ := conns[1].Read(make([]byte, 1)); n > 0 {
			came.Store(true)
		}
	}()
	if n, err := conns[0].Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	for began, spins := time.Now(), 0; !came.Load(); spins++ {
		if spins%1000 == 0 && time.Since(began) > 5*time.Second {
			t.Fatal("for 5 s of computing nobody else was let to the processor")
		}
	}
}

// bePeer sends a byte over one connection, and then over another.
func bePeer(t *testing.T, address string) {
	var conns [2]net.Conn
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for _, conn := range conns {
		time.Sleep(200 * time.Millisecond) // all is quiet there
		if _, err := conn.Write([]byte("+")); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = conns[0].Read(make([]byte, 1)) // until it is over
}
