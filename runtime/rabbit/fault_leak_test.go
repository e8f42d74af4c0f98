package rabbit

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// footprint is what a process holds.
type footprint struct{ goroutines, channels, connections, heap int }

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d channels, %d connections, %d KiB of heap", f.goroutines, f.channels, f.connections, f.heap>>10)
}

// footprintOf measures b's process, and waits until it is at rest.
func footprintOf(t testing.TB, b *Broker, p *proxy) footprint {
	t.Helper()
	var now footprint
	for range 3 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now = footprint{goroutines: runtime.NumGoroutine(), heap: int(m.HeapAlloc)}
	}
	p.mu.Lock()
	now.connections = len(p.pairs)
	p.mu.Unlock()
	for _, l := range []*connection.Connection{b.publish, b.consume, b.calls, b.work} {
		// The client gives a new channel the lowest number that is free.
		ch, err := l.Await(t.Context()).AMQP.Channel()
		if err != nil {
			t.Fatal(err)
		}
		now.channels += int(reflect.ValueOf(ch).Elem().FieldByName("id").Uint())
		channel.Close(ch)
	}
	return now
}

// After a thousand lost connections a process holds what it held after ten.
func TestReconnectsLeaveNothingBehind(t *testing.T) {
	p, cfg := networkConfig(t)
	cfg.pace = connection.Pace{First: time.Millisecond, Longest: time.Millisecond}
	a := newAccount("1,000 reconnects")
	b := startCaller(t, cfg)
	startWorker(t, cfg, []*Broker{b}, counted(a, "leak.age", 4), function("echo", echo))
	links := []*connection.Connection{b.publish, b.consume, b.calls, b.work}

	reconnects, round := 0, 0
	lose := func(n int) {
		for ; n > 0; n -= 2 * len(links) { // the worker's process loses its four as well
			lost := make([]*connection.Transport, len(links))
			for i, l := range links {
				lost[i] = l.Await(t.Context())
			}
			reconnects += p.reset()
			for _, s := range lost {
				receive(t, "the loss of a connection", s.Closed)
			}
			round++
			publishUntilAccepted(t.Context(), t, b, a, contract.Event{Key: "leak.age", ID: fmt.Sprint(round)})
			until(t, "a call", func(ctx context.Context) bool {
				_, err := b.Call(ctx, contract.Call{Key: "echo"})
				return err == nil
			})
			a.awaitSettled(t)
		}
	}
	lose(80)
	before := footprintOf(t, b, p)
	lose(1_000)
	after := footprintOf(t, b, p)
	t.Logf("%d reconnects: before %v, after %v", reconnects, before, after)
	if after.goroutines > before.goroutines+8 || after.channels > before.channels || after.connections > before.connections {
		t.Errorf("got %v after the reconnects, want %v", after, before)
	}
	if grown := after.heap - before.heap; grown > 1<<20 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
}

// Workers come and go 200 times, eight at once, while events flow.
func TestWorkersComeAndGo(t *testing.T) {
	const workers, times = 8, 25
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	a := newAccount("200 workers")
	publisher := startCaller(t, cfg)
	fn := counted(a, "come.go", 4)
	first, stop := startWorker(t, cfg, []*Broker{publisher}, fn)
	stop()
	_ = first.Close()
	stay := goleak.IgnoreCurrent()
	const events = workers * times * 10
	l := startLoad(t, publisher, a, "come.go", events)
	var g sync.WaitGroup
	for range workers {
		g.Go(func() {
			for range times {
				b, err := Open(cfg)
				if err != nil {
					t.Error(err)
					return
				}
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- b.Serve(ctx, []contract.Function{fn}) }()
				time.Sleep(someTime() / 4)
				cancel()
				if err := <-served; err != nil {
					t.Errorf("Serve: %v", err)
				}
				if err := b.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
	g.Wait()
	l.wait()
	last, stop := startWorker(t, cfg, nil, fn) // for what the others have left
	defer func() {
		if t.Failed() {
			for _, queue := range []string{publisher.names.EventQueue(fn.Name), publisher.names.DeadQueue(fn.Name)} {
				q, err := publisher.consume.InspectQueue(within(t, time.Minute), queue)
				t.Logf("ready and consumers of %q: %+v %v", queue, q, err)
			}
		}
	}()
	a.awaitSettled(t)
	stop()
	_ = last.Close()
	a.balance(t, 0, 0)
	if err := goleak.Find(stay); err != nil {
		t.Errorf("after %d workers: %v", workers*times, err)
	}
}
