package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

var (
	errElsewhere = errors.New("another run has the same key")
	errTaken     = errors.New("its key was leased to another run: the store has lost the lease, or it expired")
)

// run is one run of a wrapped function.
type run struct {
	inbox           *Inbox
	function, event string // for the log
	key, token      string
}

// do runs handle while it renews the lease, and completes or releases the key.
func (r *run) do(ctx context.Context, handle contract.Handler, e *contract.Event) (body []byte, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := r.renew(ctx, cancel)
	done := false
	defer func() { // deferred because the function may panic
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

// claim claims the key, and repeats that for the timeout if the store fails.
func (r *run) claim(ctx context.Context) (store.Claim, error) {
	ctx, cancel := context.WithTimeout(ctx, r.inbox.cfg.Timeout)
	defer cancel()
	var claim store.Claim
	err := r.repeat(ctx, func(ctx context.Context) (err error) {
		claim, err = r.inbox.store.Claim(ctx, r.key, r.token, r.inbox.cfg.Lease)
		return err
	})
	return claim, err
}

// renew renews the lease until stop is called. It cancels a run whose key is leased to
// another run, so that no two run at once.
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
			if err == nil && claim.State != store.Mine {
				r.inbox.cfg.Log.Warn("canceled a run: "+errTaken.Error(), zap.String("function", r.function), zap.String("id", r.event))
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

// complete stores that the function has succeeded. If that fails for the length of a
// lease, the event is acknowledged nevertheless: it has had its effect, and only
// another copy of it would run again.
func (r *run) complete(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.inbox.cfg.Lease)
	defer cancel()
	err := r.repeat(ctx, func(ctx context.Context) error {
		return r.inbox.store.Complete(ctx, r.key, r.inbox.cfg.Keep)
	})
	if err != nil {
		r.inbox.cfg.Log.Warn("an event succeeded, but the store of the inbox did not accept that: another copy of the event would run again",
			zap.String("function", r.function), zap.String("id", r.event), zap.Error(err))
	}
}

// release frees the key for the next attempt. If that fails, the lease expires.
func (r *run) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.inbox.cfg.Timeout)
	defer cancel()
	r.inbox.report(r.inbox.store.Release(ctx, r.key, r.token))
}

// repeat calls operation until it succeeds or ctx is done.
func (r *run) repeat(ctx context.Context, operation func(context.Context) error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := operation(ctx)
		if err == nil || ctx.Err() == nil { // the end of ctx says nothing about the store
			r.inbox.report(err)
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
