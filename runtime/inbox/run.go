package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

var (
	errElsewhere = errors.New("another run has the same key")
	errTaken     = errors.New("its key was taken over by another run: the inbox has lost it, or this worker was taken for dead")
)

// run is one run of a guarded function.
type run struct {
	inbox           *Inbox
	function, event string // for the log
	key, token      string
}

// do runs handle while it holds the key, and settles the key after it.
func (r *run) do(ctx context.Context, handle contract.Handler, e *contract.Event) (body []byte, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := r.renew(ctx, cancel)
	done := false
	defer func() { // deferred, for the function may panic
		stop()
		if done {
			r.complete(ctx)
		} else {
			r.release(ctx)
		}
	}()
	body, err = handle(ctx, e)
	done = err == nil
	if err != nil && errors.Is(context.Cause(ctx), errTaken) {
		err = fmt.Errorf("%w: %w", errTaken, err)
	}
	return body, err
}

// claim asks for the key, for as long as the patience lasts if nobody answers.
func (r *run) claim(ctx context.Context) (Claim, error) {
	ctx, cancel := context.WithTimeout(ctx, r.inbox.cfg.Patience)
	defer cancel()
	var claim Claim
	err := r.insist(ctx, func(ctx context.Context) (err error) {
		claim, err = r.inbox.store.Claim(ctx, r.key, r.token, r.inbox.cfg.Lease)
		return err
	})
	return claim, err
}

// renew renews the lease until stop is called. A run whose key another one has
// meanwhile is cancelled: two at once is what it must not be.
func (r *run) renew(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	ctx, end := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { // ends when stop is called
		tick := time.NewTicker(r.inbox.cfg.Lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			claim, err := r.claim(ctx)
			if ctx.Err() != nil {
				return
			}
			if err == nil && claim.State != Mine {
				r.inbox.cfg.Log.Warn("a run is cancelled: "+errTaken.Error(), zap.String("function", r.function), zap.String("id", r.event))
				cancel(errTaken)
				return
			}
		}
	})
	return func() {
		end()
		renewing.Wait()
	}
}

// complete writes down that the function has succeeded. When that fails, for
// as long as a lease lasts, the event is acknowledged all the same: its effect
// has happened, and only another copy of it would run again.
func (r *run) complete(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.inbox.cfg.Lease)
	defer cancel()
	err := r.insist(ctx, func(ctx context.Context) error {
		return r.inbox.store.Complete(ctx, r.key, r.inbox.cfg.Keep)
	})
	if err != nil {
		r.inbox.cfg.Log.Warn("it is done, but the inbox did not take that: another copy of the event would run again",
			zap.String("function", r.function), zap.String("id", r.event), zap.Error(err))
	}
}

// release frees the key for the next attempt. When that fails the lease expires.
func (r *run) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.inbox.cfg.Patience)
	defer cancel()
	r.inbox.tell(r.inbox.store.Release(ctx, r.key, r.token))
}

// insist asks until it is answered, or ctx is done.
func (r *run) insist(ctx context.Context, ask func(context.Context) error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := ask(ctx)
		if err == nil || ctx.Err() == nil { // a ctx that is done says nothing about the store
			r.inbox.tell(err)
		}
		if err == nil {
			return nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return err
		}
	}
}
