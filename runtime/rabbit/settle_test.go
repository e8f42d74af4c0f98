package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// An event whose copy the broker does not take goes back to its queue in the
// end: it runs again, and no attempt is counted for it.
func TestCopyThatIsNotTakenSendsTheEventBack(t *testing.T) {
	p, cfg := networkConfig(t)
	u := newUser(t)
	u.permit(t, ".*", fmt.Sprintf(`^(?!%s\.delay\.)`, cfg.Namespace), ".*")
	cfg.URL = u.at(t, cfg.URL)
	cfg.copyPace, cfg.copyPatience = connection.Pace{First: time.Millisecond, Longest: time.Millisecond}, 20*time.Millisecond
	b := startCaller(t, cfg)
	ran := make(chan contract.Event, 100)
	startWorker(t, cfg, []*Broker{b}, onEvent("stuck", "stuck.on", func(_ context.Context, e *contract.Event) error {
		ran <- *e
		if e.Attempt == 1 {
			return errors.New("not yet")
		}
		return nil
	}))
	publishUntilAccepted(t.Context(), t, b, newAccount("copy not taken"), contract.Event{Key: "stuck.on", ID: "one"})
	if e := receive(t, "the first run", ran); e.Attempt != 1 || e.Redelivered {
		t.Errorf("the first run: got attempt %d, redelivered %v", e.Attempt, e.Redelivered)
	}
	if e := receive(t, "the next run", ran); e.Attempt != 1 || !e.Redelivered {
		t.Errorf("after its copy was not taken: got attempt %d, redelivered %v, want 1, true", e.Attempt, e.Redelivered)
	}
	u.permit(t, ".*", ".*", ".*")
	p.reset()
	until(t, "the second attempt", func(context.Context) bool { return receive(t, "a run", ran).Attempt == 2 })
}

// What outlasts the grace period goes back without an attempt counted.
func TestRunThatOutlastsTheGracePeriodGoesBack(t *testing.T) {
	b := openBroker(t, func(c *Config) { c.Grace = 50 * time.Millisecond })
	begun := make(chan struct{}, 1)
	stop := serve(t, b, onEvent("long", "long.er", func(ctx context.Context, _ *contract.Event) error {
		begun <- struct{}{}
		<-ctx.Done() // it listens to its ctx
		return ctx.Err()
	}))
	if err := b.Publish(t.Context(), contract.Event{Key: "long.er", ID: "one"}); err != nil {
		t.Fatal(err)
	}
	receive(t, "the run", begun)
	if err := stop(); err == nil || !strings.Contains(err.Error(), `function "long" was not finished`) {
		t.Errorf("Serve: got %v, want which function was not finished", err)
	}
	ran := make(chan contract.Event, 1)
	serve(t, b, onEvent("long", "long.er", func(_ context.Context, e *contract.Event) error { ran <- *e; return nil }))
	if e := receive(t, "the run elsewhere", ran); e.ID != "one" || e.Attempt != 1 || !e.Redelivered {
		t.Errorf("got %s on attempt %d, redelivered %v; want one, 1, true", e.ID, e.Attempt, e.Redelivered)
	}
}

// What has run in a worker that stops does not run again, though the broker
// takes a while to write down so many acknowledgements.
func TestManyAcknowledgementsAreTakenBeforeTheEnd(t *testing.T) {
	const events, rounds = 8 * channel.QuorumAckLimit, 3
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	a := newAccount("many at once")
	b := startCaller(t, cfg)
	for round := range rounds {
		begun, release := make(chan struct{}, events), make(chan struct{})
		var publishing sync.WaitGroup
		fn := counted(a, "many.at", events)
		fn.Handle = func(_ context.Context, e *contract.Event) ([]byte, error) {
			begun <- struct{}{}
			<-release
			a.processed(e.ID)
			return nil, nil
		}
		_, stop := startWorker(t, cfg, []*Broker{b}, fn)
		for i := range events {
			publishing.Go(func() {
				publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "many.at", ID: fmt.Sprint(round, " ", i)})
			})
		}
		publishing.Wait()
		for range events {
			receive(t, "a run", begun)
		}
		time.AfterFunc(pollInterval, func() { close(release) })
		stop()
		if depth := queueLength(t, cfg.URL, cfg.Namespace+".event.many-at"); depth != 0 {
			t.Errorf("%d events are in the queue again, and all have run", depth)
		}
	}
	a.balance(t, 0, 0)
}

// A worker that stops while it holds an event that it has not begun gives that
// back: here one that waits behind the late end of a run.
func TestWhatWasNotBegunGoesBack(t *testing.T) {
	p, cfg := networkConfig(t)
	straight := cfg
	straight.URL = brokerURL(t)
	publisher, b := startCaller(t, straight), startCaller(t, cfg)
	live, begun, release, ran := make(chan struct{}, 10), make(chan string, 10), make(chan struct{}), make(chan contract.Event, 10)
	fn := onEvent("not-begun", "not.begun", func(_ context.Context, e *contract.Event) error {
		begun <- e.ID
		<-release
		return nil
	})
	fn.Concurrency = 1
	c := b.newConsumer(fn, func() { live <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx) }()
	receive(t, "the worker consumes", live)
	for _, id := range []string{"one", "two"} {
		publishUntilAccepted(t.Context(), t, publisher, newAccount("not begun"), contract.Event{Key: "not.begun", ID: id})
	}
	receive(t, "a run", begun)
	p.reset()
	receive(t, "the worker consumes again", live)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	ready := func(n int) func(ctx context.Context) bool {
		return func(ctx context.Context) bool {
			<-tick.C
			q, err := publisher.consume.InspectQueue(ctx, c.Queue)
			return err == nil && q.Messages == n
		}
	}
	until(t, "it holds the first event again", ready(1))
	cancel()
	until(t, "the event is given back", ready(2))
	close(release)
	if err := receive(t, "the end of the worker", served); err != nil {
		t.Errorf("serve: %v", err)
	}
	fn.Handle = func(_ context.Context, e *contract.Event) ([]byte, error) { ran <- *e; return nil, nil }
	startWorker(t, straight, []*Broker{publisher}, fn)
	for range 2 {
		if e := receive(t, "a run elsewhere", ran); e.Attempt != 1 {
			t.Errorf("event %s: got attempt %d, want 1", e.ID, e.Attempt)
		}
	}
}
