package faas

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestMiddleware(t *testing.T) {
	var trace []string
	named := func(name string) func(Handler) Handler {
		return func(next Handler) Handler {
			return func(ctx context.Context, e *Event) ([]byte, error) {
				trace = append(trace, name+" of "+MetaOf(ctx).Function)
				body, err := next(ctx, e)
				trace = append(trace, name+" ends")
				return body, err
			}
		}
	}
	var set Set[deps]
	set.Use(named("outer"), named("middle"))
	OnRequest(&set, "one", func(context.Context, *deps, get) (get, error) {
		trace = append(trace, "function")
		return get{}, nil
	})
	OnEvent(&set, "two", onEvent)
	set.Use(named("inner")) // also around what is registered before it
	fns, err := set.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fns[0].Run(t.Context(), &Event{Key: "thing.get", Body: []byte(`{"id":"1"}`)}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	want := []string{"outer of one", "middle of one", "inner of one", "function", "inner ends", "middle ends", "outer ends"}
	if !slices.Equal(trace, want) {
		t.Errorf("got %q, want %q", trace, want)
	}
	trace = nil
	if _, err := fns[1].Run(t.Context(), &Event{Key: "thing.get", Body: []byte(`{"id":"1"}`)}, time.Time{}); err != nil || len(trace) != 6 || trace[0] != "outer of two" {
		t.Errorf("the event function: got %q, %v", trace, err)
	}
}

func TestMiddlewareDecides(t *testing.T) {
	middleware := map[string]func(Handler) Handler{
		"refuses": func(Handler) Handler {
			return func(context.Context, *Event) ([]byte, error) { return nil, Forbidden("no") }
		},
		"panics": func(Handler) Handler {
			return func(context.Context, *Event) ([]byte, error) { panic("why") }
		},
		"wraps": func(next Handler) Handler {
			return func(ctx context.Context, e *Event) ([]byte, error) {
				body, err := next(ctx, e)
				if err != nil {
					err = fmt.Errorf("about %s: %w", e.Key, err)
				}
				return body, err
			}
		},
	}
	for _, c := range []struct {
		name, body string
		code       Code
		executed   Executed
	}{
		{"refuses", `{"id":"1"}`, CodeForbidden, ""},
		{"panics", `{"id":"1"}`, contract.CodePanic, ""},
		{"wraps", `{"id":"1"}`, CodeConflict, ""},
		{"wraps", `{"id":1}`, CodeInvalid, ExecutedNo}, // what the input's own error says still counts
	} {
		var set Set[deps]
		set.Use(middleware[c.name])
		OnRequest(&set, "f", func(context.Context, *deps, get) (get, error) { return get{}, Conflict("no") })
		fns, err := set.With(&deps{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = fns[0].Run(t.Context(), &Event{Key: "thing.get", Body: []byte(c.body)}, time.Time{})
		if e := AsError(err); e == nil || e.Code != c.code || e.Executed != c.executed {
			t.Errorf("%s, %s: got %v with executed %q, want %s with %q", c.name, c.body, err, AsError(err).Executed, c.code, c.executed)
		}
	}
}

func TestRetryOfASet(t *testing.T) {
	next := func(int, error) (time.Duration, bool) { return time.Minute, true }
	set := Set[deps]{Retry: Retry{Max: 3, Next: next}}
	OnEvent(&set, "default", onEvent)
	OnEvent(&set, "own", onEvent, Retry{Max: 7})
	OnEvent(&set, "zero", onEvent, Retry{})
	OnRequest(&set, "request", onGet)
	fns, err := set.With(&deps{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"default": 3, "own": 7, "zero": 0, "request": 0}
	for i, d := range set.Descriptors() {
		if d.Retry.Max != want[d.Name] || fns[i].Retry.Max != want[d.Name] {
			t.Errorf("%s: got %d and %d attempts, want %d", d.Name, d.Retry.Max, fns[i].Retry.Max, want[d.Name])
		}
	}
	if d := fns[0].Retry.Decide(errors.New("no"), 1); d.After != time.Minute {
		t.Errorf("got a wait of %v, want that of Next", d.After)
	}
}

func TestRetryOfASetThatCannotWork(t *testing.T) {
	wrong := Set[deps]{Retry: Retry{Max: -1}}
	OnEvent(&wrong, "f", onEvent)
	if _, err := wrong.With(&deps{}); err == nil || !strings.Contains(err.Error(), "Max must be at least 1") {
		t.Errorf("got %v, want what is wrong with the policy", err)
	}
	many := Set[deps]{Retry: Retry{Max: 30}}
	OnEvent(&many, "in-order", onEvent, Ordered())
	OnEvent(&many, "any-order", onEvent)
	if err := many.Err(); err == nil || !strings.Contains(err.Error(), `set_test.go:`) || !strings.Contains(err.Error(), `"in-order"`) || strings.Contains(err.Error(), "any-order") {
		t.Errorf("got %v, want the ordered function with its place", err)
	}
}
