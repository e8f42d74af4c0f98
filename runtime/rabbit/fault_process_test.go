package rabbit

import (
	"fmt"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// hearRuns keeps a's books on what worker processes say.
func (a *account) hearRuns(word, id string) {
	if word == wordRan {
		a.processed(id)
	}
}

func TestKilledWorkersLoseNothing(t *testing.T) {
	const concurrency, kills, events = 16, 5, 10_000
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	a := newAccount("kill -9 of workers")
	publisher := startCaller(t, cfg)
	k := task{URL: cfg.URL, Namespace: cfg.Namespace, Serve: true, Key: "work.do", Concurrency: concurrency}
	workers := []*process{startProcess(t, k, a.hearRuns), startProcess(t, k, a.hearRuns)}
	awaitWorkers(t, publisher, "work-do", true)
	l := startLoad(t, publisher, a, k.Key, events)
	for i := range kills {
		a.awaitAccepted(t, events*(i+1)/(kills+1))
		time.Sleep(someTime())
		workers[i%2].kill()
		workers[i%2] = startProcess(t, k, a.hearRuns)
	}
	l.wait()
	a.awaitSettled(t)
	a.balance(t, kills*concurrency, 0)
}

func TestKilledPublisherLosesNothingAccepted(t *testing.T) {
	const events = 10_000
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	a := newAccount("kill -9 of a publisher")
	_, stop := startWorker(t, cfg, nil, counted(a, "pub.lish", 16))
	hear := func(word, id string) {
		switch word {
		case wordTrying:
			a.mayBeTaken(id)
		case wordAccepted:
			a.accept(id)
		}
	}
	k := task{URL: cfg.URL, Namespace: cfg.Namespace, Key: "pub.lish"}
	for i := range 3 {
		k.First = i * 1_000_000
		k.Publish = k.First + events
		p := startProcess(t, k, hear)
		a.awaitAccepted(t, events*(i+1)/3)
		time.Sleep(someTime())
		p.kill()
	}
	a.awaitAccepted(t, events)
	a.awaitSettled(t)
	stop()
	a.balance(t, 0, 0)
}

// An event that kills every worker that it comes to ends as a dead letter of
// the broker's delivery limit. Those beside it lose no attempt.
func TestPoisonThatKillsWorkers(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	a := newAccount("an event that kills workers")
	b := startCaller(t, cfg)
	k := task{URL: cfg.URL, Namespace: cfg.Namespace, Serve: true, Key: "poi.son", Concurrency: 4}
	first := startProcess(t, k, a.hearRuns)
	awaitWorkers(t, b, "poi-son", true)
	first.kill()
	for i := range 50 {
		publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: k.Key, ID: fmt.Sprint("before ", i)})
	}
	publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: k.Key, ID: poison})
	for i := range 50 {
		publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: k.Key, ID: fmt.Sprint("after ", i)})
	}
	dead, err := foreignChannel(t).Consume(b.names.DeadQueue("poi-son"), "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	deaths := 0
	for alive := false; !alive; {
		p := startProcess(t, k, a.hearRuns)
		select {
		case <-p.over:
			if deaths++; deaths > topology.DeliveryLimit+1 {
				t.Fatalf("it has killed %d workers", deaths)
			}
		case d := <-dead:
			if d.MessageId != poison {
				t.Fatalf("got the dead letter %q, want the poison", d.MessageId)
			}
			a.buried(poison)
			alive = true
		}
	}
	t.Logf("it has killed %d workers", deaths)
	a.awaitSettled(t)
	a.balance(t, deaths*k.Concurrency, 1)
}

// A call that may run again survives the death of its worker, and its caller
// notices nothing. Any other runs at most once, and its caller is told that
// nobody knows.
func TestKilledWorkersAndCalls(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		removeAfter(t, cfg.Namespace)
		c := newCallAccount("kill -9 of workers")
		caller := startCaller(t, cfg)
		k := task{URL: cfg.URL, Namespace: cfg.Namespace, NoBatch: cfg.NoBatch, Serve: true}
		hear := func(_, id string) { c.ran(id) }
		workers := []*process{startProcess(t, k, hear), startProcess(t, k, hear)}
		for _, f := range []string{"again", "once"} {
			awaitWorkers(t, caller, f, true)
		}
		stop := c.callers(t, caller)
		for i := range 4 {
			c.await(t, 300)
			time.Sleep(someTime())
			workers[i%2].kill()
			workers[i%2] = startProcess(t, k, hear)
		}
		c.await(t, 300)
		stop()
		for _, w := range workers {
			w.kill()
		}
		c.balance(t, 0)
	})
}
