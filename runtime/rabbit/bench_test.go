package rabbit

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// BenchmarkCall measures a call of an echo function from 1, 16, 64 and 256
// goroutines: ours, ours with a call in every message, and the thinnest that
// the AMQP client allows (transient messages, no confirmation, nothing
// acknowledged), in turn.
func BenchmarkCall(b *testing.B) {
	body := []byte(`{"id":"42","name":"somebody","email":"somebody@example.com"}`)
	ours := func(noBatch bool) func(context.Context) error {
		cfg := requestConfig(b, noBatch)
		caller := startCaller(b, cfg)
		startWorker(b, cfg, []*Broker{caller}, function("echo", echo, readOnly))
		return func(ctx context.Context) error {
			_, err := caller.Call(ctx, contract.Call{Key: "echo", Body: body})
			return err
		}
	}
	batch, single, thin := ours(false), ours(true), thinCall(b, body)
	for _, callers := range []int{1, 16, 64, 256} {
		for _, way := range []struct {
			name string
			call func(context.Context) error
		}{{"thin", thin}, {"single", single}, {"batch", batch}} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, way.name), func(b *testing.B) {
				b.ReportAllocs()
				var g sync.WaitGroup
				left := make(chan struct{}, callers)
				b.ResetTimer()
				go func() {
					for range b.N {
						left <- struct{}{}
					}
					close(left)
				}()
				for range callers {
					g.Go(func() {
						for range left {
							if err := way.call(b.Context()); err != nil {
								b.Error(err)
							}
						}
					})
				}
				g.Wait()
			})
		}
	}
}

// thinCall is a call by the AMQP client and nothing else.
func thinCall(b *testing.B, body []byte) func(context.Context) error {
	key := "thin-" + contract.NewID()[:10]
	work, answers, requests := foreignChannel(b), foreignChannel(b), foreignChannel(b)
	consume := func(ch *amqp.Channel, queue string) <-chan amqp.Delivery {
		if _, err := ch.QueueDeclare(queue, false, true, true, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
			b.Fatal(err)
		}
		deliveries, err := ch.Consume(queue, "", true, true, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		return deliveries
	}
	calls, replies := consume(work, key), consume(answers, key+"-replies")
	go func() { // ends with the connection
		for d := range calls {
			_ = work.Publish("", d.ReplyTo, false, false, amqp.Publishing{CorrelationId: d.CorrelationId, Body: d.Body})
		}
	}()
	var mu sync.Mutex
	waiting, last := map[string]chan []byte{}, 0
	go func() { // ends with the connection
		for d := range replies {
			mu.Lock()
			w := waiting[d.CorrelationId]
			delete(waiting, d.CorrelationId)
			mu.Unlock()
			w <- d.Body
		}
	}()
	return func(context.Context) error {
		w := make(chan []byte, 1)
		mu.Lock()
		last++
		id := strconv.Itoa(last)
		waiting[id] = w
		mu.Unlock()
		if err := requests.Publish("", key, false, false, amqp.Publishing{
			CorrelationId: id, ReplyTo: key + "-replies", ContentType: "application/json", Body: body,
		}); err != nil {
			return err
		}
		<-w
		return nil
	}
}

// How many dead letters are replayed or discarded in a second.
func BenchmarkDeadLetters(b *testing.B) {
	for name, fate := range map[string]contract.DeadLetterAction{"replay": contract.ActionReplay, "discard": contract.ActionDiscard} {
		b.Run(name, func(b *testing.B) {
			broker := openBroker(b)
			buried(b, broker, "many", b.N)
			b.ResetTimer()
			if err := broker.VisitDeadLetters(b.Context(), "many", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return fate, nil }); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "letters/s")
		})
	}
}
