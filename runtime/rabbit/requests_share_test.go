package rabbit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// TestTwoWorkersShareTheLoadEvenly: however many calls travel together, each of
// two workers runs between 40 and 60 % of them.
func TestTwoWorkersShareTheLoadEvenly(t *testing.T) {
	for _, pause := range []time.Duration{0, 2 * time.Millisecond} {
		for _, callers := range []int{16, 256} {
			t.Run(fmt.Sprintf("pause=%v,callers=%d", pause, callers), func(t *testing.T) {
				cfg := requestConfig(t, false)
				caller := startCaller(t, cfg)
				var ran [2]atomic.Int64
				for i := range ran {
					startWorker(t, cfg, []*Broker{caller}, function("shared", func(ctx context.Context, e *contract.Event) ([]byte, error) {
						ran[i].Add(1)
						time.Sleep(pause)
						return e.Body, nil
					}, readOnly))
				}
				const each = 4000
				var left atomic.Int64
				left.Store(each)
				var g sync.WaitGroup
				for range callers {
					g.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := caller.Call(t.Context(), contract.Call{Key: "shared", Body: []byte("{}")}); err != nil {
								t.Errorf("call: %v", err)
							}
						}
					})
				}
				g.Wait()
				one, two := ran[0].Load(), ran[1].Load()
				if share := float64(one) / float64(one+two); share < 0.4 || share > 0.6 || one+two != each {
					t.Errorf("one worker ran %d calls and the other %d, want 40 to 60 %% of %d each", one, two, each)
				}
			})
		}
	}
}

// TestNoCallWaitsBehindABusyWorkerWhileAnotherIsIdle: one of two workers, which
// run one call at a time, is busy for good; all other calls go to the other.
func TestNoCallWaitsBehindABusyWorkerWhileAnotherIsIdle(t *testing.T) {
	cfg := requestConfig(t, false)
	caller := startCaller(t, cfg)
	release := make(chan struct{})
	busy := make(chan struct{}, 1)
	for range 2 {
		startWorker(t, cfg, []*Broker{caller}, function("single", func(ctx context.Context, e *contract.Event) ([]byte, error) {
			if string(e.Body) == `"busy"` {
				busy <- struct{}{}
				<-release
			}
			return e.Body, nil
		}, readOnly, func(d *contract.Descriptor) { d.Concurrency = 1 }))
	}
	call := func(body string) error {
		_, err := caller.Call(t.Context(), contract.Call{Key: "single", Body: []byte(body), Deadline: time.Now().Add(20 * time.Second)})
		return err
	}
	var g sync.WaitGroup
	g.Go(func() {
		if err := call(`"busy"`); err != nil {
			t.Errorf("the long call: %v", err)
		}
	})
	<-busy
	var others sync.WaitGroup
	for range 8 {
		others.Go(func() {
			for range 10 {
				if err := call(`"quick"`); err != nil {
					t.Errorf("a call while one worker is busy: %v", err)
					return
				}
			}
		})
	}
	others.Wait() // all are answered while the other worker is busy
	close(release)
	g.Wait()
}
