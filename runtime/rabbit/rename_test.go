package rabbit

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// While a request function is being renamed, workers of both names answer its
// key: each call still runs once, with the youngest of them, and with the
// others when that has gone.
func TestRenamedRequestFunction(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		removeAfter(t, cfg.Namespace)
		caller := startCaller(t, cfg)
		var runs atomic.Int64
		named := func(name string) faas.Function {
			return function(name, func(context.Context, *faas.Event) ([]byte, error) {
				runs.Add(1)
				return []byte(name), nil
			}, func(d *faas.Descriptor) { d.Keys = []string{"the.key"} })
		}
		answered := func(by string) {
			t.Helper()
			const calls = 50
			until(t, "a call is answered by "+by, func(ctx context.Context) bool { // the other one may have to notice
				reply, err := caller.Call(ctx, faas.Request{Key: "the.key", Deadline: time.Now().Add(pollInterval)})
				return err == nil && string(reply.Body) == by
			})
			before := runs.Load()
			for range calls {
				reply, err := caller.Call(t.Context(), faas.Request{Key: "the.key"})
				if err != nil || string(reply.Body) != by {
					t.Errorf("got %s and %v, want an answer of %s", reply.Body, err, by)
				}
			}
			if n := runs.Load() - before; n != calls {
				t.Errorf("%d calls ran %d times", calls, n)
			}
		}
		_, stopOld := startWorker(t, cfg, []*Broker{caller}, named("old"))
		answered("old")
		_, stopNew := startWorker(t, cfg, []*Broker{caller}, named("new"))
		answered("new")
		stopNew()
		answered("old") // a step back
		startWorker(t, cfg, []*Broker{caller}, named("newer"))
		stopOld()
		answered("newer")

		// Nothing says of a call that it never ran since nobody took a copy of it.
		slow := make(chan struct{})
		defer close(slow)
		f := named("slow")
		f.Handle = func(context.Context, *faas.Event) ([]byte, error) { <-slow; return nil, nil }
		startWorker(t, cfg, []*Broker{caller}, f)
		_, err := caller.Call(t.Context(), faas.Request{Key: "the.key", Deadline: time.Now().Add(300 * time.Millisecond)})
		wantError(t, err, faas.CodeExpired, faas.ExecutedUnknown)
	})
}
