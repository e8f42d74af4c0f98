package remote

import (
	"context"
	"os"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/host"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/wire"
)

// Serve does the same as memory.Broker.Serve: it hosts fns in this process until
// ctx is done. When the connection is lost, the broker gives the unsettled
// deliveries to other workers; Serve cancels the runs and returns an error with
// ErrUnavailable.
func (b *Broker) Serve(ctx context.Context, fns []contract.Function) error {
	h, err := host.New(ctx, fns, host.Config{Grace: b.cfg.Grace, Observe: b.cfg.Observe})
	if err != nil {
		return err
	}
	defer h.Close()
	id := b.newID()
	b.mu.Lock()
	b.serves[id] = &worker{broker: b, host: h, cancels: map[uint64]func(){}}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.serves, id)
	}()

	uncanceled := context.WithoutCancel(ctx) // an answer arrives, or the connection is lost
	a := &contract.Announcement{Worker: b.cfg.Process, PID: os.Getpid(), Started: time.Now(), Functions: h.Descriptors()}
	if _, err := b.request(uncanceled, &wire.Frame{Kind: wire.StartWorker, ID: id, Announcement: a}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		if _, err := b.request(uncanceled, &wire.Frame{Kind: wire.StopDeliveries, ID: id}); err == nil {
			err = h.Drain()
			b.conn.Send(&wire.Frame{Kind: wire.EndWorker, ID: id})
			return err
		}
	case <-b.lost:
	}
	h.Close()
	_ = h.Drain() // the lost connection is the more important error
	return b.Health()
}

// A worker is one running Serve.
type worker struct {
	broker  *Broker
	host    *host.Host
	cancels map[uint64]func() // of the runs, by Frame.Run; protected by broker.mu
}

// start starts the run that was delivered. The caller holds broker.mu.
func (w *worker) start(f *wire.Frame) {
	w.cancels[f.Run] = w.host.Start(&host.Run{
		Function: f.Function, Event: *f.Event, Deadline: f.Deadline,
		Settle: func(r host.Result) contract.Decision { return w.settle(f.Run, r) },
	})
}

// settle sends the result of a run and waits until the broker has settled it.
func (w *worker) settle(run uint64, r host.Result) contract.Decision {
	b := w.broker
	settled := make(chan *wire.Frame, 1)
	b.mu.Lock()
	delete(w.cancels, run)
	b.settled[run] = settled
	b.mu.Unlock()
	var failure *wire.Failure
	if r.Decision.Err != nil {
		failure = wire.NewFailure(r.Decision.Err)
	}
	b.conn.Send(&wire.Frame{Kind: wire.Settle, Run: run, Result: &wire.Result{
		Body: r.Reply.Body, Session: r.Reply.Session, Failure: wire.NewFailure(r.Err), Run: r.Run, Returned: r.Interrupted,
		Decision: wire.Decision{
			Outcome: r.Decision.Outcome, After: r.Decision.After, Attempt: r.Decision.Attempt, Failure: failure,
		},
	}})
	select {
	case f := <-settled:
		if f.Verdict != nil {
			return contract.Decision{Outcome: f.Verdict.Outcome, After: f.Verdict.After}
		}
	case <-b.lost:
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.settled, run)
	}
	return contract.Decision{Outcome: contract.OutcomeRetry}
}
