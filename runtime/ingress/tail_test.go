package ingress

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// relay calls fn with the events from feed until ctx is done, as a broker's Tail
// does.
func relay(ctx context.Context, feed <-chan contract.Event, fn func(contract.Event)) error {
	for {
		select {
		case e := <-feed:
			fn(e)
		case <-ctx.Done():
			return nil
		}
	}
}

func TestTailStreamsEvents(t *testing.T) {
	b := newBroker()
	feed, patterns, ended := make(chan contract.Event), make(chan string, 1), make(chan struct{})
	b.tail = func(ctx context.Context, pattern string, fn func(contract.Event)) error {
		defer close(ended)
		patterns <- pattern
		return relay(ctx, feed, fn)
	}
	server := httptest.NewServer(New(Config{Broker: b}))
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/events?key=profile.%2A", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", "text/event-stream")
	r, err := server.Client().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/event-stream" || r.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	if got := <-patterns; got != "profile.*" {
		t.Errorf("pattern %q", got)
	}
	lines := bufio.NewScanner(r.Body)
	next := func() string { // the next line with data
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return data
			}
		}
		t.Fatal("the stream ended")
		return ""
	}
	feed <- contract.Event{Key: "profile.updated", ID: "1", Body: []byte("{\n \"id\": 4\n}")}
	if got, want := next(), `{"key":"profile.updated","id":"1","data":{"id":4}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	feed <- contract.Event{Key: "profile.raw", ID: "2", Body: []byte("\n\n\xff")}
	if got, want := next(), `{"key":"profile.raw","id":"2","data_base64":"Cgr/"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	feed <- contract.Event{Key: "profile.odd", ID: "3", Body: []byte("\"\xff\"")} // JSON has to be UTF-8, and so has the stream
	if got, want := next(), `{"key":"profile.odd","id":"3","data_base64":"Iv8i"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, year := range []int{-1, 10_000} { // AMQP can say what JSON cannot
		feed <- contract.Event{Key: "profile.updated", ID: "4", Body: []byte("1"), Time: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)}
		if got, want := next(), `{"key":"profile.updated","id":"4","data":1}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	leave()
	<-ended // the broker's tail ends with the client
}

func TestTailRedactsWhatIsSensitive(t *testing.T) {
	b := newBroker()
	d := contract.Descriptor{Name: "on-payment", Kind: contract.KindEvent, Keys: []string{"paid.#"}, Sensitive: true, Timeout: time.Second,
		Reactions: []contract.Reaction{{Keys: []string{"paid.#"}, Input: []byte(`{"type":"object","properties":{"card":{"type":"string","x-sensitive":true}}}`)}}}
	b.announce("w2", d)
	table := New(Config{Broker: b}).router.Table()
	for key, want := range map[string]string{
		"paid.now":  `{"id":1,"card":"[redacted]"}`,
		"paid":      `{"id":1,"card":"[redacted]"}`,
		"paid-else": `{"id":1, "card":"4111"}`,
	} {
		if got := string(redact(table, &contract.Event{Key: key, Body: []byte(`{"id":1, "card":"4111"}`)})); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}

func TestTailBeatsAndEndsWithTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker()
		b.tail = func(ctx context.Context, _ string, _ func(contract.Event)) error { <-ctx.Done(); return nil }
		h := New(Config{Broker: b})
		w := httptest.NewRecorder()
		served := make(chan struct{})
		go func() {
			defer close(served)
			h.ServeHTTP(w, httptest.NewRequest("GET", "/events", nil))
		}()
		time.Sleep(2*heartbeat + time.Second) // in the bubble: takes no time
		h.Draining()
		<-served
		if n := strings.Count(w.Body.String(), ": still here\n\n"); n != 2 {
			t.Errorf("%d heartbeats in %q, want 2", n, w.Body)
		}
	})
}

func TestTailTellsOfDroppedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker()
		blocked := &slowWriter{ResponseRecorder: httptest.NewRecorder(), release: make(chan struct{})}
		b.tail = func(ctx context.Context, _ string, fn func(contract.Event)) error {
			for range tailBacklog + 50 {
				fn(contract.Event{Key: "k", Body: []byte("{}")})
			}
			close(blocked.release)
			<-ctx.Done()
			return nil
		}
		h := New(Config{Broker: b})
		served := make(chan struct{})
		go func() {
			defer close(served)
			h.ServeHTTP(blocked, httptest.NewRequest("GET", "/events", nil))
		}()
		synctest.Wait()
		h.Draining()
		<-served
		body := blocked.Body.String()
		if got := strings.Count(body, "data: "); got != tailBacklog || !strings.Contains(body, "50 events were dropped") {
			t.Errorf("%d events, want %d, and a comment about the 50 others: %.300s", got, tailBacklog, body)
		}
	})
}

// slowWriter blocks writes until it is released.
type slowWriter struct {
	*httptest.ResponseRecorder
	release chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	<-w.release
	return w.ResponseRecorder.Write(b)
}

func TestTailRefused(t *testing.T) {
	h := New(Config{Broker: newBroker()})
	for target, want := range map[string]int{
		"/events?key=" + strings.Repeat("k", 256): 400,
		"/events?key=a%0A":                        400,
		"/events?kex=a":                           422,
		"/events?key=a&key=b":                     422,
	} {
		if p := readProblem(t, do(h, "GET", target, "", "Accept: text/event-stream")); p.Status != want {
			t.Errorf("%.40s: %d, want %d", target, p.Status, want)
		}
	}
	if p := readProblem(t, do(h, "GET", "/events", "", "Accept: application/json")); p.Status != 406 {
		t.Errorf("Accept: application/json: %d, want 406", p.Status)
	}
}
