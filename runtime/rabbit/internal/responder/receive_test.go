package responder

import (
	"context"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
)

// The intake ends with its deliveries and no sooner, once all of them are taken
// on; it does not wait for what runs.
func TestIntakeEndsWithItsDeliveries(t *testing.T) {
	const calls = 50
	for range 200 {
		release := make(chan struct{})
		fn := contract.Function{
			Descriptor: contract.Descriptor{Name: "f", Kind: contract.KindRequest, Keys: []string{"f"}, Timeout: 30 * time.Second, Concurrency: 128, Version: "1", ReadOnly: true, Redeliver: true, Idempotent: true},
			Handle: func(_ context.Context, e *contract.Event) ([]byte, error) {
				if string(e.Body) == "slow" {
					<-release
				}
				return nil, nil
			},
		}
		r := New(Config{Observe: func(contract.Invocation) {}, Log: zap.NewNop()}, fn, func() {})
		r.base = t.Context()
		s := &session{acks: channel.NewAcks(nil, calls+1), intake: make(chan struct{})}
		deliveries := make(chan amqp.Delivery)
		go r.receive(s, deliveries)
		for tag := range uint64(calls) {
			body := "quick"
			if tag == calls-1 {
				body = "slow"
			}
			deliveries <- amqp.Delivery{DeliveryTag: tag + 1, CorrelationId: strconv.FormatUint(tag, 10), Body: []byte(body)}
			select {
			case <-s.intake:
				t.Fatalf("the intake ended after %d deliveries of %d", tag+1, calls)
			default:
			}
		}
		close(deliveries)
		<-s.intake // would wait forever for the slow one
		r.mu.Lock()
		if r.unanswered != calls { // nobody sends the replies, so none is answered
			t.Fatalf("the intake ended with %d calls taken on, of %d", r.unanswered, calls)
		}
		r.mu.Unlock()
		close(release)
		r.pool.stop(true)
	}
}
