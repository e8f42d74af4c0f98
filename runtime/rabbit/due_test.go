package rabbit

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/delay"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Events that come back from a delay when their function is no more, and its
// queue neither, hold up nobody else's, and are not lost.
func TestEventsOfAFunctionThatIsNoMore(t *testing.T) {
	b := openBroker(t)
	a := newAccount("beside events without a queue")
	serve(t, b, counted(a, "stays.here", 4), function("gone", nil)) // a request function now
	const n = 40                                                    // more than the broker dead-letters at once
	for i := range n {
		if err := b.delays.Delay(t.Context(), b.names.EventQueue("gone"), time.Second, 0, amqp.Publishing{
			MessageId: strconv.Itoa(i), DeliveryMode: amqp.Persistent, Body: []byte(`{"n":1}`),
			Headers: amqp.Table{wire.HeaderKey: "gone.now", wire.HeaderExchange: b.names.Events(), wire.HeaderAttempt: int64(3)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	untilBuried(t, b, "gone", n)
	for i := range n {
		publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "stays.here", ID: strconv.Itoa(i), NotBefore: time.Now().Add(time.Second)}) // the same tier
	}
	a.awaitSettled(t)
	a.balance(t, 0, 0)

	if err := b.VisitDeadLetters(t.Context(), "gone", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		if l.Code != contract.CodeUnroutable || !strings.Contains(l.Error, "was deleted while it waited") || l.Event.Key != "gone.now" || l.Event.Attempt != 2 {
			t.Errorf("a dead letter: got %s (%s), key %q, after %d attempts; want unroutable, gone.now, 2", l.Code, l.Error, l.Event.Key, l.Event.Attempt)
			return contract.ActionStop, nil
		}
		return contract.ActionDiscard, nil
	}); err != nil {
		t.Error(err)
	}
}

// What the tiers of an earlier version hold arrives: by the bindings that it
// made, or else by the queue for what those do not route.
func TestDelaysOfAnEarlierVersion(t *testing.T) {
	b := openBroker(t)
	ch := foreignChannel(t)
	declareOldTier(t, ch, b.names, "1s", time.Second)
	queues := map[string]string{"bound": b.names.EventQueue("bound"), "back": b.names.EventQueue("back"), "gone": b.names.EventQueue("gone")}
	bound := b.names.EventFunction(&contract.Descriptor{Name: "bound", Keys: []string{"bound.run"}}, b.names.Events())
	for _, top := range []topology.Part{b.names.Common(), bound, b.names.DeadLetters("gone")} {
		if err := top.Declare(ch); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.QueueBind(queues["bound"], queues["bound"], b.names.OldDueExchange(), false, nil); err != nil {
		t.Fatal(err)
	}
	for _, fn := range []string{"bound", "back", "gone"} {
		if err := ch.PublishWithContext(t.Context(), b.names.Delay("1s"), queues[fn], true, false, amqp.Publishing{
			MessageId: fn, DeliveryMode: amqp.Persistent, Headers: amqp.Table{wire.HeaderKey: fn + ".run", wire.HeaderExchange: b.names.Events(), wire.HeaderAttempt: int64(2)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan contract.Event, 10)
	take := func(_ context.Context, e *contract.Event) error { got <- *e; return nil }
	serve(t, b, onEvent("bound", "bound.run", take), onEvent("back", "back.run", take))
	came := map[string]bool{}
	for len(came) < 2 {
		e := receive(t, "an event of the old tier", got)
		if came[e.ID] || e.Key != e.ID+".run" || e.Attempt != 2 {
			t.Errorf("got %+v, want each event once, with its key, at the second attempt", e)
		}
		came[e.ID] = true
	}
	untilBuried(t, b, "gone", 1)
}

// declareOldTier declares a tier as an earlier version did.
func declareOldTier(t testing.TB, ch *amqp.Channel, n topology.Names, name string, length time.Duration) {
	t.Helper()
	tier, unrouted := n.Delay(name), n.OldUnroutedQueue()
	old := topology.Part{
		Exchanges: []topology.Exchange{
			{Name: unrouted, Kind: amqp.ExchangeFanout},
			{Name: n.OldDueExchange(), Kind: amqp.ExchangeDirect, Alternate: unrouted},
			{Name: tier, Kind: amqp.ExchangeFanout},
		},
		Queues: []topology.Queue{
			{Name: unrouted, Arguments: amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish"}},
			{Name: tier, Arguments: amqp.Table{
				"x-queue-type": "quorum", "x-message-ttl": length.Milliseconds(), "x-dead-letter-exchange": n.OldDueExchange(),
				"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
			}},
		},
		Bindings: []topology.Binding{{Queue: unrouted, Exchange: unrouted}, {Queue: tier, Exchange: tier}},
	}
	if err := old.Declare(ch); err != nil {
		t.Fatal(err)
	}
}

// A client that is not Rabbet's delays a message by publishing it to a tier with
// the queue to go to as the routing key. It reaches no queue but those of event
// functions.
func TestForeignDelay(t *testing.T) {
	b := openBroker(t)
	got := make(chan contract.Event, 10)
	serve(t, b, onEvent("foreign", "foreign.run", func(_ context.Context, e *contract.Event) error { got <- *e; return nil }))
	if err := b.delays.EnsureTier(t.Context(), delay.Tier(100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	ch := foreignChannel(t)
	for _, target := range []string{b.names.DeadFunctions(), "elsewhere", b.names.EventQueue("foreign")} {
		if err := ch.PublishWithContext(t.Context(), b.names.Delay("100"), target, true, false, amqp.Publishing{
			MessageId: target, Headers: amqp.Table{wire.HeaderKey: "foreign.run"}, Body: []byte(`{}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if e := receive(t, "the delayed event", got); e.ID != b.names.EventQueue("foreign") || e.Key != "foreign.run" {
		t.Errorf("got %+v", e)
	}
	if q, err := b.consume.InspectQueue(t.Context(), b.names.DeadFunctions()); err != nil || q.Messages != 1 {
		t.Errorf("the register of dead letters holds %d messages (%v), want only the one of the function", q.Messages, err)
	}
}
