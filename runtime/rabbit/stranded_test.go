package rabbit

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Events that come back from a delay when their function is no more, and its
// queue neither, hold up nobody else's, and are not lost.
func TestEventsOfAFunctionThatIsNoMore(t *testing.T) {
	b := openBroker(t)
	a := newAccount("beside stranded events")
	serve(t, b, counted(a, "stays.here", 4), function("gone", nil)) // a request function now
	const n = 40                                                    // more than the broker dead-letters at once
	for i := range n {
		if err := b.publisher.delay(t.Context(), b.names.eventQueue("gone"), time.Second, 0, amqp.Publishing{
			MessageId: strconv.Itoa(i), DeliveryMode: amqp.Persistent, Body: []byte(`{"n":1}`),
			Headers: amqp.Table{headerKey: "gone.now", headerExchange: b.names.events(), headerAttempt: int64(3)},
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

// A stranded event waits for a queue that its function's worker declares again.
func TestStrandedEventsOfALiveFunction(t *testing.T) {
	b := openBroker(t)
	got := make(chan contract.Event, 1)
	serve(t, b, onEvent("back", "back.again", func(_ context.Context, e *contract.Event) error {
		got <- *e
		return nil
	}))
	ch := foreignChannel(t)
	for _, queue := range []string{"nobody.knows", b.names.eventQueue("back")} { // the first one is in nobody's way
		if err := ch.PublishWithContext(t.Context(), b.names.stranded(), queue, false, false, amqp.Publishing{
			MessageId: "1", DeliveryMode: amqp.Persistent, Headers: amqp.Table{headerKey: "back.again", headerAttempt: int64(2)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if e := receive(t, "the stranded event", got); e.ID != "1" || e.Key != "back.again" || e.Attempt != 2 {
		t.Errorf("got %+v, want id 1 and key back.again at the second attempt", e)
	}
}
