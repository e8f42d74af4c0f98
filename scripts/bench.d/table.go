package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
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

func (t *table) add(c comparison, connections int, baseline, rabbet result) {
	t.lines++
	fmt.Fprintf(t.w, "%s\t%d\t%.0f\t%.0f\t%.2f\t", c.name, connections, baseline.rate, rabbet.rate, rabbet.rate/baseline.rate)
	if baseline.p99 > 0 && rabbet.p99 > 0 {
		fmt.Fprintf(t.w, "%v\t%v\t%.2f\t", baseline.p99, rabbet.p99, float64(rabbet.p99)/float64(baseline.p99))
	} else {
		fmt.Fprint(t.w, "\t\t\t")
	}
	fmt.Fprintf(t.w, "%s\t%s\t%.2f\n", costs(c.baseline, baseline), costs(c.rabbet, rabbet), sum(rabbet.cpu)/sum(baseline.cpu))
}

func sum(list []float64) (total float64) {
	for _, v := range list {
		total += v
	}
	return total
}

// costs says what one request cost each process.
func costs(s side, r result) string {
	var parts []string
	for i, p := range s.processes {
		parts = append(parts, fmt.Sprintf("%s %.0f", p.name, r.cpu[i]))
	}
	return strings.Join(parts, ", ")
}

func (t *table) flush() error {
	if t.lines == 0 {
		return nil
	}
	return t.w.Flush()
}
