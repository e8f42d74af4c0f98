package rabbit

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// faultConfig is the configuration of a process on the node that faults happen to.
func faultConfig(t testing.TB, n *rabbitmq.Node) Config {
	t.Helper()
	return Config{URL: n.URL(), Namespace: "test-" + contract.NewID()[:10], Grace: 10 * time.Second}
}

// someTime is a moment under load that nobody chose.
func someTime() time.Duration { return time.Duration(rand.Int64N(int64(300 * time.Millisecond))) }

// Whatever happens to the broker itself, nothing accepted is lost, and every
// caller is told the truth.
func TestBrokerComesBack(t *testing.T) {
	const concurrency, events = 16, 10_000
	for _, fault := range []struct {
		name  string
		after []int // so many accepted events
		fault func(n *rabbitmq.Node) error
	}{
		{"kill -9 of the broker", []int{events / 4, events * 3 / 4}, func(n *rabbitmq.Node) error {
			err := n.Remember(within(t, time.Minute))
			n.Kill()
			return err
		}},
		{"restart of the broker", []int{events / 2}, func(n *rabbitmq.Node) error { return n.Stop(within(t, time.Minute)) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			n := ownNode(t)
			cfg := faultConfig(t, n)
			a, batch, single := newAccount(fault.name), newCallAccount(fault.name+", calls together"), newCallAccount(fault.name+", calls alone")
			publisher := startCaller(t, cfg)
			_, stop := startWorker(t, cfg, []*Broker{publisher}, append(batch.functions(), mixed(a, "order.made", concurrency))...)
			stopBatch := batch.callers(t, publisher)
			alone := cfg
			alone.NoBatch, alone.Namespace = true, cfg.Namespace+"-alone"
			caller := startCaller(t, alone)
			startWorker(t, alone, []*Broker{caller}, single.functions()...)
			stopSingle := single.callers(t, caller)

			l := startLoad(t, publisher, a, "order.made", events)
			for _, accepted := range fault.after {
				a.awaitAccepted(t, accepted)
				time.Sleep(someTime())
				if err := fault.fault(n); err != nil {
					t.Fatal(err)
				}
				restart(t, n)
			}
			l.wait()
			stopBurying := a.bury(t, n.URL(), cfg.Namespace+".dead.order-made")
			a.awaitSettled(t)
			batch.await(t, 100)
			single.await(t, 100)
			stopBatch()
			stopSingle()
			stop()
			stopBurying()
			a.balance(t, len(fault.after)*(concurrency+loadPublishers), events/100)
			batch.balance(t, math.MaxInt)
			single.balance(t, math.MaxInt)
		})
	}
}

// A broker that starts may come to an event that is due before it comes to the
// queue that the event goes to. It must not wait for minutes then, as it does by
// its defaults: see infra/rabbitmq/advanced.config.
func TestRetryIsDueBeforeItsQueueIsThere(t *testing.T) {
	n := ownNode(t)
	cfg := faultConfig(t, n)
	attempts := make(chan int, 1)
	retried := onEvent("retried", "retry.me", func(_ context.Context, e *contract.Event) error {
		attempts <- e.Attempt
		if e.Attempt == 1 {
			return errors.New("again, please")
		}
		return nil
	})
	retried.Retry = contract.Retry{First: 500 * time.Millisecond, Max: 2}
	b := startCaller(t, cfg)
	_, stop := startWorker(t, cfg, []*Broker{b}, retried)
	if err := b.Publish(t.Context(), contract.Event{Key: "retry.me", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	if attempt := receive(t, "the first attempt", attempts); attempt != 1 {
		t.Fatalf("got attempt %d, want the first one", attempt)
	}
	stop() // else the worker declares the queue again
	ch := channelOn(t, n.URL())
	if _, err := ch.QueueDelete(b.names.Due(), false, false, false); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // it is due
	_, stop = startWorker(t, cfg, []*Broker{b}, retried)
	defer stop()
	if attempt := receive(t, "the retry", attempts); attempt != 2 {
		t.Errorf("got attempt %d, want the second one", attempt)
	}
}
