package ingress

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// Requests that all come over one connection are taken for one thing at a time;
// what comes over another one ends that.
func TestLoneConnection(t *testing.T) {
	lone := solo.NewSwitch(func(bool) {})
	server := NewServer(New(Config{Broker: newBroker()}), nil)
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
	for range 2 {
		for end := time.Now().Add(20 * time.Second); !lone.On(); get(one) {
			if time.Now().After(end) {
				t.Fatal("the only connection is not taken for alone")
			}
		}
		for range 200 { // it looks for the next request by itself, in time or in vain
			get(one)
		}
		time.Sleep(time.Millisecond)
		get(one)
		if !lone.On() {
			t.Fatal("it is not alone any more, though there is no other connection")
		}
		get(other)
		if lone.On() {
			t.Fatal("there is another connection, and the first one is taken for alone")
		}
	}
}
