package ingress

import (
	"bufio"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// Requests that all come over one connection are taken for one thing at a time;
// what comes or goes over another one ends that.
func TestLoneConnection(t *testing.T) {
	lone := solo.NewSwitch(func(bool) {})
	b := newBroker()
	feed := make(chan contract.Event)
	b.tail = func(ctx context.Context, _ string, fn func(contract.Event)) error { return relay(ctx, feed, fn) }
	server := NewServer(New(Config{Broker: b}), nil)
	server.Solo = lone
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-served
	}()
	b.call = func(_ context.Context, r contract.Call) (contract.Reply, error) {
		if n := lone.Busy(0); n < 1 {
			t.Errorf("while a request is handled, %d may wait for anything", n)
		}
		return contract.Reply{Body: r.Body}, nil
	}
	addr := l.Addr().String()
	one, slow, tail := dial(t, addr), dial(t, addr), dial(t, addr)
	get := func(c *client) {
		t.Helper()
		c.send(simple)
		c.wantAnswer("a request", false)
	}
	untilAlone := func() {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !lone.On(); get(one) {
			if time.Now().After(end) {
				t.Fatal("the only connection in use is not taken for alone")
			}
		}
	}
	for range 2 {
		untilAlone()
		for range 200 { // it looks for the next request by itself, in time or in vain
			get(one)
		}
		time.Sleep(time.Millisecond)
		get(one)
		if !lone.On() {
			t.Fatal("it is not alone any more, though no other connection is in use")
		}
		get(dial(t, addr))
		if lone.On() {
			t.Fatal("a request over another connection, and the first one is taken for alone")
		}
	}

	get(slow)
	untilAlone()
	slow.send("GET /pro")
	for end := time.Now().Add(5 * time.Second); lone.On(); time.Sleep(time.Millisecond) { // before the server gives the rest of it up
		if time.Now().After(end) {
			t.Fatal("the beginning of a request over another connection, and the first one is taken for alone")
		}
	}

	tail.send("GET /events?key=a.b HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	if status, err := tail.in.ReadString('\n'); err != nil || status != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("a live tail: got %q, %v", status, err)
	}
	untilAlone()
	feed <- contract.Event{Key: "a.b", ID: "1", Body: []byte("{}")}
	lines := bufio.NewScanner(tail.in)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
	}
	if lines.Text() == "" {
		t.Error("the event does not come")
	}
	if lone.On() {
		t.Error("an event over another connection, and the first one is taken for alone")
	}
	tail.conn.Close()
	for end := time.Now().Add(10 * time.Second); lone.Busy(0) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d may wait for anything, though no request is handled", lone.Busy(0))
		}
	}
}
