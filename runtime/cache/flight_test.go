package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Who has looked at the store before an equal call landed, and comes to join it
// after that, is told to look again instead of running the function again.
func TestLandedFlight(t *testing.T) {
	var f flights
	runs := 0
	run := func(context.Context) (Result, error) {
		runs++
		return Result{Reply: faas.Reply{Body: []byte("x")}}, nil
	}
	sum, other := sha256.Sum256([]byte("this")), sha256.Sum256([]byte("other"))
	looked, otherLooked := f.landed(&sum), f.landed(&other)
	if _, err := f.do(t.Context(), &sum, "key", looked, run); err != nil {
		t.Fatal(err)
	}
	if _, err := f.do(t.Context(), &sum, "key", looked, run); !errors.Is(err, errLanded) || runs != 1 {
		t.Errorf("after it landed: got %v and %d runs, want %v", err, runs, errLanded)
	}
	if _, err := f.do(t.Context(), &other, "other", otherLooked, run); err != nil || runs != 2 {
		t.Errorf("another call: got %v and %d runs", err, runs)
	}
	if _, err := f.do(t.Context(), &sum, "key", f.landed(&sum), run); err != nil || runs != 3 {
		t.Errorf("who has looked since: got %v and %d runs", err, runs)
	}
	if _, err := f.do(t.Context(), &sum, "key", anyTime, run); err != nil || runs != 4 {
		t.Errorf("who has looked twice: got %v and %d runs", err, runs)
	}
	f.running.Wait()
}
