package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// compareLatency: how long calls take that travel together, beside calls with a
// message of their own: the product's with RABBET_BATCH=0 where the function
// takes its time, the thin baseline's at a fixed rate.
func compareLatency(ctx context.Context, s settings, _ string, _ *table) error {
	run := children{logs: filepath.Join(s.services, "log")}
	defer run.stop()
	thin, err := startThin(&run, s)
	if err != nil {
		return err
	}
	together, err := startRabbet(&run, s, "none")
	if err != nil {
		return err
	}
	alone, err := startIngress(&run, s, "none", "ingress-alone", "RABBET_BATCH=0")
	if err != nil {
		return err
	}
	for _, addr := range []string{thin.addr, together.addr, alone.addr} {
		if err := echoes42(ctx, "http://"+addr+"/echo/42"); err != nil {
			return err
		}
	}

	t := newLatencyTable(os.Stdout)
	for _, c := range []struct{ name, class, path string }{
		{"50 ms, 256 at once", "all", "/echo/42?pause=50"},
		{"90 % at once, 10 % 100 ms, 64 at once: the fast", "fast", ""},
	} {
		connections := 256
		if c.class == "fast" {
			connections = 64
		}
		load := func(addr string) generator {
			return generator{addr: addr, connections: connections, path: func(i, n int) (string, string) {
				switch {
				case c.path != "":
					return c.path, c.class
				case (i+n)%10 == 0:
					return "/echo/42?pause=100", "slow"
				}
				return "/echo/42", c.class
			}}
		}
		if err := t.compare(ctx, s, c.name, c.class, "alone", load(alone.addr), load(together.addr)); err != nil {
			return err
		}
	}

	fast := func(addr string, rate float64) generator {
		return generator{addr: addr, connections: 64, rate: rate, path: func(int, int) (string, string) { return "/echo/42", "all" }}
	}
	const long = 3 * time.Second
	peak, err := fast(thin.addr, 0).run(ctx, long)
	if err != nil {
		return err
	}
	for _, share := range []float64{0.3, 0.6, 0.9} {
		rate := share * float64(len(peak["all"])) / long.Seconds()
		name := fmt.Sprintf("%.0f %% of the baseline's peak, %.0f/s", 100*share, rate)
		if err := t.compare(ctx, s, name, "all", "baseline", fast(thin.addr, rate), fast(together.addr, rate)); err != nil {
			return err
		}
	}
	return t.w.Flush()
}

// latencyTable has a line for each kind of load.
type latencyTable struct{ w *tabwriter.Writer }

func newLatencyTable(w io.Writer) *latencyTable {
	t := &latencyTable{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, "latency\tbeside\tp50\trabbet p50\tp99\trabbet p99\tp99.9\trabbet p99.9")
	return t
}

// compare loads both sides in turn, and adds the medians of the rounds.
func (t *latencyTable) compare(ctx context.Context, s settings, name, class, beside string, a, b generator) error {
	var rounds [2][]latencies
	for round := range s.rounds {
		fmt.Fprintf(os.Stderr, "bench: %s, round %d of %d\n", name, round+1, s.rounds)
		order := []int{0, 1}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			l, err := []generator{a, b}[i].run(ctx, s.seconds)
			if err != nil {
				return err
			}
			rounds[i] = append(rounds[i], l[class])
		}
	}
	fmt.Fprintf(t.w, "%s\t%s", name, beside)
	for _, share := range []float64{0.5, 0.99, 0.999} {
		for i := range rounds {
			at := middle(rounds[i], func(l latencies) time.Duration { return l.at(share) })
			fmt.Fprintf(t.w, "\t%v", at.Round(10*time.Microsecond))
		}
	}
	fmt.Fprintln(t.w)
	return nil
}
