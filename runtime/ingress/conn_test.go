package ingress

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// Requests that all come over one connection are taken for one thing at a time;
// what comes or goes over another one ends that.
func TestLoneConnection(t *testing.T) {
	lone := solo.NewSwitch(func(bool) {})
	b := newBroker()
	feed := make(chan faas.Event)
	b.tail = func(ctx context.Context, _ string, fn func(faas.Event)) error {
		for {
			select {
			case e := <-feed:
				fn(e)
			case <-ctx.Done():
				return nil
			}
		}
	}
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
	get := func(c *http.Client) {
		t.Helper()
		r, err := c.Get("http://" + l.Addr().String() + "/profiles/1")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != http.StatusOK {
			t.Fatalf("status %d", r.StatusCode)
		}
	}
	one, other := &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{}}
	defer one.CloseIdleConnections()
	defer other.CloseIdleConnections()
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
		get(other)
		if lone.On() {
			t.Fatal("a request over another connection, and the first one is taken for alone")
		}
	}

	slow, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	send := func(text string) {
		t.Helper()
		if _, err := io.WriteString(slow, text); err != nil {
			t.Fatal(err)
		}
	}
	send("GET /profiles/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(slow), nil); err != nil {
		t.Fatal(err)
	}
	untilAlone()
	send("GET /pro")
	for end := time.Now().Add(5 * time.Second); lone.On(); time.Sleep(time.Millisecond) { // before the server gives the rest of it up
		if time.Now().After(end) {
			t.Fatal("the beginning of a request over another connection, and the first one is taken for alone")
		}
	}

	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/events?key=a.b", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", "text/event-stream")
	tail, err := other.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Body.Close()
	untilAlone()
	feed <- faas.Event{Key: "a.b", ID: "1", Body: []byte("{}")}
	lines := bufio.NewScanner(tail.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
	}
	if lines.Text() == "" {
		t.Error("the event does not come")
	}
	if lone.On() {
		t.Error("an event over another connection, and the first one is taken for alone")
	}
}
