package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const (
	heartbeat   = 15 * time.Second // keeps proxies from taking a quiet stream for dead
	tailBacklog = 256              // events kept for a slow client; more are dropped
	tailWrite   = 10 * time.Second // for one event to reach the client's side
)

// tailed is one event on a live tail.
type tailed struct {
	Key         string          `json:"key"`
	ID          string          `json:"id"`
	Type        string          `json:"type,omitempty"`
	ContentType string          `json:"contentType,omitempty"`
	Time        time.Time       `json:"time,omitzero"`
	Data        json.RawMessage `json:"data,omitempty"`        // if it is JSON
	DataBase64  []byte          `json:"data_base64,omitempty"` // if it is not
}

// tail serves GET /events: the events whose key fits ?key= (all without), as
// server-sent events, as they pass. A client that is too slow misses some, and
// is told how many.
func (x *exchange) tail(*routes) {
	pattern, p := tailPattern(x.request)
	if p == nil && x.request.Method == http.MethodHead {
		x.set("Content-Type", "text/event-stream")
		x.WriteHeader(http.StatusOK)
		return
	}
	if p != nil {
		x.fail(p)
		return
	}
	if x.ingress.tails.Add(1) > maxTails {
		x.ingress.tails.Add(-1)
		p := refuse(http.StatusServiceUnavailable, "there are %d live tails already", maxTails)
		p.Retryable, p.after = true, heartbeat
		x.fail(p)
		return
	}
	defer x.ingress.tails.Add(-1)

	ctx, cancel := context.WithCancel(x.context())
	events, ended := make(chan contract.Event, tailBacklog), make(chan error, 1)
	var dropped atomic.Int64
	go func() { // ends with ctx, at the latest when the handler returns
		ended <- x.ingress.cfg.Broker.Tail(ctx, pattern, func(e contract.Event) {
			select {
			case events <- e:
			default:
				dropped.Add(1)
			}
		})
	}()
	running := true
	defer func() {
		cancel()
		if running {
			x.cause = <-ended
		}
	}()

	s := x.stream()
	s.comment("live tail of " + pattern)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for s.err == nil {
		select {
		case e := <-events:
			e.Body = x.ingress.current().redact(&e)
			s.event(&e)
			if len(events) > 0 {
				continue // it has not caught up yet
			}
			if n := dropped.Swap(0); n > 0 {
				s.comment(fmt.Sprintf("%d events were dropped: this client is too slow", n))
			}
		case <-beat.C:
			s.comment("still here")
		case x.cause = <-ended:
			running = false
			s.comment("the tail has ended; connect again")
			return
		case <-x.ingress.drained:
			return
		case <-ctx.Done():
			return
		}
	}
}

// redact returns the event's body without what a function that reacts to it
// calls sensitive, as far as this ingress has met that function.
func (t *routes) redact(e *contract.Event) []byte {
	body := e.Body
	for _, f := range t.functions {
		if f.Sensitive && f.Kind == contract.KindEvent {
			body = contract.Redact(f.InputOf(e.Key), body)
		}
	}
	return body
}

// jsonTime reports whether JSON has a way to say when t is (RFC 3339): what
// comes over AMQP may be of any year.
func jsonTime(t time.Time) bool {
	year := t.UTC().Year()
	return 0 <= year && year <= 9999
}

func tailPattern(r *http.Request) (string, *problem) {
	if !accepts(r.Header, "text", "event-stream") {
		return "", refuse(http.StatusNotAcceptable, "the answer is text/event-stream, which Accept excludes")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "the query is not well formed: %v", err)
	}
	for name, values := range query {
		if name != "key" || len(values) > 1 {
			return "", unfit(contract.FieldError{Pointer: pointer(name), Detail: "give one key, such as profile.*, and nothing else"})
		}
	}
	pattern := query.Get("key")
	if pattern == "" {
		pattern = "#"
	}
	if len(pattern) > maxShort {
		return "", checkKey(pattern)
	}
	if i := bytes.IndexFunc([]byte(pattern), func(c rune) bool { return c < ' ' || c == 0x7f }); i >= 0 {
		return "", refuse(http.StatusBadRequest, "the key contains a control character")
	}
	return pattern, nil
}

// stream writes server-sent events, each at once.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error // the first one; nothing is written after it
}

func (x *exchange) stream() *stream {
	x.set("Content-Type", "text/event-stream")
	x.set("X-Accel-Buffering", "no") // NGINX
	x.WriteHeader(http.StatusOK)
	return &stream{w: x, control: http.NewResponseController(x)}
}

func (s *stream) event(e *contract.Event) {
	t := tailed{Key: e.Key, ID: e.ID, Type: e.Type, ContentType: e.ContentType, Time: e.Time}
	if !jsonTime(t.Time) {
		t.Time = time.Time{}
	}
	if malformed(e.Body) == nil {
		t.Data = e.Body
	} else {
		t.DataBase64 = e.Body
	}
	data, err := json.Marshal(t) // on one line, whatever the body looks like
	if err != nil {
		s.err = err
		return
	}
	s.write("data: %s\n\n", data)
}

func (s *stream) comment(text string) { s.write(": %s\n\n", text) }

func (s *stream) write(format string, a any) {
	if s.err != nil {
		return
	}
	// Not every ResponseWriter has deadlines; a connection has.
	_ = s.control.SetWriteDeadline(time.Now().Add(tailWrite))
	if _, s.err = fmt.Fprintf(s.w, format, a); s.err == nil {
		s.err = s.control.Flush()
	}
}
