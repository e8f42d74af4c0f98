package rabbit

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
)

// Workers are killed, paused and cut off while clients write and read.
func TestHistoryOfCalls(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	brokertest.RunHistory(t, brokertest.History{
		Broker: func(t *testing.T) brokertest.Broker { return startCaller(t, cfg) },
		Workers: func(ctx context.Context, socket string) {
			var workers sync.WaitGroup
			for i := range 3 {
				workers.Go(func() {
					p, url := startProxy(t, cfg.URL)
					k := task{URL: url, Namespace: cfg.Namespace, Registers: socket}
					time.Sleep(time.Duration(i) * 500 * time.Millisecond)
					disturbWorker(ctx, t, p, k)
				})
			}
			workers.Wait()
		},
	})
}

// disturbWorker runs a worker until ctx is done, and again after each death.
func disturbWorker(ctx context.Context, t *testing.T, p *proxy, k task) {
	w := startProcess(t, k, func(string, string) {})
	defer func() { w.kill() }()
	pause := func(d time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	for pause(time.Second + time.Duration(rand.IntN(4000))*time.Millisecond) {
		switch rand.IntN(5) {
		case 0:
			_ = w.cmd.Process.Signal(syscall.SIGSTOP)
			pause(2 * time.Second)
			_ = w.cmd.Process.Signal(syscall.SIGCONT)
		case 1, 2:
			p.reset()
		default:
			w.kill()
			w = startProcess(t, k, func(string, string) {})
		}
	}
}
