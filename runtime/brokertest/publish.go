package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func everyFunctionOnce(s *system) {
	const n = 20
	got := make(chan string, 10*n)
	record := func(name string) contract.Function {
		return onEvent(name, func(_ context.Context, e contract.Event) error {
			got <- name + " " + e.ID
			return nil
		}, faas.Keys("order.placed"))
	}
	s.serve(record("bill"), record("ship"))
	s.serve(record("bill"), record("ship"))
	b := s.broker()
	var want []string
	for i := range n {
		id := fmt.Sprintf("e%02d", i)
		s.publish(b, contract.Event{Key: "order.placed", ID: id})
		want = append(want, "bill "+id, "ship "+id)
	}
	s.publish(b, contract.Event{Key: "order.placed", ID: "last"})
	want = append(want, "bill last", "ship last")
	s.exactly(got, want)
}

// exactly waits for as many values as want has, and fails unless they are the same
// in any order.
func (s *system) exactly(got <-chan string, want []string) {
	s.Helper()
	var all []string
	for range want {
		all = append(all, receive(s.T, got, "an event"))
	}
	for len(got) > 0 {
		all = append(all, <-got)
	}
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		s.Errorf("got %v, want %v", all, want)
	}
}

func patterns(s *system) {
	got := make(chan string, 100)
	record := func(name string, keys ...string) contract.Function {
		return onEvent(name, func(_ context.Context, e contract.Event) error {
			got <- name + " " + e.Key
			return nil
		}, faas.Keys(keys...))
	}
	s.serve(record("all", "order.#"), record("word", "order.*"), record("exact", "order.placed"), record("middle", "*.eu.#"))
	b := s.broker()
	for _, key := range []string{"order", "order.placed", "order.eu.placed", "user.eu"} {
		s.publish(b, contract.Event{Key: key})
	}
	s.exactly(got, []string{
		"all order", "all order.placed", "word order.placed", "exact order.placed",
		"all order.eu.placed", "middle order.eu.placed", "middle user.eu",
	})
}

func oneCopyForSeveralKeys(s *system) {
	got := make(chan string, 10)
	s.serve(onEvent("audit", func(_ context.Context, e contract.Event) error {
		got <- e.ID
		return nil
	}, faas.Keys("order.#", "order.placed", "#"), faas.Concurrency(1)))
	b := s.broker()
	s.publish(b, contract.Event{Key: "order.placed", ID: "1"}, contract.Event{Key: "order.placed", ID: "2"})
	s.exactly(got, []string{"1", "2"})
}

func otherExchange(s *system) {
	got := make(chan string, 10)
	exchange := "brokertest-" + contract.NewID()
	s.serve(
		onEvent("here", func(_ context.Context, e contract.Event) error { got <- "here " + e.ID; return nil }, faas.Keys("x")),
		onEvent("there", func(_ context.Context, e contract.Event) error { got <- "there " + e.ID; return nil }, faas.Keys("x"), faas.Exchange(exchange)),
	)
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "1"}, contract.Event{Key: "x", ID: "2", Exchange: exchange})
	s.exactly(got, []string{"here 1", "there 2"})
}

func rawEvent(s *system) {
	got := make(chan contract.Event, 1)
	s.serve(onEvent("raw", into(got), faas.Keys("raw")))
	sent := contract.Event{
		Key: "raw", ID: "id-1", ContentType: "application/x-thing", Type: "thing",
		Headers:     map[string]any{"text": "ü", "flag": true, "number": int64(1) << 40},
		Body:        []byte{0, 1, 255, '{'},
		Correlation: "chain", Causation: "cause",
		Trace: contract.Trace{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", State: "a=b", Baggage: "k=v"},
	}
	s.publish(s.broker(), sent)
	e := receive(s.T, got, "the event")
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"key", e.Key, sent.Key}, {"id", e.ID, sent.ID}, {"content type", e.ContentType, sent.ContentType},
		{"type", e.Type, sent.Type}, {"body", string(e.Body), string(sent.Body)},
		{"header text", e.Headers["text"], "ü"}, {"header flag", e.Headers["flag"], true}, {"header number", e.Headers["number"], int64(1) << 40},
		{"correlation", e.Correlation, sent.Correlation}, {"causation", e.Causation, sent.Causation},
		{"trace", e.Trace, sent.Trace}, {"attempt", e.Attempt, 1}, {"redelivered", e.Redelivered, false},
		{"headers", len(e.Headers), 3},
	} {
		if c.got != c.want {
			s.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

func filledIn(s *system) {
	got := make(chan contract.Event, 1)
	s.serve(onEvent("bare", into(got), faas.Keys("bare")))
	before := time.Now().Add(-2 * time.Second) // AMQP timestamps have whole seconds
	s.publish(s.broker(), contract.Event{Key: "bare", Body: []byte(`{}`)})
	e := receive(s.T, got, "the event")
	if e.ID == "" || e.ContentType != "application/json" || e.Time.Before(before) {
		s.Errorf("got id %q, content type %q, time %v; want an id, application/json and the current time", e.ID, e.ContentType, e.Time)
	}
}

func unroutablePublish(s *system) {
	s.serve(onEvent("some", func(context.Context, contract.Event) error { return nil }, faas.Keys("order.*")))
	err := s.broker().Publish(s.within(), contract.Event{Key: "unroutable.key"})
	if !errors.Is(err, contract.ErrUnroutable) {
		s.Errorf("got %v, want contract.ErrUnroutable", err)
	}
}

func badKey(s *system) {
	b := s.broker()
	for _, key := range []string{"", strings.Repeat("k", 256)} {
		if err := b.Publish(s.within(), contract.Event{Key: key}); !errors.Is(err, contract.ErrInvalid) {
			s.Errorf("publish under a key of %d bytes: got %v, want contract.ErrInvalid", len(key), err)
		}
		if _, err := b.Call(s.within(), contract.Call{Key: key}); !errors.Is(err, contract.ErrInvalid) {
			s.Errorf("call of a key of %d bytes: got %v, want contract.ErrInvalid", len(key), err)
		}
	}
}

func beforeSubscribe(s *system) {
	got := make(chan string, 10)
	record := func(name string) contract.Function {
		return onEvent(name, func(_ context.Context, e contract.Event) error { got <- name + " " + e.ID; return nil }, faas.Keys("x"))
	}
	s.serve(record("early"))
	b := s.broker()
	s.publish(b, contract.Event{Key: "x", ID: "1"})
	s.exactly(got, []string{"early 1"})
	s.serve(record("late"))
	s.publish(b, contract.Event{Key: "x", ID: "2"})
	s.exactly(got, []string{"early 2", "late 2"})
}

func waitsForItsWorker(s *system) {
	got := make(chan contract.Event, 10)
	f := onEvent("away", into(got), faas.Keys("x"))
	s.serve(f).stop()
	s.publish(s.broker(), contract.Event{Key: "x", ID: "meanwhile"})
	s.serve(f)
	if e := receive(s.T, got, "the event that waited"); e.ID != "meanwhile" || e.Attempt != 1 {
		s.Errorf("got %s on attempt %d, want meanwhile on attempt 1", e.ID, e.Attempt)
	}
}

func manyAtOnce(s *system) {
	const publishers, each = 50, 50
	got := make(chan string, 2*publishers*each)
	f := onEvent("count", func(_ context.Context, e contract.Event) error { got <- e.ID; return nil }, faas.Keys("x.#"))
	s.serve(f)
	s.serve(f)
	b := s.broker()
	var want []string
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for p := range publishers {
		for i := range each {
			want = append(want, fmt.Sprintf("%02d-%02d", p, i))
		}
		wg.Go(func() {
			for i := range each {
				if err := b.Publish(s.within(), contract.Event{Key: "x.y", ID: fmt.Sprintf("%02d-%02d", p, i)}); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		s.Fatalf("publish: %v", *err)
	}
	s.exactly(got, want)
}

func notBefore(s *system) {
	type arrival struct {
		id string
		at time.Time
	}
	got := make(chan arrival, 10)
	s.serve(onEvent("later", func(_ context.Context, e contract.Event) error {
		got <- arrival{e.ID, time.Now()}
		return nil
	}, faas.Keys("x")))
	due := time.Now().Add(700 * time.Millisecond)
	s.publish(s.broker(), contract.Event{Key: "x", ID: "delayed", NotBefore: due}, contract.Event{Key: "x", ID: "now"})
	if a := receive(s.T, got, "the event without a delay"); a.id != "now" {
		s.Errorf("got %s first, want now", a.id)
	}
	if a := receive(s.T, got, "the delayed event"); a.id != "delayed" || a.at.Before(due) {
		s.Errorf("got %s %v early", a.id, due.Sub(a.at))
	}
}

func tooFarAhead(s *system) {
	s.serve(onEvent("later", func(context.Context, contract.Event) error { return nil }, faas.Keys("x")))
	b := s.broker()
	for ahead, ok := range map[time.Duration]bool{contract.MaxDelay - time.Minute: true, contract.MaxDelay + time.Minute: false} {
		err := b.Publish(s.within(), contract.Event{Key: "x", NotBefore: time.Now().Add(ahead)})
		if ok && err != nil || !ok && !errors.Is(err, contract.ErrInvalid) {
			s.Errorf("publish for %v from now: got %v, want it accepted: %v", ahead, err, ok)
		}
	}
}

func ordered(s *system) {
	const n = 100
	got := make(chan string, 2*n)
	var running atomic.Int32
	f := onEvent("ordered", func(_ context.Context, e contract.Event) error {
		if running.Add(1) > 1 {
			s.Errorf("%s runs at the same time as another event", e.ID)
		}
		got <- e.ID
		running.Add(-1)
		return nil
	}, faas.Keys("x"), faas.Ordered())
	s.serve(f)
	s.serve(f)
	b := s.broker()
	for i := range n {
		s.publish(b, contract.Event{Key: "x", ID: fmt.Sprint(i)})
	}
	for i := range n {
		if id := receive(s.T, got, "an event"); id != fmt.Sprint(i) {
			s.Fatalf("got event %s in place %d", id, i)
		}
	}
}

// orderedThroughReplacement replaces the worker of an ordered function several
// times while events wait.
func orderedThroughReplacement(s *system) {
	const n = 60
	got := make(chan string, 2*n)
	f := onEvent("ordered", func(_ context.Context, e contract.Event) error {
		got <- e.ID
		return nil
	}, faas.Keys("x"), faas.Ordered())
	current := s.serve(f)
	b := s.broker()
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range n {
			if err := b.Publish(s.within(), contract.Event{Key: "x", ID: fmt.Sprint(i)}); err != nil {
				s.Errorf("publish: %v", err)
			}
		}
	}()
	for i := range n {
		if id := receive(s.T, got, "an event"); id != fmt.Sprint(i) {
			s.Fatalf("got event %s in place %d", id, i)
		}
		if i%20 == 10 {
			next := s.serve(f)
			current.stop()
			current = next
		}
	}
	<-published
}

func severalAtOnce(s *system) {
	const workers, events = 50, 500
	got := make(chan string, 2*events)
	f := onEvent("many-workers", func(_ context.Context, e contract.Event) error { got <- e.ID; return nil }, faas.Keys("x"), faas.Concurrency(1))
	b := s.broker()
	host := s.serve(f).broker
	ctx, cancel := context.WithCancel(context.Background())
	var serving, publishing sync.WaitGroup
	for range workers - 1 {
		serving.Go(func() {
			if err := host.Serve(ctx, []contract.Function{f}); err != nil {
				s.Errorf("Serve: %v", err)
			}
		})
	}
	var want []string
	for p := range workers {
		want = append(want, idsOf(p, events/workers)...)
		publishing.Go(func() {
			for _, id := range idsOf(p, events/workers) {
				if err := b.Publish(s.within(), contract.Event{Key: "x", ID: id}); err != nil {
					s.Errorf("publish: %v", err)
				}
			}
		})
	}
	publishing.Wait()
	s.exactly(got, want)
	cancel()
	serving.Wait()
}

func idsOf(publisher, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%02d-%02d", publisher, i))
	}
	return list
}

// reopened replaces the worker while events are published, with a pause.
func reopened(s *system) {
	const n = 20
	got := make(chan string, 2*n)
	f := onEvent("open", func(_ context.Context, e contract.Event) error { got <- e.ID; return nil }, faas.Keys("x"))
	first := s.serve(f)
	b := s.broker()
	var want []string
	for i := range n {
		if i == n/2 {
			first.stop()
		}
		want = append(want, fmt.Sprint(i))
		s.publish(b, contract.Event{Key: "x", ID: fmt.Sprint(i)})
	}
	s.serve(f)
	s.exactly(got, want)
}

// goesOn checks that events succeed whose predecessors fail.
func goesOn(s *system) {
	const n = 20
	got := make(chan string, 2*n)
	f := onEvent("half-failing", func(_ context.Context, e contract.Event) error {
		if len(e.Body) > 2 {
			return faas.Permanent("never")
		}
		got <- fmt.Sprint(e.ID, " ", e.Attempt)
		return nil
	}, faas.Keys("x"), faas.Concurrency(1))
	s.serve(f)
	b := s.broker()
	var want []string
	for i := range n {
		s.publish(b, contract.Event{Key: "x", ID: "bad", Body: []byte("bad")}, contract.Event{Key: "x", ID: fmt.Sprint(i), Body: []byte("{}")})
		want = append(want, fmt.Sprint(i, " 1"))
	}
	s.exactly(got, want)
}

// oneAtATime checks that a function with concurrency 1 receives no event before the
// previous one is settled.
func oneAtATime(s *system) {
	const n = 10
	started, release := make(chan string, n), make(chan struct{})
	s.serve(onEvent("alone", func(_ context.Context, e contract.Event) error {
		started <- e.ID
		<-release
		return nil
	}, faas.Keys("x"), faas.Concurrency(1)))
	b := s.broker()
	for i := range n {
		s.publish(b, contract.Event{Key: "x", ID: fmt.Sprint(i)})
	}
	for i := range n {
		if id := receive(s.T, started, "a start"); id != fmt.Sprint(i) {
			s.Errorf("got event %s in place %d", id, i)
		}
		select {
		case id := <-started:
			s.Fatalf("%s started before the previous event was settled", id)
		case <-time.After(20 * time.Millisecond):
		}
		release <- struct{}{}
	}
}
