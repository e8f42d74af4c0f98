package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table is what it is all for: a line for each case and number of connections.
type table struct {
	w     *tabwriter.Writer
	lines int
}

func newTable(w io.Writer) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, "case\tat once\tbaseline/s\trabbet/s\tratio\tbaseline p99\trabbet p99\tratio\tbaseline CPU µs\trabbet CPU µs\tratio")
	return t
}

func (t *table) add(c comparison, connections int, rounds []round) {
	t.lines++
	rate := func(r result) float64 { return r.rate }
	p99 := func(r result) float64 { return float64(r.p99) }
	cpu := func(r result) float64 { return sum(r.cpu) }

	fmt.Fprintf(t.w, "%s\t%d\t%.0f\t%.0f\t%.2f", c.name, connections,
		middle(rounds, func(r round) float64 { return r.baseline.rate }),
		middle(rounds, func(r round) float64 { return r.rabbet.rate }), ratio(rounds, rate))
	if rounds[0].baseline.p99 > 0 && rounds[0].rabbet.p99 > 0 {
		fmt.Fprintf(t.w, "\t%v\t%v\t%.2f",
			middle(rounds, func(r round) time.Duration { return r.baseline.p99 }),
			middle(rounds, func(r round) time.Duration { return r.rabbet.p99 }), ratio(rounds, p99))
	} else {
		fmt.Fprint(t.w, "\t\t\t")
	}
	fmt.Fprintf(t.w, "\t%s\t%s\t%.2f\n",
		costs(c.baseline, rounds, func(r round) result { return r.baseline }),
		costs(c.rabbet, rounds, func(r round) result { return r.rabbet }), ratio(rounds, cpu))
}

func sum(list []float64) (total float64) {
	for _, v := range list {
		total += v
	}
	return total
}

// costs says what one request cost each process of a side.
func costs(s side, rounds []round, of func(round) result) string {
	var parts []string
	for i, p := range s.processes {
		parts = append(parts, fmt.Sprintf("%s %.0f", p.name, middle(rounds, func(r round) float64 { return of(r).cpu[i] })))
	}
	return strings.Join(parts, ", ")
}

func (t *table) flush() error {
	if t.lines == 0 {
		return nil
	}
	return t.w.Flush()
}
