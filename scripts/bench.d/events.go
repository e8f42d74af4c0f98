package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

const (
	eventKey  = "bench.happened"
	atOnce    = 128 // runs of the function, and so deliveries that are not settled yet
	namespace = "bench-events"
	sinkQueue = namespace + ".event.bench-sink"
)

var (
	publishers = []int{1, 16, 256}
	eventBody  = []byte(`{"id":"42"}`)
)

// publishOne returns when the broker has confirmed one event.
type publishOne func(context.Context) error

// comparePublish: confirmed publishes to a quorum queue without consumers.
func comparePublish(ctx context.Context, s settings, name string, t *table) (err error) {
	processes, err := eventProcesses(s)
	if err != nil {
		return err
	}
	raw, err := newRawEvents(s.amqp)
	if err != nil {
		return err
	}
	defer raw.close()
	broker, err := rabbit.Open(rabbit.Config{URL: s.amqp, Namespace: namespace})
	if err != nil {
		return err
	}
	defer broker.Close()
	if err := declareFunction(ctx, s.amqp); err != nil {
		return err
	}
	defer func() { // its messages are not needed
		_, deleteErr := raw.ch.QueueDelete(sinkQueue, false, false, false)
		err = errors.Join(err, deleteErr)
	}()
	sideOf := func(queue string, publish publishOne) side {
		return side{processes: processes, run: func(ctx context.Context, n int, d time.Duration) (load, error) {
			if _, err := raw.ch.QueuePurge(queue, false); err != nil {
				return load{}, err
			}
			return publishFor(ctx, n, d, publish)
		}}
	}
	return compare(ctx, s, comparison{
		name: name, connections: publishers,
		baseline: sideOf(rawQueue, raw.publish),
		rabbet:   sideOf(sinkQueue, publishTo(broker)),
	}, t)
}

// compareEndToEnd: events from confirmed publishes to the ack after the
// function has run. The clock stops when the last one is done.
func compareEndToEnd(ctx context.Context, s settings, name string, t *table) (err error) {
	processes, err := eventProcesses(s)
	if err != nil {
		return err
	}
	raw, err := newRawEvents(s.amqp)
	if err != nil {
		return err
	}
	defer raw.close()
	if _, err := raw.ch.QueuePurge(rawQueue, false); err != nil {
		return err
	}
	rawDone := newCounter()
	if err := raw.consume(s.amqp, rawDone.add); err != nil {
		return err
	}

	broker, err := rabbit.Open(rabbit.Config{URL: s.amqp, Namespace: namespace})
	if err != nil {
		return err
	}
	defer broker.Close()
	done := newCounter()
	stop, err := serveSink(ctx, s.amqp, done.add)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	sideOf := func(publish publishOne, done *counter) side {
		return side{processes: processes, run: func(ctx context.Context, n int, d time.Duration) (load, error) {
			before, start := done.count.Load(), time.Now()
			l, err := publishFor(ctx, n, d, publish)
			if err != nil {
				return l, err
			}
			if err := done.wait(ctx, before+int64(l.count)); err != nil {
				return l, err
			}
			return load{count: l.count, rate: float64(l.count) / time.Since(start).Seconds()}, nil
		}}
	}
	return compare(ctx, s, comparison{
		name: name, connections: publishers,
		baseline: sideOf(raw.publish, rawDone), rabbet: sideOf(publishTo(broker), done),
	}, t)
}

// eventProcesses: publishers and functions run in this one.
func eventProcesses(s settings) ([]process, error) {
	broker, err := s.service("rabbitmq")
	return []process{broker, {"client", os.Getpid()}}, err
}

func publishTo(broker *rabbit.Broker) publishOne {
	return func(ctx context.Context) error {
		return broker.Publish(ctx, contract.Event{Key: eventKey, Body: eventBody})
	}
}

// publishFor publishes from n goroutines for d.
func publishFor(ctx context.Context, n int, d time.Duration, publish publishOne) (load, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		took  []time.Duration
		fails []error
	)
	start := time.Now()
	for range n {
		wg.Go(func() {
			var mine []time.Duration
			var err error
			for err == nil && time.Since(start) < d {
				began := time.Now()
				if err = publish(ctx); err == nil {
					mine = append(mine, time.Since(began))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if err != nil {
				fails = append(fails, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(fails...); err != nil {
		return load{}, err
	}
	rate := float64(len(took)) / time.Since(start).Seconds()
	slices.Sort(took)
	return load{count: len(took), rate: rate, p99: took[len(took)*99/100].Round(10 * time.Microsecond)}, nil
}

// counter counts events, and lets one goroutine wait for a count.
type counter struct {
	count   atomic.Int64
	changed chan struct{}
}

func newCounter() *counter { return &counter{changed: make(chan struct{}, 1)} }

func (c *counter) add() {
	c.count.Add(1)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *counter) wait(ctx context.Context, n int64) error {
	timeout := time.After(time.Minute)
	for c.count.Load() < n {
		select {
		case <-c.changed:
		case <-timeout:
			return fmt.Errorf("only %d of %d events were handled within a minute after the last publish", c.count.Load(), n)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// happened is the event.
type happened echo

// RoutingKey makes happened a message.
func (happened) RoutingKey() string { return eventKey }

// serveSink hosts an event function that does nothing but tell of each run,
// and what more puts beside it.
func serveSink(ctx context.Context, url string, ran func(), more ...func(*faas.Set[noDeps])) (stop func() error, err error) {
	var set faas.Set[noDeps]
	for _, add := range more {
		add(&set)
	}
	faas.OnEvent(&set, "bench-sink", func(context.Context, *noDeps, happened) error {
		ran()
		return nil
	}, faas.Concurrency(atOnce))
	fns, err := set.With(&noDeps{})
	if err != nil {
		return nil, err
	}
	worker, err := rabbit.Open(rabbit.Config{URL: url, Namespace: namespace})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- worker.Serve(ctx, fns) }() // ends with stop
	stop = func() error {
		cancel()
		return errors.Join(<-served, worker.Close())
	}
	if err := awaitFunctions(ctx, worker, fns); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// awaitFunctions waits until b knows that the functions consume.
func awaitFunctions(ctx context.Context, b *rabbit.Broker, fns []contract.Function) error {
	for _, fn := range fns {
		for {
			changed := b.Directory().Changed()
			if live, _ := b.Directory().Find(fn.Name); len(live.Workers) > 0 {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
		}
	}
	return nil
}

// declareFunction leaves the function's queue behind, without a worker.
func declareFunction(ctx context.Context, url string) error {
	stop, err := serveSink(ctx, url, func() {})
	if err != nil {
		return err
	}
	return stop()
}

const (
	rawExchange = "baseline.events"
	rawQueue    = rawExchange + ".sink"
)

// rawEvents is the same work with amqp091-go alone: the same kinds of exchange
// and queue, mandatory and confirmed, one connection to publish and one to consume.
type rawEvents struct {
	ch       *amqp.Channel
	closeAll []func()
}

func newRawEvents(url string) (*rawEvents, error) {
	ch, closeConnection, err := channel(url)
	if err != nil {
		return nil, err
	}
	r := &rawEvents{ch: ch, closeAll: []func(){closeConnection}}
	if _, err := ch.QueueDeclare(rawQueue, true, false, false, false, amqp.Table{
		"x-queue-type": "quorum", "x-delivery-limit": int64(20), "x-overflow": "reject-publish", "x-max-length": int64(1_000_000),
		"x-dead-letter-exchange": "amq.fanout", "x-dead-letter-strategy": "at-least-once",
	}); err != nil {
		r.close()
		return nil, err
	}
	if err := errors.Join(
		ch.ExchangeDeclare(rawExchange, amqp.ExchangeTopic, true, false, false, false, nil),
		ch.QueueBind(rawQueue, eventKey, rawExchange, false, nil),
		ch.Confirm(false),
	); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rawEvents) publish(ctx context.Context) error {
	confirmation, err := r.ch.PublishWithDeferredConfirmWithContext(ctx, rawExchange, eventKey, true, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: eventBody,
	})
	if err != nil {
		return err
	}
	acked, err := confirmation.WaitContext(ctx)
	if err == nil && !acked {
		err = errors.New("the broker refused the event")
	}
	return err
}

// consume acks each event after telling of it.
func (r *rawEvents) consume(url string, ran func()) error {
	ch, closeConnection, err := channel(url)
	if err != nil {
		return err
	}
	r.closeAll = append(r.closeAll, closeConnection)
	if err := ch.Qos(atOnce, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(rawQueue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	go func() { // ends with the connection
		for d := range deliveries {
			ran()
			if err := d.Ack(false); err != nil {
				return // the deliveries end, too
			}
		}
	}()
	return nil
}

func (r *rawEvents) close() {
	for _, closeConnection := range r.closeAll {
		closeConnection()
	}
}
