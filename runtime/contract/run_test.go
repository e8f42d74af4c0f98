package contract

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func function(handle Handler) *Function {
	return &Function{Descriptor: Descriptor{Name: "f", Timeout: time.Minute}, Handle: handle}
}

func TestRun(t *testing.T) {
	plain := errors.New("no")
	for _, c := range []struct {
		name     string
		handle   Handler
		code     Code
		executed Executed
	}{
		{"panic", func(context.Context, *Event) ([]byte, error) { panic("why") }, CodePanic, ""},
		{"plain error", func(context.Context, *Event) ([]byte, error) { return nil, plain }, CodeInternal, ""},
		{"declared error", func(context.Context, *Event) ([]byte, error) { return nil, Errorf(CodeNotFound, "no") }, CodeNotFound, ""},
		// The error of a call that the function made says what became of that
		// call: "not executed", or that its input does not fit.
		{"error of an inner call", func(context.Context, *Event) ([]byte, error) {
			return nil, &Error{Code: CodeUnroutable, Executed: ExecutedNo}
		}, CodeInternal, ExecutedYes},
		{"error of an inner publish", func(context.Context, *Event) ([]byte, error) {
			return nil, fmt.Errorf("tell others: %w", &Error{Code: CodeInvalid, Executed: ExecutedNo})
		}, CodePermanent, ExecutedYes},
		{"what an inner call answered", func(context.Context, *Event) ([]byte, error) {
			return nil, &Error{Code: CodeNotFound, Executed: ExecutedYes}
		}, CodeNotFound, ExecutedYes},
		{"try later", func(context.Context, *Event) ([]byte, error) {
			return nil, &Error{Code: CodeUnavailable, After: time.Second, Cause: plain, Executed: ExecutedYes}
		}, CodeUnavailable, ExecutedYes},
		{"postponed", func(context.Context, *Event) ([]byte, error) { return nil, Postpone(time.Second, plain) }, CodeUnavailable, ExecutedNo},
		{"sentinel", func(context.Context, *Event) ([]byte, error) { return nil, ErrConflict }, CodeConflict, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := function(c.handle).Run(t.Context(), &Event{}, time.Time{})
			if e := AsError(err); e.Code != c.code || e.Executed != c.executed {
				t.Errorf("got %v with executed %q, want %s with %q", e, e.Executed, c.code, c.executed)
			}
			if c.code == CodePanic && len(AsError(err).Stack) == 0 {
				t.Error("the panic has no stack")
			}
		})
	}
}

func TestRunBoundsTheRun(t *testing.T) {
	wait := func(ctx context.Context, _ *Event) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, c := range []struct {
		name     string
		deadline time.Duration // 0: none
		cancel   time.Duration // 0: never
		took     time.Duration
		code     Code
		executed Executed
	}{
		{"its own limit", 0, 0, time.Minute, CodeExpired, ExecutedUnknown},
		{"a later deadline", time.Hour, 0, time.Minute, CodeExpired, ExecutedUnknown},
		{"a sooner deadline", time.Second, 0, time.Second, CodeExpired, ExecutedUnknown},
		{"a deadline that has passed", -time.Second, 0, 0, CodeExpired, ExecutedNo},
		{"a caller that goes away", time.Hour, time.Second, time.Second, CodeCanceled, ExecutedUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				start := time.Now()
				var deadline time.Time
				if c.deadline != 0 {
					deadline = start.Add(c.deadline)
				}
				_, err := function(wait).Run(ctx, &Event{}, deadline)
				if e := AsError(err); e.Code != c.code || e.Executed != c.executed {
					t.Errorf("got %v with executed %q, want %s with %q", e, e.Executed, c.code, c.executed)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
			})
		})
	}
}

func TestRunHandsOnWhatTheEventCarries(t *testing.T) {
	e := &Event{ID: "id", Correlation: "c", Causation: "p", Trace: Trace{Parent: "t"}, Attempt: 3, Redelivered: true}
	want := Meta{Function: "f", ID: "id", Correlation: "c", Causation: "p", Trace: Trace{Parent: "t"}, Attempt: 3, Redelivered: true}
	_, err := function(func(ctx context.Context, _ *Event) ([]byte, error) {
		if got := MetaOf(ctx); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return nil, nil
	}).Run(t.Context(), e, time.Time{})
	if err != nil {
		t.Error(err)
	}
}
