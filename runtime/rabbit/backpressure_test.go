package rabbit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
)

// heap is how many bytes are in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A slow function with 200 MB in its queue takes no more to itself than what
// it can run.
func TestMemoryStaysFlatBehindASlowFunction(t *testing.T) {
	const events, size, concurrency = 20_000, 10 << 10, 16
	b := openBroker(t)
	begun, release := make(chan struct{}, events), make(chan struct{})
	fn := onEvent("slow", "slow.ly", func(context.Context, *contract.Event) error {
		begun <- struct{}{}
		<-release
		return nil
	})
	fn.Concurrency = concurrency
	serve(t, b, fn)() // its queue is there

	ch := foreignChannel(t)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, size)
	var last *amqp.DeferredConfirmation
	for range events {
		var err error
		if last, err = ch.PublishWithDeferredConfirm(b.names.Events(), "slow.ly", false, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := last.WaitContext(within(t, time.Minute)); !ok {
		t.Fatalf("the last event was not confirmed: %v", err)
	}

	before := heap()
	stop := serve(t, b, fn)
	const processed = 500
	for range processed {
		receive(t, "a run", begun)
		release <- struct{}{}
	}
	for range concurrency {
		receive(t, "a run that waits", begun)
	}
	grown := heap() - before
	if ready := queueLength(t, brokerURL(t), b.names.EventQueue("slow")); ready != events-processed-concurrency {
		t.Errorf("%d events wait in the queue, want %d: all but those that run", ready, events-processed-concurrency)
	}
	if grown > 8<<20 {
		t.Errorf("the heap has grown by %d KiB with %d events of %d KiB under way", grown>>10, concurrency, size>>10)
	}
	t.Logf("%d MB in the queue: the heap has grown by %d KiB", events*size/1_000_000, grown>>10)
	close(release)
	_ = stop()
}

// What a process has under way is bounded: while the broker confirms nothing,
// publishing waits, and ends with its ctx.
func TestUnconfirmedBytesAreBounded(t *testing.T) {
	p, cfg := networkConfig(t)
	b := startCaller(t, cfg)
	startWorker(t, cfg, []*Broker{b}, onEvent("sink", "sink.in", func(context.Context, *contract.Event) error { return nil }))
	p.hole(upstream)
	before := heap()
	body := make([]byte, 8<<20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	outcomes := make(chan error, 64)
	var publishing sync.WaitGroup
	for i := range cap(outcomes) {
		publishing.Go(func() {
			outcomes <- b.Publish(ctx, contract.Event{Key: "sink.in", ID: fmt.Sprint(i), Body: body})
		})
	}
	// All that may be in flight is, once the proxy has swallowed it.
	until(t, "the events are sent", func(context.Context) bool {
		time.Sleep(pollInterval)
		return p.swallowed() >= publish.MaxUnconfirmed
	})
	cancel()
	publishing.Wait()
	unsent := 0
	for range cap(outcomes) {
		switch err := <-outcomes; {
		case errors.Is(err, contract.ErrUnconfirmed):
		case errors.Is(err, contract.ErrUnavailable) && executedOf(err) == contract.ExecutedNo:
			unsent++
		default:
			t.Errorf("got %v (executed %q), want unconfirmed, or unavailable", err, executedOf(err))
		}
	}
	if want := cap(outcomes) - publish.MaxUnconfirmed/len(body); unsent != want {
		t.Errorf("%d of %d publishes of 8 MiB were not sent, want %d", unsent, cap(outcomes), want)
	}
	if grown := heap() - before; grown > 2*publish.MaxUnconfirmed {
		t.Errorf("the heap has grown by %d MiB, want at most about the %d MiB that may be under way", grown>>20, publish.MaxUnconfirmed>>20)
	}
	p.hole()
}
