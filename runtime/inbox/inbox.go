// Package inbox makes event functions with faas.Once succeed once per key, even if an
// event is delivered more than once and to different workers. It wraps functions, and
// knows neither what they do nor which broker delivers to them.
//
// A key is leased to one run, which renews the lease, and is done once that run has
// succeeded. A run that fails releases the key. The lease of a worker that dies
// expires. In both cases a later delivery runs.
package inbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// Config configures an Inbox. Zero values mean the default in the comment.
type Config struct {
	Namespace string        // prefix of all keys, so that several systems can share a store; "rabbet"
	Keep      time.Duration // how long a key stays done; 7 days
	Lease     time.Duration // how long a key stays leased after its worker died; 15 s
	Timeout   time.Duration // how long a run waits for a store that does not answer before its event is delayed; 2 s
	Delay     time.Duration // how long the event is then delayed, on average; 5 s
	Log       *zap.Logger   // no logs
}

// Inbox wraps functions. It is safe for concurrent use.
type Inbox struct {
	store store.Store
	cfg   Config
	down  atomic.Bool // the last operation of the store failed
}

// New returns an Inbox with its keys in s. It does not close s.
func New(s store.Store, cfg Config) *Inbox {
	cfg.Namespace = cmp.Or(cfg.Namespace, "rabbet")
	cfg.Keep = cmp.Or(cfg.Keep, 7*24*time.Hour)
	cfg.Lease = cmp.Or(cfg.Lease, 15*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.Delay = cmp.Or(cfg.Delay, 5*time.Second)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Inbox{store: s, cfg: cfg}
}

// Wrap returns fns, of which those with faas.Once are wrapped.
func (i *Inbox) Wrap(fns []contract.Function) []contract.Function {
	wrapped := make([]contract.Function, len(fns))
	for n, f := range fns {
		if f.Once != nil {
			f.Handle = i.wrap(f)
		}
		wrapped[n] = f
	}
	return wrapped
}

// wrap returns a handler that runs f unless the key of the event is done or leased.
func (i *Inbox) wrap(f contract.Function) contract.Handler {
	return func(ctx context.Context, e *contract.Event) ([]byte, error) {
		key, err := f.Once.KeyOf(e)
		if err != nil {
			return nil, err
		}
		r := &run{inbox: i, function: f.Name, event: e.ID, key: i.keyOf(f.Name, key), token: contract.NewID()}
		claim, err := r.claim(ctx)
		switch {
		case err != nil:
			return nil, contract.Postpone(i.delay(), fmt.Errorf("claim a key of the inbox: %w", err))
		case claim.State == store.Done:
			i.cfg.Log.Info("skipped an event: its key is done", zap.String("function", f.Name), zap.String("id", e.ID))
			return nil, nil
		case claim.State == store.Elsewhere:
			return nil, contract.Postpone(retryAfter(claim.Left), errElsewhere)
		}
		return r.do(ctx, f.Handle, e)
	}
}

// keyOf returns the key in the store for a key of a function.
func (i *Inbox) keyOf(function, key string) string {
	sum := sha256.Sum256([]byte(key))
	return i.cfg.Namespace + ":once:" + function + ":" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// retryAfter returns how long an event waits whose key is leased to another run for
// the duration left. That run may end earlier, or die, so that its lease expires.
func retryAfter(left time.Duration) time.Duration {
	return max(left/4, min(left, 500*time.Millisecond), 10*time.Millisecond)
}

// delay returns a random delay around the configured one, so that not all events
// are delivered again at once.
func (i *Inbox) delay() time.Duration { return i.cfg.Delay/2 + rand.N(i.cfg.Delay) }

// report notes the result of an operation of the store, and logs when an outage begins
// or ends.
func (i *Inbox) report(err error) {
	if was := i.down.Swap(err != nil); was == (err != nil) {
		return
	}
	if err != nil {
		i.cfg.Log.Warn("the store of the inbox cannot be reached: events of functions with faas.Once wait", zap.Error(err))
		return
	}
	i.cfg.Log.Info("the store of the inbox can be reached again")
}
