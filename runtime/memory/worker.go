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
)

// worker is one Serve, here or in a process that shares the broker. The
// broker's mutex guards it.
type worker struct {
	broker       *Broker
	announcement contract.Announcement
	consumers    map[*queue]*consumer
	runs         map[*delivery]struct{}
	left         bool
	begin        func(*delivery) // starts a run without waiting and sets its cancel
}

// delivery is one message in the hands of one worker.
type delivery struct {
	consumer *consumer
	message  *message
	event    contract.Event
	begun    time.Time
	cancel   func() // cancels the run's ctx
}

// Serve hosts functions until ctx is done or the broker is closed. Then it
// takes nothing new (what waits is left to other workers), lets what runs
// finish within the grace period, cancels the rest and gives it back. It
// returns nil if nothing had to be cut short.
//
// Several Serve calls share the work on functions of the same name.
func (b *Broker) Serve(ctx context.Context, fns []contract.Function) error {
	h, err := newHost(ctx, b.cfg, fns)
	if err != nil {
		return err
	}
	defer h.stop()
	w, err := b.join(b.cfg.Process, os.Getpid(), time.Now(), h.descriptors(), func(d *delivery) {
		d.cancel = h.begin(&run{
			function: d.consumer.function.Name, event: d.event, deadline: d.deadline(),
			settle: func(r result) contract.Decision { return b.settle(d, r) },
		})
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-b.closed:
	}
	b.leave(w)
	err = h.drain()
	b.lose(w)
	return cmp.Or(err, b.Health())
}

// join attaches a worker to the queues of its functions, makes it known, and
// gives it its share of what waits already.
func (b *Broker) join(process string, pid int, started time.Time, fns []contract.Descriptor, begin func(*delivery)) (*worker, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, errClosed()
	}
	host, _ := os.Hostname()
	id := process
	for n := 2; b.workers[id] != nil; n++ { // several Serve calls in one process
		id = fmt.Sprintf("%s-%d", process, n)
	}
	w := &worker{
		broker: b, begin: begin,
		announcement: contract.Announcement{Worker: id, Host: host, PID: pid, Started: started, Functions: fns},
		consumers:    map[*queue]*consumer{},
		runs:         map[*delivery]struct{}{},
	}
	b.workers[id] = w
	for _, f := range fns {
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
	b.hear(w.announcement)
	for q := range w.consumers {
		q.dispatch()
	}
	return w, nil
}

// leave ends w's intake. Calls that wait for a function that nobody hosts any
// more fail at once; events stay for the next worker.
func (b *Broker) leave(w *worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaveLocked(w)
}

func (b *Broker) leaveLocked(w *worker) {
	if w.left {
		return
	}
	w.left = true
	delete(b.workers, w.announcement.Worker)
	for q, c := range w.consumers {
		q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == c })
		switch {
		case len(q.consumers) > 0:
			q.function = q.consumers[len(q.consumers)-1].function
			q.dispatch()
		case q.function.Kind == contract.KindRequest:
			q.fail(func() *contract.Error { return unroutable(contract.Call{Key: q.function.Keys[0]}) })
		}
	}
	leaving := w.announcement
	leaving.Leaving, leaving.Functions = true, nil
	b.hear(leaving)
}

// Forget lets go of those of the functions that nobody hosts, because they are
// not going to come back: of what waits for them, and of the directory's
// knowledge. Their dead letters stay.
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
				b.cfg.Log.Warn("the function is gone, and with it the events that waited for it", zap.String("function", name), zap.Int("events", n))
			}
			q.drop()
			delete(queues, name)
		}
	}
	b.directory.Forget(functions...)
}

// start hands m to w.
func (w *worker) start(q *queue, c *consumer, m *message) {
	m.started = true
	q.running++
	c.running++
	d := &delivery{consumer: c, message: m, event: m.event, begun: time.Now()}
	w.runs[d] = struct{}{}
	if m.call != nil {
		m.call.run = d
	}
	w.begin(d)
}

// deadline is the caller's; zero for an event.
func (d *delivery) deadline() time.Time {
	if d.message.call == nil {
		return time.Time{}
	}
	return d.message.call.deadline
}
