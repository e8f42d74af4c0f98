package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Who has looked at the store before an equal call landed, and comes to join it
// after that, is told to look again instead of running the function again.
func TestLandedFlight(t *testing.T) {
	var f flights
	runs := 0
	run := func(context.Context) (contract.CacheResult, error) {
		runs++
		return contract.CacheResult{Reply: contract.Reply{Body: []byte("x")}}, nil
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

// A panic in the run that several wait for is an error to all of them, and
// stands in nobody's way.
func TestFlightThatPanics(t *testing.T) {
	var f flights
	var sum [32]byte
	waiting := make(chan bool)
	errs := make(chan error, 2)
	join := func(fn func(context.Context) (contract.CacheResult, error)) {
		_, err := f.do(t.Context(), &sum, "k", anyTime, fn)
		errs <- err
	}
	go join(func(context.Context) (contract.CacheResult, error) { <-waiting; panic("out of luck") })
	for begun := false; !begun; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		begun = f.under["k"] != nil
		f.mu.Unlock()
	}
	go join(func(context.Context) (contract.CacheResult, error) {
		t.Error("it did not join")
		return contract.CacheResult{}, nil
	})
	for joined := false; !joined; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		joined = f.under["k"].waiting == 2
		f.mu.Unlock()
	}
	close(waiting)
	for range 2 {
		err := <-errs
		if failure := contract.AsError(err); failure == nil || failure.Code != contract.CodeInternal || !strings.Contains(fmt.Sprint(failure.Cause), "out of luck") {
			t.Errorf("got %v, want what it panicked with", err)
		}
	}
	if result, err := f.do(t.Context(), &sum, "k", anyTime, func(context.Context) (contract.CacheResult, error) { return contract.CacheResult{ETag: "1"}, nil }); err != nil || result.ETag != "1" {
		t.Errorf("afterwards: %v, %v", result, err)
	}
}
