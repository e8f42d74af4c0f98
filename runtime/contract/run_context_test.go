package contract

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// ctxOf runs fn with the ctx of a run.
func ctxOf(t *testing.T, parent context.Context, deadline time.Time, fn func(ctx context.Context, r *Run)) {
	t.Helper()
	f := Function{Descriptor: Descriptor{Name: "f", Timeout: time.Minute}}
	var r *Run
	f.Handle = func(ctx context.Context, _ *Event) ([]byte, error) { fn(ctx, r); return nil, nil }
	r = f.Begin(parent, &Event{ID: "7"}, deadline)
	if _, err := r.Do(); err != nil {
		t.Errorf("the run failed: %v", err)
	}
}

// TestRunContext: the ctx of a run is like any other, listened to or not.
func TestRunContext(t *testing.T) {
	type key struct{}
	cause := errors.New("drained")
	for name, end := range map[string]struct {
		by   func(r *Run, parent context.CancelCauseFunc)
		want error
	}{
		"its caller cancels":  {func(r *Run, _ context.CancelCauseFunc) { r.Cancel() }, context.Canceled},
		"its parent ends":     {func(_ *Run, parent context.CancelCauseFunc) { parent(cause) }, context.Canceled},
		"its deadline passes": {func(*Run, context.CancelCauseFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded},
	} {
		for _, listens := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "kept"))
				defer cancel(nil)
				ctxOf(t, parent, time.Now().Add(time.Second), func(ctx context.Context, r *Run) {
					if ctx.Err() != nil || ctx.Value(key{}) != "kept" || MetaOf(ctx).ID != "7" {
						t.Errorf("%s: at first: got %v, %v, %+v", name, ctx.Err(), ctx.Value(key{}), MetaOf(ctx))
					}
					child := ctx
					if listens {
						var stop context.CancelFunc
						child, stop = context.WithCancel(context.WithValue(ctx, key{}, "own"))
						defer stop()
					}
					end.by(r, cancel)
					synctest.Wait()
					if !errors.Is(child.Err(), end.want) || !errors.Is(ctx.Err(), end.want) {
						t.Errorf("%s, listening %v: got %v and %v, want %v", name, listens, child.Err(), ctx.Err(), end.want)
					}
					select {
					case <-ctx.Done(): // also for one that nobody has listened to before
					default:
						t.Errorf("%s, listening %v: Done is open", name, listens)
					}
					if name == "its parent ends" && !errors.Is(context.Cause(child), cause) {
						t.Errorf("%s, listening %v: got the cause %v, want the parent's", name, listens, context.Cause(child))
					}
				})
			})
		}
	}
}

func TestRunContextEndsWithTheRun(t *testing.T) {
	var run *Run
	ctxOf(t, t.Context(), time.Time{}, func(_ context.Context, r *Run) { run = r })
	kept := &run.ctx
	if !errors.Is(kept.Err(), context.Canceled) {
		t.Errorf("after the run: got %v, want context.Canceled", kept.Err())
	}
	<-kept.Done()
	ctxOf(t, t.Context(), time.Now().Add(time.Hour), func(ctx context.Context, _ *Run) {
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > time.Minute {
			t.Errorf("got the deadline %v, %v; want the function's own limit", d, ok)
		}
	})
}

func TestNewIDIsUnique(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		id := NewID()
		if len(id) != 26 || seen[id] {
			t.Fatalf("got %q, want 26 characters that were not there before", id)
		}
		seen[id] = true
	}
}
