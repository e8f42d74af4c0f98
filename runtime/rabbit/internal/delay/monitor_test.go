package delay

import (
	"slices"
	"testing"
	"time"
)

// A tier is late when what was due did not come out, here or elsewhere.
func TestTierWatch(t *testing.T) {
	const tolerance = 15 * time.Second
	one, ten := Tier(time.Second), Tier(10*time.Second)
	began := time.Now()
	at := func(seconds int) int64 { return began.Add(time.Duration(seconds) * time.Second).UnixMilli() }
	late := func(w *tierMonitor, seconds int, want ...Tier) {
		t.Helper()
		if got := w.overdue(began.Add(time.Duration(seconds)*time.Second), tolerance); !slices.Equal(got, want) {
			t.Errorf("after %d s: got %v, want %v", seconds, got, want)
		}
	}
	told := make(chan []byte, 10)
	here := &tierMonitor{broadcast: func(_ string, body []byte) error { told <- body; return nil }}
	elsewhere := &tierMonitor{}
	here.published(one, at(1))
	late(here, 100) // it consumes nothing: another process does
	stop := here.consuming()
	here.since = began
	elsewhere.consuming()
	elsewhere.since = began

	late(here, 16)
	late(here, 17, one)
	here.published(one, at(30))
	here.arrived(one, at(1))
	late(here, 45) // the next one is due at 30
	late(here, 46, one)
	here.published(ten, at(40))
	late(here, 56, one, ten)
	here.arrived(one, at(30))
	late(here, 56, ten)

	elsewhere.published(one, at(29))
	late(elsewhere, 50, one)
	here.report()
	elsewhere.receiveReport(<-told)
	late(elsewhere, 50)
	here.report()
	if len(told) > 0 {
		t.Errorf("told %s, and nothing has come", <-told)
	}

	// A probe that comes through another tier says that messages were deleted.
	here.setProbe(ten, one, at(60))
	here.arrived(one, at(60))
	late(here, 100)
	stop()
}
