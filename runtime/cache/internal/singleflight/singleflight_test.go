package singleflight

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"
)

// A caller that looked at the cache before an equal run finished, and comes to
// join it after that, is told to look again instead of starting another run.
func TestFinishedRun(t *testing.T) {
	var g Group[string]
	runs := 0
	run := func(context.Context) (string, error) {
		runs++
		return "x", nil
	}
	key, other := Key{Sum: sha256.Sum256([]byte("this"))}, Key{Sum: sha256.Sum256([]byte("other"))}
	epoch, otherEpoch := g.Epoch(&key.Sum), g.Epoch(&other.Sum)
	if _, _, err := g.Do(t.Context(), key, epoch, run); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Do(t.Context(), key, epoch, run); !errors.Is(err, ErrFinished) || runs != 1 {
		t.Errorf("after it finished: got %v and %d runs, want %v", err, runs, ErrFinished)
	}
	if _, _, err := g.Do(t.Context(), other, otherEpoch, run); err != nil || runs != 2 {
		t.Errorf("another call: got %v and %d runs", err, runs)
	}
	if _, _, err := g.Do(t.Context(), key, g.Epoch(&key.Sum), run); err != nil || runs != 3 {
		t.Errorf("a caller that has looked since: got %v and %d runs", err, runs)
	}
	if _, _, err := g.Do(t.Context(), key, AnyEpoch, run); err != nil || runs != 4 {
		t.Errorf("a caller that has looked twice: got %v and %d runs", err, runs)
	}
	g.Wait()
}

// A panic in a run is an error for all that wait for it, and does not block later
// callers.
func TestPanic(t *testing.T) {
	var g Group[string]
	var key Key
	release := make(chan bool)
	errs := make(chan error, 2)
	join := func(fn func(context.Context) (string, error)) {
		_, _, err := g.Do(t.Context(), key, AnyEpoch, fn)
		errs <- err
	}
	go join(func(context.Context) (string, error) { <-release; panic("out of luck") })
	for g.Waiting() != 1 {
		time.Sleep(time.Millisecond)
	}
	go join(func(context.Context) (string, error) {
		t.Error("it did not join")
		return "", nil
	})
	for g.Waiting() != 2 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	for range 2 {
		err := <-errs
		if p, ok := errors.AsType[*PanicError](err); !ok || !strings.Contains(p.Error(), "out of luck") {
			t.Errorf("got %v, want the panic", err)
		}
	}
	if v, _, err := g.Do(t.Context(), key, AnyEpoch, func(context.Context) (string, error) { return "1", nil }); err != nil || v != "1" {
		t.Errorf("afterwards: %v, %v", v, err)
	}
}

// The run ends when the last caller gives up, and not before.
func TestGiveUp(t *testing.T) {
	var g Group[string]
	var key Key
	ended := make(chan error, 1)
	run := func(ctx context.Context) (string, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return "", ctx.Err()
	}
	results := make(chan error, 2)
	var cancels [2]context.CancelFunc
	for i := range cancels {
		ctx, cancel := context.WithCancel(t.Context())
		cancels[i] = cancel
		go func() { // ends when the caller gives up
			_, _, err := g.Do(ctx, key, AnyEpoch, run)
			results <- err
		}()
		for g.Waiting() != i+1 {
			time.Sleep(time.Millisecond)
		}
	}
	cancels[0]()
	if err := <-results; !errors.Is(err, ErrGaveUp) {
		t.Errorf("the first caller: got %v, want %v", err, ErrGaveUp)
	}
	select {
	case <-ended:
		t.Error("the run ended while a caller waited")
	default:
	}
	cancels[1]()
	if err := <-results; !errors.Is(err, ErrGaveUp) {
		t.Errorf("the last caller: got %v, want %v", err, ErrGaveUp)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the run: got %v, want it cancelled", err)
	}
	g.Wait()
}
