package ingress

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/event"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/message"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/sse"
)

const (
	maxTails    = 64               // live tails at once
	heartbeat   = 15 * time.Second // keeps proxies from closing a quiet stream
	tailBacklog = 256              // events buffered for a slow client; more are dropped
)

// serveTail serves GET /events: the events whose key matches ?key= (all events
// without it) as server-sent events, as they are published. A client that is too
// slow misses some, and is told how many.
func (i *Ingress) serveTail(w http.ResponseWriter, r *http.Request, _ *routing.Table) {
	pattern, p := parsePattern(r)
	if p != nil {
		problem.Write(w, r, p)
		return
	}
	if r.Method == http.MethodHead {
		sse.SetHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return
	}
	if !i.tails.acquire() {
		problem.Write(w, r, i.tails.full(heartbeat))
		return
	}
	defer i.tails.release()

	t := i.startTail(r.Context(), pattern)
	defer func() {
		if err := t.stop(); err != nil {
			access.RecordOf(r.Context()).Cause = err
		}
	}()
	s := sse.Start(w)
	s.Comment("live tail of " + pattern)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for s.Err() == nil {
		select {
		case e := <-t.events:
			e.Body = redact(i.router.Table(), &e)
			s.Event(&e)
			if len(t.events) > 0 {
				continue // the client has not caught up yet
			}
			if n := t.dropped.Swap(0); n > 0 {
				s.Comment(fmt.Sprintf("%d events were dropped: this client is too slow", n))
			}
		case <-beat.C:
			s.Comment("still here")
		case <-t.ended:
			s.Comment("the tail has ended; connect again")
			return
		case <-i.drained:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// parsePattern returns the pattern of routing keys that r asks for.
func parsePattern(r *http.Request) (string, *problem.Problem) {
	if !header.Accepts(r.Header, "text", "event-stream") {
		return "", problem.New(http.StatusNotAcceptable, "the response is text/event-stream, which Accept excludes")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", problem.New(http.StatusBadRequest, "the query is not well formed: %v", err)
	}
	for name, values := range query {
		if name != "key" || len(values) > 1 {
			return "", problem.Invalid(contract.FieldError{Pointer: message.Pointer(name), Detail: "give one key, such as profile.*, and nothing else"})
		}
	}
	pattern := query.Get("key")
	if pattern == "" {
		pattern = "#"
	}
	return pattern, event.CheckPattern(pattern)
}

// tail receives events from the broker, for a client that may be slower.
type tail struct {
	events  chan contract.Event
	dropped atomic.Int64
	ended   chan struct{} // closed when the broker's Tail has returned
	err     error         // of the broker's Tail, once it has ended
	cancel  context.CancelFunc
}

// startTail starts a tail. The caller must stop it.
func (i *Ingress) startTail(ctx context.Context, pattern string) *tail {
	t := &tail{events: make(chan contract.Event, tailBacklog), ended: make(chan struct{})}
	ctx, t.cancel = context.WithCancel(ctx)
	go func() { // ends with ctx, at the latest after stop
		defer close(t.ended)
		t.err = i.cfg.Broker.Tail(ctx, pattern, func(e contract.Event) {
			select {
			case t.events <- e:
			default:
				t.dropped.Add(1)
			}
		})
	}()
	return t
}

// stop ends the tail and returns the error of the broker's Tail.
func (t *tail) stop() error {
	t.cancel()
	<-t.ended
	return t.err
}

// redact returns the event's body without the fields that a known function that
// reacts to it declares sensitive.
func redact(t *routing.Table, e *contract.Event) []byte {
	redacted := e.Body
	for _, f := range t.Functions() {
		if f.Sensitive && f.Kind == contract.KindEvent {
			redacted = contract.Redact(f.InputOf(e.Key), redacted)
		}
	}
	return redacted
}
