// Package inbox lets the event functions that say faas.Once succeed once per
// key, however often an event is delivered and to whichever worker. It wraps
// functions; it knows neither what they do nor which broker delivers to them.
//
// A key is running, on behalf of one run and for as long as its lease is
// renewed, and done once that run has succeeded. What fails gives the key back,
// and what dies leaves a lease that expires: neither keeps a later delivery
// from running.
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
)

// Config says how an Inbox uses its store. The zero value is useful.
type Config struct {
	Namespace string        // systems with different ones share a store and nothing in it; "rabbet"
	Keep      time.Duration // how long a key is known to be done; 7 days
	Lease     time.Duration // how long after the last sign of life of its worker a key is free again; 15 s
	Patience  time.Duration // how long a run waits for a store out of reach before its event is put off; 2 s
	Pause     time.Duration // for how long it is put off then, more or less; 5 s
	Log       *zap.Logger   // nil: silence
}

// Store keeps the states of keys, which are printable ASCII of at most 200
// bytes. All that it is asked may be asked again, with the same effect.
type Store interface {
	// Claim makes key running on behalf of token for lease, if it is free or
	// token's already, and returns the state that the key is in then.
	Claim(ctx context.Context, key, token string, lease time.Duration) (Claim, error)
	// Complete makes key done for keep, whatever it was.
	Complete(ctx context.Context, key string, keep time.Duration) error
	// Release frees key if it is running on behalf of token.
	Release(ctx context.Context, key, token string) error
}

// Claim is what became of a claim.
type Claim struct {
	State State         `json:"state"`
	Left  time.Duration `json:"left,omitempty"` // of the lease, when Elsewhere
}

// State is what a key is in.
type State string

// The states that a claim finds.
const (
	Mine      State = "mine"      // it is the claimant's
	Elsewhere State = "elsewhere" // another run has it
	Done      State = "done"      // a run has succeeded
)

// Inbox guards functions. It is safe for concurrent use.
type Inbox struct {
	store Store
	cfg   Config
	down  atomic.Bool // the store was out of reach when it was last asked
}

// New returns an Inbox that keeps its keys in store.
func New(store Store, cfg Config) *Inbox {
	cfg.Namespace = cmp.Or(cfg.Namespace, "rabbet")
	cfg.Keep = cmp.Or(cfg.Keep, 7*24*time.Hour)
	cfg.Lease = cmp.Or(cfg.Lease, 15*time.Second)
	cfg.Patience = cmp.Or(cfg.Patience, 2*time.Second)
	cfg.Pause = cmp.Or(cfg.Pause, 5*time.Second)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Inbox{store: store, cfg: cfg}
}

// Guard returns fns with those that say faas.Once guarded, the others as they are.
func (i *Inbox) Guard(fns []contract.Function) []contract.Function {
	guarded := make([]contract.Function, len(fns))
	for n, f := range fns {
		if f.Once != nil {
			f.Handle = i.guard(f)
		}
		guarded[n] = f
	}
	return guarded
}

// guard runs f unless its event's key is done or running.
func (i *Inbox) guard(f contract.Function) contract.Handler {
	return func(ctx context.Context, e *contract.Event) ([]byte, error) {
		key, err := f.Once.KeyOf(e)
		if err != nil {
			return nil, err
		}
		r := &run{inbox: i, function: f.Name, event: e.ID, key: i.keyOf(f.Name, key), token: contract.NewID()}
		claim, err := r.claim(ctx)
		switch {
		case err != nil:
			return nil, contract.Postpone(i.pause(), fmt.Errorf("ask the inbox: %w", err))
		case claim.State == Done:
			i.cfg.Log.Info("it was done before, and is not run again", zap.String("function", f.Name), zap.String("id", e.ID))
			return nil, nil
		case claim.State == Elsewhere:
			return nil, contract.Postpone(again(claim.Left), errElsewhere)
		}
		return r.do(ctx, f.Handle, e)
	}
}

// keyOf is where the state of a function's key is kept.
func (i *Inbox) keyOf(function, key string) string {
	sum := sha256.Sum256([]byte(key))
	return i.cfg.Namespace + ":once:" + function + ":" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// again is for how long an event waits whose key another run has, under a lease
// with so much left. The run may end long before, or die and leave it to expire.
func again(left time.Duration) time.Duration {
	return max(left/4, min(left, 500*time.Millisecond), 10*time.Millisecond)
}

// pause spreads the configured pause, so that not all events come back at once.
func (i *Inbox) pause() time.Duration { return i.cfg.Pause/2 + rand.N(i.cfg.Pause) }

// tell notes how it went to ask the store, and logs when that changes.
func (i *Inbox) tell(err error) {
	if was := i.down.Swap(err != nil); was == (err != nil) {
		return
	}
	if err != nil {
		i.cfg.Log.Warn("the inbox is out of reach: events of functions that say faas.Once wait", zap.Error(err))
		return
	}
	i.cfg.Log.Info("the inbox is back")
}
