package ingress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Two servers are restarted in turn under load, as in a rolling restart. Each
// request that a client could send is answered.
func TestShutdownLosesNoRequest(t *testing.T) {
	const restarts = 10
	broker := newBroker()
	broker.call = func(_ context.Context, r contract.Call) (contract.Reply, error) {
		if rand.N(50) == 0 {
			time.Sleep(rand.N(50 * time.Millisecond)) // some calls run while the server stops
		}
		return contract.Reply{Body: r.Body}, nil
	}
	var servers [2]struct {
		addr string
		stop func()
	}
	begin := func(i int, addr string) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		front := New(Config{Broker: quietBroker{broker}})
		server, served := NewServer(front, nil), make(chan error, 1)
		server.Patience = time.Minute             // longer than the test takes
		go func() { served <- server.Serve(l) }() // ends with stop
		servers[i].addr = l.Addr().String()
		servers[i].stop = func() {
			front.Draining()
			if err := server.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("Serve: got %v, want that the server is closed", err)
			}
		}
	}
	var addrs [2]string
	for i := range servers {
		begin(i, "127.0.0.1:0")
		addrs[i] = servers[i].addr
	}
	over := make(chan struct{})
	var load sync.WaitGroup
	var answered, lost atomic.Int64
	for i := range 16 {
		c := &hammer{addrs: addrs, keepAlive: i%4 != 0, pause: i%4 == 1}
		load.Go(func() {
			defer c.hangUp()
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				if err := c.request(n); err != nil {
					lost.Add(1)
					t.Errorf("a request was lost (kept alive: %v, pauses: %v): %v", c.keepAlive, c.pause, err)
					c.hangUp()
				}
				answered.Add(1)
			}
		})
	}
	for i := range restarts {
		time.Sleep(50 * time.Millisecond) // under load
		servers[i%2].stop()
		begin(i%2, addrs[i%2])
	}
	close(over)
	load.Wait()
	for _, s := range servers {
		s.stop()
	}
	t.Logf("%d restarts: %d of %d requests were lost", restarts, lost.Load(), answered.Load())
}

// hammer is a client of two servers. When one refuses it, it uses the other one.
type hammer struct {
	addrs     [2]string
	keepAlive bool
	pause     bool // between requests, so that the connection is idle

	turn int
	conn net.Conn
	in   *bufio.Reader
}

// request makes one. An error says that it was sent and not answered.
func (h *hammer) request(n int) error {
	for h.conn == nil {
		h.turn++
		conn, err := net.Dial("tcp", h.addrs[h.turn%2])
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return err
		}
		h.conn, h.in = conn, bufio.NewReader(conn)
	}
	const body = `{"id":"42"}`
	method, fields := "POST /functions/plain", fmt.Sprintf("Content-Length: %d\r\n", len(body))
	if n%2 == 0 {
		method, fields = "GET /profiles/42", ""
	}
	if !h.keepAlive {
		fields += "Connection: close\r\n"
	}
	sent := method + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n"
	if n%2 != 0 {
		sent += body
	}
	if _, err := io.WriteString(h.conn, sent); err != nil {
		return err
	}
	r, err := http.ReadResponse(h.in, nil)
	if err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	if r.Close {
		h.hangUp()
	}
	if h.pause {
		time.Sleep(rand.N(10 * time.Millisecond))
	}
	return nil
}

func (h *hammer) hangUp() {
	if h.conn != nil {
		_ = h.conn.Close()
		h.conn = nil
	}
}

// stopAfter starts a server for front, lets prepare connect to it, and stops it.
// It returns when the server takes no more connections.
func stopAfter(t *testing.T, front *Ingress, patience time.Duration, prepare func(addr string)) (stopped chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(front, nil)
	server.Patience = patience
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // ends with Shutdown
	prepare(l.Addr().String())
	front.Draining()
	stopped = make(chan error, 1)
	go func() { stopped <- server.Shutdown(t.Context()) }() // ends when the clients have left
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: got %v, want that the server is closed", err)
	}
	return stopped
}

// client is a connection of a client.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// wantAnswer reads a 200, and whether the connection ends with it.
func (c *client) wantAnswer(what string, last bool) {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatalf("%s: got %v, want an answer", what, err)
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK || r.Close != last {
		c.t.Errorf("%s: got %d, %v, the connection ends: %v; want 200, and %v", what, r.StatusCode, err, r.Close, last)
	}
}

// wantEnd waits until the server closes the connection.
func (c *client) wantEnd(what string) {
	c.t.Helper()
	if n, err := c.in.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		c.t.Errorf("%s: got %d bytes, %v; want the end", what, n, err)
	}
}

const plain = "POST /functions/plain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"

const simple = "GET /profiles/42 HTTP/1.1\r\nHost: x\r\n\r\n"

// A client that has a connection may use it while the server stops, in whatever
// state the connection is. With the response the client learns that it ends.
func TestShutdownWaitsForClients(t *testing.T) {
	b := newBroker()
	under, finish := make(chan bool), make(chan bool)
	b.call = func(_ context.Context, r contract.Call) (contract.Reply, error) {
		if r.Key == "plain" {
			under <- true
			<-finish
		}
		return contract.Reply{Body: r.Body}, nil
	}
	var fresh, idle, midway, busy *client
	stopped := stopAfter(t, New(Config{Broker: b}), time.Minute, func(addr string) {
		fresh, idle, midway, busy = dial(t, addr), dial(t, addr), dial(t, addr), dial(t, addr)
		idle.send(simple)
		idle.wantAnswer("before", false)
		midway.send(simple[:10])
		busy.send(plain)
		<-under
	})
	fresh.send(simple)
	fresh.wantAnswer("over a connection that was new", true)
	idle.send(simple)
	idle.wantAnswer("over a connection that was idle", true)
	midway.send(simple[10:])
	midway.wantAnswer("of which half was sent", true)
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown: got %v while a request was served", err)
	default:
	}
	finish <- true
	busy.wantAnswer("that was served", true)
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// After Patience idle connections are closed, and no others.
func TestShutdownLosesPatience(t *testing.T) {
	b := newBroker()
	under, finish := make(chan bool), make(chan bool)
	large := []byte(`"` + strings.Repeat("x", 16<<20) + `"`) // more than sockets hold
	b.call = func(_ context.Context, r contract.Call) (contract.Reply, error) {
		if r.Key == "plain" {
			return contract.Reply{Body: large}, nil
		}
		under <- true
		<-finish
		return contract.Reply{Body: r.Body}, nil
	}
	var fresh, midway, busy, slow *client
	var answer *http.Response
	stopped := stopAfter(t, New(Config{Broker: b}), 0, func(addr string) {
		fresh, midway, busy, slow = dial(t, addr), dial(t, addr), dial(t, addr), dial(t, addr)
		midway.send(simple[:10])
		busy.send(simple)
		<-under
		slow.send(plain)
		var err error
		if answer, err = http.ReadResponse(slow.in, nil); err != nil {
			t.Fatal(err)
		}
	})
	fresh.wantEnd("a silent client")
	if n, err := io.Copy(io.Discard, answer.Body); n != int64(len(large)) || err != nil || answer.Close {
		t.Errorf("an answer that began before: got %d bytes, %v; want %d", n, err, len(large))
	}
	slow.wantEnd("a client that could not be told that the connection ends")
	midway.send(simple[10:])
	<-under
	close(finish)
	midway.wantAnswer("of which half was sent", true)
	busy.wantAnswer("that was served", true)
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Connections that are not TCP are shut down as http.Server does it.
func TestShutdownOfAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(New(Config{Broker: newBroker()}), nil)
	server.Patience = time.Minute
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // ends with Shutdown
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{t, conn, bufio.NewReader(conn)}
	c.send(simple)
	c.wantAnswer("before", false)
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	c.wantEnd("afterwards")
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: got %v, want that the server is closed", err)
	}
}

// A client of HTTP/2 that keeps its connection is told to close it.
func TestShutdownOfHTTP2(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(New(Config{Broker: newBroker()}), nil)
	server.ReadHeaderTimeout = 10 * time.Millisecond // the longest that a request's header fields take
	server.Protocols = new(http.Protocols)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // ends with Shutdown
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer client.CloseIdleConnections()
	r, err := client.Get("http://" + l.Addr().String() + "/profiles/42")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	<-served
}
