package rabbit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
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
	fn := onEvent("in-turn", "in.turn", func(_ context.Context, e *faas.Event) error {
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
			publishUntilAccepted(context.WithoutCancel(t.Context()), t, publisher, a, faas.Event{Key: "in.turn", ID: fmt.Sprintf("in.turn-%d", i)})
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
