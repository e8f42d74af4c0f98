package rabbit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// The order of an ordered function holds while the connections of its workers
// are lost in turn, and while workers are replaced.
func TestOrderThroughFaults(t *testing.T) {
	const events = 1_500
	one, cfg := networkConfig(t)
	two, second := startProxy(t, brokerURL(t))
	straight := cfg
	straight.URL = brokerURL(t)
	a := newAccount("ordered")
	publisher := startCaller(t, straight)

	var mu sync.Mutex
	next := 0
	fn := onEvent("in-turn", "in.turn", func(_ context.Context, e *contract.Event) error {
		var n int
		if _, err := fmt.Sscanf(e.ID, "in.turn-%d", &n); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if n > next {
			t.Errorf("event %d came before event %d", n, next)
		}
		next = max(next, n+1)
		a.processed(e.ID)
		return nil
	})
	fn.Concurrency, fn.Ordered = 1, true
	startWorker(t, cfg, []*Broker{publisher}, fn)
	cfg.URL = second + "?heartbeat=1"
	_, stop := startWorker(t, cfg, []*Broker{publisher}, fn)

	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range events {
			publishUntilAccepted(context.WithoutCancel(t.Context()), t, publisher, a, contract.Event{Key: "in.turn", ID: fmt.Sprintf("in.turn-%d", i)})
		}
	}()
	faults := 0
	for waiting := true; waiting; faults++ {
		select {
		case <-published:
			waiting = false
		case <-time.After(30*time.Millisecond + someTime()):
		}
		switch faults % 4 {
		case 0, 2:
			one.reset()
		case 1:
			two.reset()
		case 3:
			stop()
			_, stop = startWorker(t, cfg, []*Broker{publisher}, fn)
		}
	}
	a.awaitSettled(t)
	a.balance(t, faults, 0)
}

// A run that outlives its connection ends while its worker stops. It must not
// end the consumer that came after it, which holds the event again: the next
// worker would get what follows first.
func TestOrderThroughALateEnd(t *testing.T) {
	p, cfg := networkConfig(t)
	straight := cfg
	straight.URL = brokerURL(t)
	publisher, b := startCaller(t, straight), startCaller(t, cfg)
	live, begun, release, ran := make(chan struct{}, 10), make(chan string, 10), make(chan struct{}), make(chan string, 10)
	fn := onEvent("late-end", "late.end", func(_ context.Context, e *contract.Event) error {
		begun <- e.ID
		<-release
		return nil
	})
	fn.Concurrency, fn.Ordered = 1, true
	c := b.newConsumer(fn, func() { live <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx) }()
	receive(t, "the first worker consumes", live)
	for _, id := range []string{"one", "two"} {
		publishUntilAccepted(t.Context(), t, publisher, newAccount("late end"), contract.Event{Key: "late.end", ID: id})
	}
	receive(t, "a run", begun)
	p.reset()
	receive(t, "the first worker consumes again", live)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	until(t, "it holds the first event again", func(ctx context.Context) bool {
		<-tick.C
		q, err := publisher.consume.InspectQueue(ctx, c.Queue)
		return err == nil && q.Messages == 1 && q.Consumers == 1
	})

	fn.Handle = func(_ context.Context, e *contract.Event) ([]byte, error) { ran <- e.ID; return nil, nil }
	startWorker(t, straight, []*Broker{publisher}, fn)
	cancel()
	receive(t, "the first worker stops", c.Stop)
	close(release)
	for _, want := range []string{"one", "two"} {
		if id := receive(t, "a run at the second worker", ran); id != want {
			t.Errorf("got event %s, want %s", id, want)
		}
	}
	if err := receive(t, "the end of the first worker", served); err != nil {
		t.Errorf("serve: %v", err)
	}
}
