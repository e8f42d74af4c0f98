package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// load is what one measurement showed.
type load struct {
	count int           // requests or events
	rate  float64       // of them per second
	p99   time.Duration // 0 where it means nothing
}

// side is one of the two that are compared.
type side struct {
	run       func(ctx context.Context, connections int, d time.Duration) (load, error)
	processes []process
}

// comparison is two sides under the same load.
type comparison struct {
	name             string
	connections      []int
	baseline, rabbet side
}

// result is what one side showed in a round.
type result struct {
	rate float64
	p99  time.Duration
	cpu  []float64 // µs per request, for each process
}

// round is both sides, one right after the other. A machine that becomes faster
// or slower in the course of a run changes both of them: so their ratio is taken
// for each round.
type round struct{ baseline, rabbet result }

func measure(ctx context.Context) error {
	s, err := readSettings()
	if err != nil {
		return err
	}
	t := newTable(os.Stdout)
	for _, c := range []struct {
		name string
		run  func(context.Context, settings, string, *table) error
	}{
		{"call", compareCalls},
		{"call put", compareCalls},
		{"latency", compareLatency},
		{"cached redis", compareCached},
		{"cached memcached", compareCached},
		{"cached in process", compareLocal},
		{"invalidation", measureInvalidation},
		{"304 for 200", compareNotModified},
		{"publish", comparePublish},
		{"publish to ack", compareEndToEnd},
		{"beside failing", compareBesideFailing},
		{"delay", measureDelays},
	} {
		if s.wants(c.name) {
			if err := c.run(ctx, s, c.name, t); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return t.flush()
}

// compare measures both sides in turn at each number of connections, and adds
// a line for each to t.
func compare(ctx context.Context, s settings, c comparison, t *table) error {
	for _, connections := range c.connections {
		if s.at != 0 && s.at != connections {
			continue
		}
		for _, warm := range []side{c.baseline, c.rabbet} {
			if _, err := warm.run(ctx, connections, time.Second); err != nil {
				return err
			}
		}
		rounds := make([]round, s.rounds)
		for i := range rounds {
			fmt.Fprintf(os.Stderr, "bench: %s, %d at once, round %d of %d\n", c.name, connections, i+1, s.rounds)
			// The sides take turns in going first, so that a machine that slows down favours none.
			order := []struct {
				side   side
				result *result
			}{{c.baseline, &rounds[i].baseline}, {c.rabbet, &rounds[i].rabbet}}
			if i%2 == 1 {
				slices.Reverse(order)
			}
			for _, o := range order {
				var err error
				if *o.result, err = o.side.measure(ctx, connections, s.seconds); err != nil {
					return err
				}
			}
		}
		t.add(c, connections, rounds)
	}
	return nil
}

func (s side) measure(ctx context.Context, connections int, d time.Duration) (result, error) {
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	l, err := s.run(ctx, connections, d)
	if err != nil {
		return result{}, err
	}
	after, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	r := result{rate: l.rate, p99: l.p99}
	for i := range after {
		r.cpu = append(r.cpu, float64((after[i]-before[i]).Microseconds())/float64(max(l.count, 1)))
	}
	return r, nil
}

func (s side) cpu() ([]time.Duration, error) {
	var times []time.Duration
	for _, p := range s.processes {
		d, err := p.cpu()
		if err != nil {
			return nil, err
		}
		times = append(times, d)
	}
	return times, nil
}

// ratio is the median of the rounds' ratios of one figure, rabbet's to the
// baseline's.
func ratio(rounds []round, of func(result) float64) float64 {
	return middle(rounds, func(r round) float64 { return of(r.rabbet) / of(r.baseline) })
}

// middle is the median of one figure of the rounds.
func middle[R any, T cmp.Ordered](rounds []R, of func(R) T) T {
	var values []T
	for _, r := range rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
