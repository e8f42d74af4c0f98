package rabbit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// rawReplies consumes from a reply queue of a client that is not ours.
func rawReplies(t *testing.T, ch *amqp.Channel) (queue string, replies <-chan amqp.Delivery) {
	t.Helper()
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	replies, err = ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Name, replies
}

func TestForeignCallerIsServed(t *testing.T) {
	cfg := requestConfig(t, false)
	startWorker(t, cfg, nil, function("echo", func(_ context.Context, e *contract.Event) ([]byte, error) {
		if string(e.Body) == "fail" {
			return nil, faas.NotFound("no such thing")
		}
		return e.Body, nil
	}))
	ch := foreignChannel(t)
	queue, replies := rawReplies(t, ch)
	requests := cfg.Namespace + ".requests"
	publish := func(p amqp.Publishing) {
		t.Helper()
		if err := ch.Publish(requests, "echo", false, false, p); err != nil {
			t.Fatal(err)
		}
	}
	awaitQueue(t, cfg.Namespace+".request.echo")
	publish(amqp.Publishing{Body: []byte("to nobody")})
	publish(amqp.Publishing{Body: []byte("not a frame"), ContentType: wire.ContentTypeCalls, ReplyTo: queue})
	publish(amqp.Publishing{Body: []byte("hostile"), ReplyTo: queue, CorrelationId: "h", Headers: amqp.Table{
		wire.HeaderDeadline: "tomorrow", wire.HeaderFrames: "yes", wire.HeaderTraceparent: amqp.Table{"a": []any{int64(1), nil}},
	}})
	const many = 50
	for i := range many {
		publish(amqp.Publishing{Body: fmt.Appendf(nil, `{"n":%d}`, i), ReplyTo: queue, CorrelationId: fmt.Sprint(i)})
	}
	publish(amqp.Publishing{Body: []byte("fail"), ReplyTo: queue, CorrelationId: "f", Expiration: "5000"})
	got := map[string]string{}
	for len(got) < many+2 {
		select {
		case d := <-replies:
			if d.ContentType == wire.ContentTypeReplies {
				t.Fatal("a foreign caller got several replies in one message")
			}
			got[d.CorrelationId] = string(d.Body)
			if code := wire.Text(d.Headers, wire.HeaderError); (d.CorrelationId == "f") != (code == "not-found") {
				t.Errorf("%q: got error code %q", d.CorrelationId, code)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d replies within 10 s, want %d", len(got), many+2)
		}
	}
	if got["h"] != "hostile" || got["7"] != `{"n":7}` {
		t.Errorf("got %q and %q, want the bodies that were sent", got["h"], got["7"])
	}
}

// awaitQueue waits until the queue has a consumer.
func awaitQueue(t *testing.T, queue string) {
	t.Helper()
	late := time.Now().Add(10 * time.Second)
	for time.Now().Before(late) {
		ch := foreignChannel(t) // a passive declaration of what is missing closes it
		if q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err == nil && q.Consumers > 0 {
			return
		}
	}
	t.Fatalf("queue %q has no consumer after 10 s", queue)
}

func TestForeignCallerLearnsThatItsCallExpired(t *testing.T) {
	cfg := requestConfig(t, false)
	caller := startCaller(t, cfg) // some process that calls forwards the news
	_, stop := startWorker(t, cfg, []*Broker{caller}, function("gone", echo))
	stop()
	ch := foreignChannel(t)
	queue, replies := rawReplies(t, ch)
	if err := ch.Publish(cfg.Namespace+".requests", "gone", false, false, amqp.Publishing{
		ReplyTo: queue, CorrelationId: "c", Expiration: "50",
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case d := <-replies:
		r := wire.ParseReply(&d)
		wantError(t, wire.DecodeFailure(r.Code, r.Body), contract.CodeExpired, contract.ExecutedNo)
	case <-time.After(10 * time.Second):
		t.Fatal("no reply within 10 s")
	}
}

func TestForeignWorkerServes(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		ch := foreignChannel(t)
		q, err := ch.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.QueueBind(q.Name, "theirs", cfg.Namespace+".requests", false, nil); err != nil {
			t.Fatal(err)
		}
		deliveries, err := ch.Consume(q.Name, "", true, true, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the connection
			for d := range deliveries {
				p := amqp.Publishing{CorrelationId: d.CorrelationId, Body: d.Body}
				if d.ContentType == wire.ContentTypeCalls {
					p.Body = []byte("a frame")
				}
				if string(d.Body) == "odd" {
					p.Headers = amqp.Table{wire.HeaderError: int32(5)}
				}
				_ = ch.Publish("", d.ReplyTo, false, false, p)
			}
		}()
		var g sync.WaitGroup
		for i := range 50 {
			g.Go(func() {
				want := fmt.Sprint(i)
				reply, err := caller.Call(t.Context(), contract.Call{Key: "theirs", Body: []byte(want)})
				if err != nil || string(reply.Body) != want {
					t.Errorf("got %s, %v; want %s", reply.Body, err, want)
				}
			})
		}
		g.Wait()
		_, err = caller.Call(t.Context(), contract.Call{Key: "theirs", Body: []byte("odd")})
		wantError(t, err, contract.CodeInternal, "")
	})
}
