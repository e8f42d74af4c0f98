package brokertest

import (
	"testing"
	"time"
)

func TestCheckHistory(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1_000_000, 0).Add(time.Duration(ms) * time.Millisecond) }
	written := func(value string, start, end int, o outcome) operation {
		return operation{register: "r", write: true, once: true, value: value, start: at(start), end: at(end), outcome: o}
	}
	read := func(value string, start int) operation {
		return operation{register: "r", value: value, start: at(start), end: at(start + 1)}
	}
	first, second := written("first", 0, 10, answered), written("second", 20, 30, answered)
	concurrent := written("concurrent", 5, 40, answered)
	for name, tt := range map[string]struct {
		history []operation
		begun   map[string][]int
		bad     int
	}{
		"no anomaly":                       {[]operation{first, second, read("first", 5), read("first", 15), read("second", 35)}, nil, 0},
		"an overwritten value":             {[]operation{first, second, read("first", 35)}, nil, 1},
		"a write at the same time as both": {[]operation{first, second, concurrent, read("concurrent", 41), read("second", 41)}, nil, 0},
		"the read began before the second write was answered": {[]operation{first, second, read("first", 25)}, nil, 0},
		"an unknown write may come at any time":               {[]operation{written("first", 0, 10, unknown), second, read("first", 90)}, map[string][]int{"first": {80}}, 0},
		"no value after a write":                              {[]operation{first, read("", 15)}, nil, 1},
		"a value that was never written":                      {[]operation{first, read("other", 15)}, nil, 1},
		"it ran again after its answer":                       {[]operation{first}, map[string][]int{"first": {5, 11}}, 2},
		"it ran twice before its answer":                      {[]operation{first}, map[string][]int{"first": {5, 6}}, 1},
		"it ran and should not have":                          {[]operation{written("first", 0, 10, notExecuted)}, map[string][]int{"first": {5}}, 1},
		"it did not run":                                      {[]operation{first}, map[string][]int{"first": {}}, 1},
	} {
		begun := map[string][]run{}
		for _, o := range tt.history {
			if o.write && o.outcome == answered {
				begun[o.value] = []run{{o.start, 1}}
			}
		}
		for value, runs := range tt.begun {
			begun[value] = nil
			for _, ms := range runs {
				begun[value] = append(begun[value], run{at(ms), 1})
			}
		}
		if got := checkHistory(tt.history, begun); len(got) != tt.bad {
			t.Errorf("%s: got %q, want %d anomalies", name, got, tt.bad)
		}
	}
}
