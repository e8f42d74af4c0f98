package delay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/singleflight"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Tier is a queue in which messages wait, identified by the length of the wait.
type Tier time.Duration

// Tiers are all tiers, the shortest first. Other waits are made of several tiers: a
// message that leaves a tier too early waits in another one. The tiers below 10 s
// differ by a quarter (the series R10 of ISO 3), so that a retry waits in one tier:
// see RetrySlack.
var Tiers = []Tier{
	ms(100), ms(125), ms(160), ms(200), ms(250), ms(315), ms(400), ms(500), ms(630), ms(800),
	ms(1000), ms(1250), ms(1600), ms(2000), ms(2500), ms(3150), ms(4000), ms(5000), ms(6300), ms(8000), ms(10_000),
	Tier(15 * time.Second), Tier(30 * time.Second),
	Tier(time.Minute), Tier(2 * time.Minute), Tier(5 * time.Minute), Tier(15 * time.Minute),
	Tier(time.Hour), Tier(4 * time.Hour), Tier(24 * time.Hour),
}

func ms(n int) Tier { return Tier(time.Duration(n) * time.Millisecond) }

// Length returns how long messages wait in the tier.
func (t Tier) Length() time.Duration { return time.Duration(t) }

// Name returns the length in milliseconds. (Tiers of earlier versions had names
// that end with a unit.)
func (t Tier) Name() string { return strconv.FormatInt(t.Length().Milliseconds(), 10) }

// ParseTier parses a name. ok is false if there is no such tier.
func ParseTier(name string) (t Tier, ok bool) {
	n, err := strconv.ParseInt(name, 10, 64)
	t = Tier(time.Duration(n) * time.Millisecond)
	return t, err == nil && slices.Contains(Tiers, t)
}

// RetrySlack is the fraction by which a retry may wait longer than its policy says.
// It avoids a second wait, which would cost the broker as much as the first.
const RetrySlack = 0.3

// Precision is how late a delay may end, apart from the time to deliver the event.
const Precision = 100 * time.Millisecond

// TierFor returns the tier for a wait: the shortest one that is not shorter than
// wait, if it is longer by at most slack, otherwise the longest one that is not
// longer. For a wait below the shortest tier it returns that tier.
func TierFor(wait, slack time.Duration) Tier {
	best := Tiers[0]
	for _, t := range Tiers {
		if t.Length() >= wait {
			if t.Length()-wait <= slack {
				best = t
			}
			break
		}
		best = t
	}
	return best
}

// tiersFor returns TierFor(wait, slack) and others to try if that tier accepts
// nothing: first shorter ones, after which the message waits again.
func tiersFor(wait, slack time.Duration) []Tier {
	i := slices.Index(Tiers, TierFor(wait, slack))
	list := slices.Clone(Tiers[max(0, i-3) : i+1])
	slices.Reverse(list)
	if i+1 < len(Tiers) {
		list = append(list, Tiers[i+1])
	}
	return list
}

// declarationPause is how long a tier is not declared again after RabbitMQ failed
// to declare it.
const declarationPause = 10 * time.Second

// tierRegister declares tiers when they are first used. Other processes may declare
// the same tier at the same moment: see Delays.delayIn.
type tierRegister struct {
	cfg   connection.Config
	names topology.Names

	declaring singleflight.Group

	connection struct {
		sync.Mutex
		conn  *connection.Connection // nil while no tier is declared
		close func()
		users int
	}

	mu       sync.Mutex
	declared map[Tier]bool
	failures map[Tier]declarationFailure
}

type declarationFailure struct {
	err error
	at  time.Time
}

// ensure declares the tier if that was not done yet.
func (r *tierRegister) ensure(ctx context.Context, t Tier) error {
	r.mu.Lock()
	known, failure := r.declared[t], r.failures[t]
	r.mu.Unlock()
	if known || r.names.Predeclared {
		return nil
	}
	if failure.err != nil && time.Since(failure.at) < declarationPause {
		return failure.err
	}
	result := r.declaring.DoChan(t.Name(), func() (any, error) { return nil, r.declare(context.WithoutCancel(ctx), t) })
	select {
	case done := <-result:
		return done.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// declare declares the tier over a separate connection. If the dead-letter workers
// of RabbitMQ have stopped, it answers with error 541 (internal error), which
// closes the connection.
func (r *tierRegister) declare(ctx context.Context, t Tier) error {
	c, err := r.connect(ctx)
	if err == nil {
		err = c.Declare(ctx, r.names.DelayTier(t.Name(), t.Length()).Declare)
		r.disconnect()
	}
	if err != nil {
		err = fmt.Errorf("declare delay tier %q: %w", r.names.Delay(t.Name()), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.declared == nil {
		r.declared, r.failures = map[Tier]bool{}, map[Tier]declarationFailure{}
	}
	if refusal, ok := errors.AsType[*amqp.Error](err); ok && refusal.Code == amqp.InternalError {
		r.failures[t] = declarationFailure{err, time.Now()}
		return err
	}
	delete(r.failures, t)
	r.declared[t] = err == nil
	return err
}

// connect returns the connection to declare tiers over. Concurrent declarations
// share it. The caller must call disconnect after a success.
func (r *tierRegister) connect(ctx context.Context) (*connection.Connection, error) {
	c := &r.connection
	c.Lock()
	defer c.Unlock()
	if c.conn == nil {
		var err error
		if c.conn, c.close, err = connection.Open(ctx, r.cfg); err != nil {
			c.conn = nil
			return nil, err
		}
	}
	c.users++
	return c.conn, nil
}

func (r *tierRegister) disconnect() {
	c := &r.connection
	c.Lock()
	defer c.Unlock()
	if c.users--; c.users == 0 {
		c.close()
		c.conn = nil
	}
}

// forget makes the next use declare the tier again.
func (r *tierRegister) forget(t Tier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.declared, t)
}

// failure returns why RabbitMQ could not declare a tier recently, or nil.
func (r *tierRegister) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range Tiers {
		f, ok := r.failures[t]
		if !ok || time.Since(f.at) > 2*declarationPause {
			continue
		}
		return fmt.Errorf("%w: %w", f.err, errWorkersStopped)
	}
	return nil
}
