package rabbit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// beside is how late the delayed events of a function are while another one's
// queue does not take its own, which wait in the same tier.
type beside struct {
	*clocked
	b     *Broker
	other string // the queue
}

// besideOther hosts both functions; the other one takes nothing more once it has
// one event.
func besideOther(t *testing.T, cfg Config) *beside {
	t.Helper()
	s := &beside{clocked: &clocked{t: t}}
	s.b = openBroker(t, func(c *Config) { *c = cfg })
	s.other = s.b.names.eventQueue("other")
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	other := onEvent("other", "other.run", func(ctx context.Context, _ *contract.Event) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	})
	other.Concurrency, other.Timeout = 1, 10*time.Minute
	serve(t, s.b, onEvent("late", "late.run", s.take), other)
	return s
}

// measure publishes events of both, in turn, and returns how late those were
// that have nothing to do with the other function.
func (s *beside) measure(what string) {
	s.t.Helper()
	const each, most = 200, 10 * time.Second // a busy machine is allowed for; without the queue that is in the way it is some 0.2 s
	delays := make([]time.Duration, each)
	for i := range delays {
		delays[i] = 2 * time.Second
	}
	var others sync.WaitGroup
	for i := range each {
		others.Go(func() {
			err := s.b.copies.delay(s.t.Context(), s.other, 2*time.Second, 0, amqp.Publishing{
				MessageId: fmt.Sprint("other", i), DeliveryMode: amqp.Persistent,
				Headers: amqp.Table{headerKey: "other.run", headerExchange: s.b.names.events()},
			})
			if err != nil {
				s.t.Error(err)
			}
		})
	}
	s.publish(s.b, delays)
	others.Wait()
	late := s.lateness()
	s.t.Logf("beside a queue that %s: median %v late, all within %v", what, late[each/2], late[each-1])
	if late[each-1] > most {
		s.t.Errorf("beside a queue that %s: an event came %v late, want %v at most", what, late[each-1], most)
	}
}

// limitQueue sets a policy by which the queue takes at most n messages.
func limitQueue(t *testing.T, queue string, n int) {
	t.Helper()
	name := url.PathEscape(queue)
	manageAs(t, http.MethodPut, "/api/policies/%2F/"+name, map[string]any{
		"pattern": "^" + strings.ReplaceAll(queue, ".", "\\.") + "$", "apply-to": "queues",
		"definition": map[string]any{"max-length": n},
	})
	t.Cleanup(func() { management(t, http.MethodDelete, "/api/policies/%2F/"+name, nil) })
}

func TestFullQueueHoldsUpNoOtherDelay(t *testing.T) {
	s := besideOther(t, Config{URL: brokerURL(t), Namespace: "test-" + contract.NewID()})
	limitQueue(t, s.other, 10)
	s.measure("is full")
}

func TestMissingQueueHoldsUpNoOtherDelay(t *testing.T) {
	s := besideOther(t, Config{URL: brokerURL(t), Namespace: "test-" + contract.NewID()})
	s.other = s.b.names.eventQueue("of-nobody")
	s.measure("is gone")
}

func TestQueueWithoutLeaderHoldsUpNoOtherDelay(t *testing.T) {
	node := ownNode(t)
	s := besideOther(t, Config{URL: node.URL(), Namespace: "test-" + contract.NewID()})
	leader := fmt.Sprintf("whereis(list_to_atom(\"%%2F_\" ++ \"%s\"))", s.other)
	ctl := func(do string) {
		t.Helper()
		if out, err := node.Ctl(within(t, 30*time.Second), "eval", fmt.Sprintf("sys:%s(%s).", do, leader)); err != nil || !strings.Contains(out, "ok") {
			t.Fatalf("%s the leader: %s, %v", do, out, err)
		}
	}
	ctl("suspend")
	defer ctl("resume")
	s.measure("has no leader")
}

// The tier's queue has no TTL, as a new one has for a moment on RabbitMQ before
// 4.1. Each message expires all the same; one that does not, of an earlier
// version, is noticed and moved on by hand.
func TestTierWithoutATTL(t *testing.T) {
	cfg := Config{URL: brokerURL(t), Namespace: "test-" + contract.NewID(), canaryPatience: time.Second}
	n := names{namespace: cfg.Namespace}
	tier := n.delayTier("500ms", 500*time.Millisecond)
	delete(tier.queues[0].arguments, "x-message-ttl")
	ch := foreignChannel(t)
	for _, part := range []topology{n.common(), n.dueEvents(), tier} {
		if err := part.declare(ch); err != nil {
			t.Fatal(err)
		}
	}
	c := &clocked{t: t}
	b := openBroker(t, func(o *Config) { *o = cfg })
	b.tiers.declared = map[string]bool{"500ms": true}
	serve(t, b, onEvent("late", "late.run", c.take))
	c.publish(b, []time.Duration{500 * time.Millisecond})
	c.lateness()

	if err := ch.PublishWithContext(t.Context(), n.delay("500ms"), n.eventQueue("late"), false, false, amqp.Publishing{
		MessageId: "blocks", DeliveryMode: amqp.Persistent, Headers: amqp.Table{headerKey: "late.run", headerExchange: n.events()},
	}); err != nil {
		t.Fatal(err)
	}
	b.canaries.reset(b.canaries.queue) // the last canary was a moment ago
	c.publish(b, []time.Duration{500 * time.Millisecond, 500 * time.Millisecond})
	c.mu.Lock()
	c.due["blocks"] = time.Now()
	c.mu.Unlock()
	var problem error
	until(t, "the blocked tier is noticed", func(context.Context) bool {
		time.Sleep(pollInterval)
		problem = b.Health()
		return problem != nil
	})
	if text := problem.Error(); !strings.Contains(text, n.delay("500ms")) || !strings.Contains(text, "moved on") {
		t.Errorf("got the problem %q", text)
	}
	c.lateness()
	until(t, "the tier is well again", func(context.Context) bool {
		time.Sleep(pollInterval)
		return b.Health() == nil
	})
}

// All dead-letter workers of the broker have died: that is told, with the cure,
// and nothing is lost.
func TestDeadLetterWorkersHaveStopped(t *testing.T) {
	node := ownNode(t)
	c := &clocked{t: t}
	b := openBroker(t, func(o *Config) { o.URL, o.canaryPatience = node.URL(), time.Second })
	serve(t, b, onEvent("late", "late.run", c.take))
	c.publish(b, []time.Duration{500 * time.Millisecond})
	c.lateness()
	if err := node.Remember(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	out, err := node.Ctl(within(t, 30*time.Second), "eval", `[ok = supervisor:terminate_child(rabbit_sup, Id) || `+
		`{Id, P, _, _} <- supervisor:which_children(rabbit_sup), P =:= whereis(rabbit_fifo_dlx_sup)], whereis(rabbit_fifo_dlx_sup).`)
	if err != nil || strings.TrimSpace(out) != "undefined" {
		t.Fatalf("stop the dead-letter workers: %s %v", out, err)
	}
	b.canaries.reset(b.canaries.queue)
	c.publish(b, []time.Duration{500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond})
	until(t, "it is noticed", func(context.Context) bool {
		time.Sleep(pollInterval)
		err := b.Health()
		return err != nil && strings.Contains(err.Error(), "restart RabbitMQ: its dead-letter workers have stopped")
	})
	node.Kill()
	restart(t, node)
	c.lateness()
}

// Workers and the broker are killed while events wait: all come, none early.
func TestDelaysUnderFaults(t *testing.T) {
	const events = 10_000
	node := ownNode(t)
	cfg := requestConfig(t, false)
	cfg.URL = node.URL()
	c := &clocked{t: t}
	b := openBroker(t, func(o *Config) { *o = cfg })
	fn := onEvent("late", "late.run", c.take)
	fn.Concurrency = 256
	serve(t, b, fn)
	for _, tier := range tierWaits[:20] { // so that the broker knows their queues when it is killed
		if err := b.tiers.ensure(t.Context(), tier.name, tier.wait); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Remember(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	// Further workers, which are killed, move what is due as well.
	k := task{URL: cfg.URL, Namespace: cfg.Namespace, Serve: true, Key: "not.used", Concurrency: 1}
	hear := func(string, string) {}
	workers := []*process{startProcess(t, k, hear), startProcess(t, k, hear)}
	awaitWorkers(t, b, "not-used", true)
	delays := make([]time.Duration, events)
	for i := range delays {
		delays[i] = 100*time.Millisecond + rand.N(20*time.Second)
	}
	killed := make(chan struct{})
	go func() { // ends with the last kill
		defer close(killed)
		for i := range 4 {
			time.Sleep(3 * time.Second)
			workers[i%2].kill()
			workers[i%2] = startProcess(t, k, hear)
		}
	}()
	c.publish(b, delays)
	time.Sleep(4 * time.Second)
	node.Kill()
	down := time.Now()
	restart(t, node)
	t.Logf("the broker was down for %v", time.Since(down))
	late := c.lateness()
	<-killed
	t.Logf("late: median %v, 99.9 %% within %v, all within %v", late[events/2], late[events*999/1000], late[events-1])
}

// What an earlier version has put into its delay tiers, and into its queue of
// events whose queue was missing, arrives, and only once.
func TestDelaysOfAnEarlierVersionArrive(t *testing.T) {
	cfg := Config{URL: brokerURL(t), Namespace: "test-" + contract.NewID()}
	n := names{namespace: cfg.Namespace}
	target, former := n.eventQueue("late"), n.dueAlternate()
	ch := foreignChannel(t)
	function := n.eventFunction(&contract.Descriptor{Name: "late", Keys: []string{"late.run"}}, n.events())
	function.bindings = append(function.bindings, binding{target, target, n.due()})
	missing := topology{
		queues:   []queue{{former, amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish"}}},
		bindings: []binding{{former, "", former}},
	}
	for _, part := range []topology{n.common(), function, n.delayTier("2s", 2*time.Second), missing} {
		if err := part.declare(ch); err != nil {
			t.Fatal(err)
		}
	}
	for exchange, id := range map[string]string{n.delay("2s"): "waits", former: "was missing"} {
		if err := ch.PublishWithContext(t.Context(), exchange, target, false, false, amqp.Publishing{
			MessageId: id, DeliveryMode: amqp.Persistent, Headers: amqp.Table{headerKey: "late.run", headerExchange: n.events()},
		}); err != nil {
			t.Fatal(err)
		}
	}
	came := make(chan string, 10)
	b := openBroker(t, func(o *Config) { *o = cfg })
	serve(t, b, onEvent("late", "late.run", func(_ context.Context, e *contract.Event) error {
		came <- e.ID
		return nil
	}))
	got := []string{receive(t, "an event", came), receive(t, "an event", came)}
	if slices.Sort(got); !slices.Equal(got, []string{"waits", "was missing"}) {
		t.Errorf("got %q", got)
	}
	if err := b.Publish(t.Context(), contract.Event{Key: "late.run", ID: "new", NotBefore: time.Now().Add(2 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	if id := receive(t, "a delay of this version", came); id != "new" {
		t.Errorf("got %q, want the new one", id)
	}
	select {
	case id := <-came:
		t.Errorf("%q came twice", id)
	case <-time.After(time.Second):
	}
}
