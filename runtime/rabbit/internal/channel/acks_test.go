package channel

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// ackNote is an acknowledgment that the broker got.
type ackNote struct {
	tag      uint64
	multiple bool
}

// noted is a channel that keeps them.
type noted chan ackNote

func (n noted) Ack(tag uint64, multiple bool) error {
	n <- ackNote{tag, multiple}
	return nil
}

func (noted) Nack(uint64, bool, bool) error { return nil }

func (noted) Reject(uint64, bool) error { return nil }

// An acknowledgment waits for others: for a batch of them, for the first to
// finish when one has waited long, and in the end for nobody.
func TestAcknowledgmentsTravelTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(noted, 10)
		a := NewAcks(got, 4)
		defer a.Close()
		a.Delivered(20)
		done := func(tags ...uint64) {
			for _, tag := range tags {
				a.Done(tag)
			}
		}
		expect := func(when string, want ...ackNote) {
			t.Helper()
			synctest.Wait()
			var have []ackNote
			for len(got) > 0 {
				have = append(have, <-got)
			}
			if !slices.Equal(have, want) {
				t.Errorf("%s: got %v, want %v", when, have, want)
			}
		}
		done(1, 2, 3)
		expect("no batch yet")
		done(5)
		expect("a batch, with a gap", ackNote{5, false}, ackNote{3, true})
		done(6)
		time.Sleep(ackDelay / 2)
		done(4)
		expect("one has not waited long")
		time.Sleep(time.Millisecond)
		done(7)
		expect("one has waited long", ackNote{7, true})
		done(8)
		time.Sleep(ackDelay - time.Millisecond)
		expect("nobody has joined it")
		time.Sleep(time.Millisecond)
		expect("nobody joins it", ackNote{8, true})
	})
}
