package delay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func testBreaker() *breaker { return &breaker{name: "q", changed: make(chan struct{})} }

func patient() time.Duration { return targetTimeout }

// wantOpen fails t unless err says that the breaker is open for so long.
func wantOpen(t *testing.T, what string, err error, wait time.Duration, stalled bool) {
	t.Helper()
	if open, ok := errors.AsType[*openError](err); !ok || open.wait != wait || open.stalled != stalled {
		t.Errorf("%s: got %#v, want open for %v (stalled %v)", what, err, wait, stalled)
	}
}

// A breaker opens with a failure, for longer after each, and lets one try at a time
// find out whether it is over.
func TestBreakerOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := testBreaker()
		for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second} {
			if err := k.acquire(t.Context(), patient); err != nil {
				t.Fatalf("a try: %v", err)
			}
			if k.failures > 0 {
				wantOpen(t, "beside a try", k.acquire(t.Context(), patient), probeWait, false)
			}
			k.release(failed)
			wantOpen(t, "after a failure", k.acquire(t.Context(), patient), pause, false)
			time.Sleep(pause)
		}
		if err := k.acquire(t.Context(), patient); err != nil {
			t.Fatal(err)
		}
		k.release(succeeded)
		for range maxInFlight {
			if err := k.acquire(t.Context(), patient); err != nil {
				t.Fatalf("after a success: %v", err)
			}
		}
		for range maxInFlight { // one failure of several at once opens it once
			k.release(failed)
		}
		wantOpen(t, "after failures at the same time", k.acquire(t.Context(), patient), time.Second, false)
	})
}

// More than maxInFlight wait for a confirmation, but not for a queue that gives none.
func TestBreakerBoundsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := testBreaker()
		for range maxInFlight {
			if err := k.acquire(t.Context(), patient); err != nil {
				t.Fatal(err)
			}
		}
		time.AfterFunc(500*time.Millisecond, func() { k.release(succeeded) })
		began := time.Now()
		if err := k.acquire(t.Context(), patient); err != nil || time.Since(began) != 500*time.Millisecond {
			t.Errorf("got %v after %v, want a place after 500 ms", err, time.Since(began))
		}
		began = time.Now()
		wantOpen(t, "without a confirmation", k.acquire(t.Context(), patient), 0, true)
		if took := time.Since(began); took < targetTimeout || took > targetTimeout+busyTimeout {
			t.Errorf("took %v, want about %v", took, targetTimeout)
		}
		wantOpen(t, "in a crowd", k.acquire(t.Context(), func() time.Duration { return busyTimeout }), 0, true)
	})
}
