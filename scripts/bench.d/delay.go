package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

const (
	delayedKey   = "bench.later"
	delayedFor   = 200 * time.Millisecond
	delayedEvery = 2 * time.Millisecond // between two events
)

// later is an event that is delayed: when it is published, or because its first
// run fails.
type later struct {
	ID  string `json:"id"`
	Due int64  `json:"due"` // Unix microseconds; 0 if its first run is to fail
}

// RoutingKey makes later a message.
func (later) RoutingKey() string { return delayedKey }

// measureDelays: how late an event comes that is delayed, and what it costs beside
// one that is not. It can be compared with another version of Rabbet only.
func measureDelays(ctx context.Context, s settings, name string, _ *table) (err error) {
	processes, err := eventProcesses(s)
	if err != nil {
		return err
	}
	m := delayMeasurement{firstRuns: map[string]time.Time{}, done: newCounter()}
	if m.broker, err = rabbit.Open(rabbit.Config{URL: s.amqp, Namespace: namespace}); err != nil {
		return err
	}
	defer m.broker.Close()
	stop, err := serveSink(ctx, s.amqp, func() {}, func(set *faas.Set[noDeps]) {
		faas.OnEvent(set, "bench-later", m.run, faas.Concurrency(atOnce), contract.Retry{Max: 3, First: delayedFor / 2, Factor: 1})
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := awaitFunctions(ctx, m.broker, []contract.Function{{Descriptor: contract.Descriptor{Name: "bench-later"}}}); err != nil {
		return err
	}

	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "delay\tlate p50\tp99\tCPU µs")
	for _, c := range []struct {
		name  string
		event func(id string) (later, time.Time)
	}{
		{"none", func(id string) (later, time.Time) { return later{id, time.Now().UnixMicro()}, time.Time{} }},
		{"publish 200 ms ahead", func(id string) (later, time.Time) {
			due := time.Now().Add(delayedFor).Truncate(time.Millisecond)
			return later{id, due.UnixMicro()}, due
		}},
		{"retry after 200 ms", func(id string) (later, time.Time) { return later{ID: id}, time.Time{} }},
	} {
		var p50, p99 []time.Duration
		var cpu []float64
		for round := range s.rounds + 1 { // the first one warms up
			fmt.Fprintf(os.Stderr, "bench: %s, %s, round %d of %d\n", name, c.name, round, s.rounds)
			sd := side{processes: processes, run: func(ctx context.Context, _ int, d time.Duration) (load, error) { return m.feed(ctx, d, c.event) }}
			r, err := sd.measure(ctx, 1, s.seconds)
			if err != nil {
				return err
			}
			if round == 0 {
				continue
			}
			p50, p99, cpu = append(p50, m.late[len(m.late)/2]), append(p99, m.late[len(m.late)*99/100]), append(cpu, sum(r.cpu))
		}
		same := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
		fmt.Fprintf(t, "%s\t%v\t%v\t%.0f\n", c.name, middle(p50, same), middle(p99, same), middle(cpu, func(v float64) float64 { return v }))
	}
	return t.Flush()
}

// delayMeasurement is the function that is delayed, and what came of it.
type delayMeasurement struct {
	broker *rabbit.Broker
	done   *counter
	number int

	mu        sync.Mutex
	firstRuns map[string]time.Time // of events whose first run failed
	late      []time.Duration
}

func (m *delayMeasurement) run(_ context.Context, _ *noDeps, in later) error {
	now := time.Now()
	m.mu.Lock()
	due := time.UnixMicro(in.Due)
	if in.Due == 0 {
		first, failed := m.firstRuns[in.ID]
		if !failed {
			m.firstRuns[in.ID] = now
			m.mu.Unlock()
			return faas.RetryAfter(delayedFor, errors.New("as always"))
		}
		delete(m.firstRuns, in.ID)
		due = first.Add(delayedFor)
	}
	m.late = append(m.late, now.Sub(due))
	m.mu.Unlock()
	m.done.add()
	return nil
}

// feed publishes events at a fixed rate for d, and waits until all have run.
func (m *delayMeasurement) feed(ctx context.Context, d time.Duration, event func(id string) (later, time.Time)) (load, error) {
	m.mu.Lock()
	m.late = nil
	m.mu.Unlock()
	before, n := m.done.count.Load(), 0
	tick := time.NewTicker(delayedEvery)
	defer tick.Stop()
	var publishing sync.WaitGroup
	failures := make(chan error, int(d/delayedEvery)+1)
	for began := time.Now(); time.Since(began) < d; n++ {
		<-tick.C
		m.number++
		e, notBefore := event(strconv.Itoa(m.number))
		publishing.Go(func() {
			body, err := json.Marshal(e)
			if err == nil {
				err = m.broker.Publish(ctx, contract.Event{Key: delayedKey, Body: body, NotBefore: notBefore})
			}
			if err != nil {
				failures <- err
			}
		})
	}
	publishing.Wait()
	select {
	case err := <-failures:
		return load{}, err
	default:
	}
	err := m.done.wait(ctx, before+int64(n))
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.late)
	return load{count: n}, err
}
