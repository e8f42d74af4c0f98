package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

const (
	neighbourKey   = "bench.beside"
	neighbourEvery = 100 * time.Millisecond // between two of its events
	neighbourRuns  = 3                      // attempts of one that fails
	neighbourAhead = time.Second            // until as many are tried again as come anew
)

var (
	wellBody = []byte(`{"id":"well"}`)
	badBody  = []byte(`{"id":"bad"}`)
)

// neighbour is the event of the function beside the one that is measured.
type neighbour echo

// RoutingKey makes neighbour a message.
func (neighbour) RoutingKey() string { return neighbourKey }

// compareBesideFailing: events from publish to ack, while another function of
// the same worker gets 10 events a second: all of them succeed (the baseline),
// or all of them fail, on each of their attempts.
func compareBesideFailing(ctx context.Context, s settings, name string, t *table) (err error) {
	processes, err := eventProcesses(s)
	if err != nil {
		return err
	}
	broker, err := rabbit.Open(rabbit.Config{URL: s.amqp, Namespace: namespace})
	if err != nil {
		return err
	}
	defer broker.Close()
	done, beside := newCounter(), newCounter()
	stop, err := serveSink(ctx, s.amqp, done.add, func(set *faas.Set[noDeps]) {
		faas.OnEvent(set, "bench-neighbour", func(_ context.Context, _ *noDeps, in neighbour) error {
			beside.add()
			if in.ID == "bad" {
				return errors.New("as always")
			}
			return nil
		}, contract.Retry{Max: neighbourRuns, First: 200 * time.Millisecond, Factor: 2})
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	sideOf := func(body []byte, runs int) side {
		return side{processes: processes, run: func(ctx context.Context, n int, d time.Duration) (load, error) {
			began := beside.count.Load()
			feeding, enough := context.WithCancel(ctx)
			var feed sync.WaitGroup
			fed, failed := 0, error(nil)
			feed.Go(func() {
				tick := time.NewTicker(neighbourEvery)
				defer tick.Stop()
				for failed == nil {
					select {
					case <-feeding.Done():
						return
					case <-tick.C:
					}
					if failed = broker.Publish(ctx, contract.Event{Key: neighbourKey, Body: body}); failed == nil {
						fed++
					}
				}
			})
			time.Sleep(neighbourAhead)
			before, start := done.count.Load(), time.Now()
			l, err := publishFor(ctx, n, d, publishTo(broker))
			if err == nil {
				err = done.wait(ctx, before+int64(l.count))
			}
			l.rate = float64(l.count) / time.Since(start).Seconds()
			enough()
			feed.Wait()
			if err := errors.Join(err, failed); err != nil {
				return l, err
			}
			if fed == 0 {
				return l, fmt.Errorf("the neighbour got no event")
			}
			// The next measurement does not pay for what this one has left.
			return load{count: l.count, rate: l.rate}, beside.wait(ctx, began+int64(fed*runs))
		}}
	}
	return compare(ctx, s, comparison{
		name: name, connections: publishers,
		baseline: sideOf(wellBody, 1), rabbet: sideOf(badBody, neighbourRuns),
	}, t)
}
