package memory

import (
	"context"
	"os"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// remoteWorker is one Serve of a Remote. The Remote's mutex guards cancels.
type remoteWorker struct {
	host    *host
	cancels map[uint64]func() // of the runs under way
}

// Serve is Broker.Serve. When the connection is lost it cancels what runs,
// which the broker has given to others by then, and returns an error.
func (r *Remote) Serve(ctx context.Context, fns []contract.Function) error {
	h, err := newHost(ctx, r.cfg, fns)
	if err != nil {
		return err
	}
	defer h.stop()
	id := r.host(&remoteWorker{host: h, cancels: map[uint64]func(){}})
	defer r.unhost(id)

	asking := context.WithoutCancel(ctx) // the answers come, or the connection is lost
	a := &contract.Announcement{Worker: r.cfg.Process, PID: os.Getpid(), Started: time.Now(), Functions: h.descriptors()}
	if err := r.ask(asking, &frame{Kind: serve, ID: id, Announcement: a}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		if err := r.ask(asking, &frame{Kind: leave, ID: id}); err == nil {
			err = h.drain()
			r.send(&frame{Kind: quit, ID: id})
			return err
		}
	case <-r.lost:
	}
	h.stop()
	_ = h.drain() // what matters more is why
	return r.Health()
}

func (r *Remote) host(w *remoteWorker) (id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.serves[r.last] = w
	return r.last
}

func (r *Remote) unhost(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.serves, id)
}

// begin starts what the broker delivered. r.mu is held.
func (w *remoteWorker) begin(r *Remote, f *frame) {
	w.cancels[f.Run] = w.host.begin(&run{
		function: f.Function, event: *f.Event, deadline: f.Deadline,
		settle: func(res result) contract.Decision { return w.settle(r, f.Run, res) },
	})
}

// settle sends what came of a run and waits until it has taken effect.
func (w *remoteWorker) settle(r *Remote, number uint64, res result) contract.Decision {
	done := make(chan *frame, 1)
	r.mu.Lock()
	delete(w.cancels, number)
	r.runs[number] = done
	r.mu.Unlock()
	r.send(&frame{Kind: outcome, Run: number, Result: &wireResult{
		Body: res.reply.Body, Session: res.reply.Session, Failure: failureOf(res.err), Run: res.run, Returned: res.returned,
	}})
	select {
	case f := <-done:
		if f.Verdict != nil {
			return contract.Decision{Outcome: f.Verdict.Outcome, After: f.Verdict.After}
		}
	case <-r.lost:
		r.mu.Lock()
		delete(r.runs, number)
		r.mu.Unlock()
	}
	return contract.Decision{Outcome: contract.OutcomeRetry}
}
