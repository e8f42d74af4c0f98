package memory

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/host"
)

// Serve hosts functions until ctx is done or the Broker is closed. Then it accepts
// no further deliveries (waiting messages are left to other workers), waits for
// the runs until the grace period has passed, cancels those that are left and
// returns their messages to the queues. Serve returns nil if no run was cancelled
// and the Broker is open.
//
// Several Serve calls may host functions of the same name: they share the work.
func (b *Broker) Serve(ctx context.Context, fns []contract.Function) error {
	h, err := host.New(ctx, fns, host.Config{Grace: b.cfg.Grace, Observe: b.cfg.Observe})
	if err != nil {
		return err
	}
	defer h.Close()
	w, err := b.attach(contract.Announcement{
		Worker: b.cfg.Process, PID: os.Getpid(), Started: time.Now(), Functions: h.Descriptors(),
	}, h.Start)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-b.closing:
	}
	w.StopDeliveries()
	err = h.Drain()
	w.Detach()
	return cmp.Or(err, b.Health())
}

// Forget removes those of the functions that no worker hosts: from the directory,
// and with the messages that wait for them. Their dead letters stay. It is for
// functions that will not be hosted again.
func (b *Broker) Forget(functions ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range functions {
		for _, queues := range []map[string]*queue{b.requests, b.events} {
			q := queues[name]
			if q == nil || len(q.consumers) > 0 {
				continue
			}
			if n := q.waiting(); n > 0 {
				b.cfg.Log.Warn("dropped the events that waited for a removed function", zap.String("function", name), zap.Int("events", n))
			}
			q.clear()
			delete(queues, name)
		}
	}
	b.directory.Forget(functions...)
}

// A worker is one Serve, in this process or in one that shares the Broker. The
// mutex of the Broker protects it.
type worker struct {
	broker       *Broker
	announcement contract.Announcement
	consumers    map[*queue]*consumer
	deliveries   map[*delivery]struct{} // unsettled
	stopped      bool                   // it accepts no further deliveries

	// startRun starts a run without blocking, and returns what cancels it.
	startRun func(*host.Run) (cancel func())
}

// A consumer is one function of one worker.
type consumer struct {
	worker   *worker
	function contract.Descriptor
	running  int
}

// attach adds a worker with the functions of a, announces it, and delivers the
// messages that wait for it. It makes a.Worker unique. start must not block.
func (b *Broker) attach(a contract.Announcement, start func(*host.Run) (cancel func())) (*worker, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed()
	}
	id := a.Worker
	for n := 2; b.workers[id] != nil; n++ { // several Serve calls in one process
		id = fmt.Sprintf("%s-%d", a.Worker, n)
	}
	hostname, _ := os.Hostname()
	w := &worker{
		broker: b, startRun: start,
		announcement: contract.Announcement{Worker: id, Host: hostname, PID: a.PID, Started: a.Started, Functions: a.Functions},
		consumers:    map[*queue]*consumer{},
		deliveries:   map[*delivery]struct{}{},
	}
	b.workers[id] = w
	for _, f := range a.Functions {
		queues := b.events
		if f.Kind == contract.KindRequest {
			queues = b.requests
		}
		q := queues[f.Name]
		if q == nil {
			q = &queue{broker: b, delayed: map[*message]*time.Timer{}}
			queues[f.Name] = q
		}
		q.function = f
		c := &consumer{worker: w, function: f}
		w.consumers[q] = c
		q.consumers = append(q.consumers, c)
	}
	b.announce(w.announcement)
	for q := range w.consumers {
		q.dispatch()
	}
	return w, nil
}

// StopDeliveries removes the consumers of w from their queues. Calls that wait for
// a function without other workers fail; events wait for the next worker.
func (w *worker) StopDeliveries() {
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	w.stopDeliveries()
}

func (w *worker) stopDeliveries() {
	if w.stopped {
		return
	}
	w.stopped = true
	delete(w.broker.workers, w.announcement.Worker)
	for q, c := range w.consumers {
		q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == c })
		switch {
		case len(q.consumers) > 0:
			q.function = q.consumers[len(q.consumers)-1].function
			q.dispatch()
		case q.function.Kind == contract.KindRequest:
			q.failAll(func() *contract.Error { return unroutable(contract.Call{Key: q.function.Keys[0]}) })
		}
	}
	leaving := w.announcement
	leaving.Leaving, leaving.Functions = true, nil
	w.broker.announce(leaving)
}

// Detach takes its unsettled deliveries from w, because its process died or its
// grace period has passed.
func (w *worker) Detach() {
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	w.stopDeliveries()
	var lost []*delivery
	for d := range w.deliveries {
		lost = append(lost, d)
	}
	// The newest first: each returns to the front of its queue.
	slices.SortFunc(lost, func(x, y *delivery) int { return cmp.Compare(y.message.number, x.message.number) })
	for _, d := range lost {
		d.release()
		d.message.losses++
		d.requeue("the worker died while the function ran")
	}
	for _, d := range lost {
		d.message.queue.dispatch()
	}
}
