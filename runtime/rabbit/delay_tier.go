package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/singleflight"
)

// tier is a queue in which messages wait for one length of time.
type tier time.Duration

// delayTiers are the tiers, the shortest first. A longer or an odd wait is made
// of several: a message that is due too early waits again. Those that most
// retries use are a quarter apart (the series R10 of ISO 3), so that a retry
// waits once: see retrySlack.
var delayTiers = []tier{
	ms(100), ms(125), ms(160), ms(200), ms(250), ms(315), ms(400), ms(500), ms(630), ms(800),
	ms(1000), ms(1250), ms(1600), ms(2000), ms(2500), ms(3150), ms(4000), ms(5000), ms(6300), ms(8000), ms(10_000),
	tier(15 * time.Second), tier(30 * time.Second),
	tier(time.Minute), tier(2 * time.Minute), tier(5 * time.Minute), tier(15 * time.Minute),
	tier(time.Hour), tier(4 * time.Hour), tier(24 * time.Hour),
}

func ms(n int) tier { return tier(time.Duration(n) * time.Millisecond) }

func (t tier) length() time.Duration { return time.Duration(t) }

// name is the length in milliseconds. Earlier versions had other tiers, whose
// names end with a unit.
func (t tier) name() string { return strconv.FormatInt(t.length().Milliseconds(), 10) }

// parseTier reads a name; ok is false if there is no such tier.
func parseTier(name string) (t tier, ok bool) {
	n, err := strconv.ParseInt(name, 10, 64)
	t = tier(time.Duration(n) * time.Millisecond)
	return t, err == nil && slices.Contains(delayTiers, t)
}

// retrySlack is the share by which a retry may wait longer than its policy says:
// that spares it a second wait, which costs the broker as much as the first.
const retrySlack = 0.3

// grain is how late a delay may end, beside the time that the way from the last
// tier to the function takes.
const grain = 100 * time.Millisecond

// tierFor picks the tier for a wait: the shortest that is long enough, if it is
// too long by no more than slack, or else the longest that is not too long. A
// wait below the shortest tier takes that one, which is too long by no more than
// the grain.
func tierFor(wait, slack time.Duration) tier {
	best := delayTiers[0]
	for _, t := range delayTiers {
		if t.length() >= wait {
			if t.length()-wait <= slack {
				best = t
			}
			break
		}
		best = t
	}
	return best
}

// tiersFor returns tierFor(wait, slack), and others for the case that it takes
// nothing: first the shorter ones, after which the message waits again.
func tiersFor(wait, slack time.Duration) []tier {
	i := slices.Index(delayTiers, tierFor(wait, slack))
	list := slices.Clone(delayTiers[max(0, i-3) : i+1])
	slices.Reverse(list)
	if i+1 < len(delayTiers) {
		list = append(list, delayTiers[i+1])
	}
	return list
}

// declarationPause is how long a tier is not tried again that RabbitMQ could not
// declare.
const declarationPause = 10 * time.Second

// tierRegister declares the tiers that are used, each of them once at a time. Other
// processes may declare the same tier at the same moment: see delays.publishTo.
type tierRegister struct {
	cfg   connection.Config
	names topology.Names

	declaring singleflight.Group

	connection struct {
		sync.Mutex
		link   *connection.Connection // nil while no tier is declared
		unplug func()
		users  int
	}

	mu       sync.Mutex
	declared map[tier]bool
	failures map[tier]declarationFailure
}

type declarationFailure struct {
	err error
	at  time.Time
}

// ensure declares the tier if that was not done yet.
func (r *tierRegister) ensure(ctx context.Context, t tier) error {
	r.mu.Lock()
	known, failure := r.declared[t], r.failures[t]
	r.mu.Unlock()
	if known || r.names.Predeclared {
		return nil
	}
	if failure.err != nil && time.Since(failure.at) < declarationPause {
		return failure.err
	}
	result := r.declaring.DoChan(t.name(), func() (any, error) { return nil, r.declare(context.WithoutCancel(ctx), t) })
	select {
	case done := <-result:
		return done.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// declare declares the tier over a connection of its own. RabbitMQ whose
// dead-letter workers have stopped answers with error 541 (internal error), which
// closes the connection.
func (r *tierRegister) declare(ctx context.Context, t tier) error {
	l, err := r.connect(ctx)
	if err == nil {
		err = l.Declare(ctx, r.names.DelayTier(t.name(), t.length()).Declare)
		r.disconnect()
	}
	if err != nil {
		err = fmt.Errorf("declare delay tier %q: %w", r.names.Delay(t.name()), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.declared == nil {
		r.declared, r.failures = map[tier]bool{}, map[tier]declarationFailure{}
	}
	if refusal, ok := errors.AsType[*amqp.Error](err); ok && refusal.Code == amqp.InternalError {
		r.failures[t] = declarationFailure{err, time.Now()}
		return err
	}
	delete(r.failures, t)
	r.declared[t] = err == nil
	return err
}

// connect returns the connection to declare tiers over. Declarations at the same
// time share it. Each success needs a disconnect.
func (r *tierRegister) connect(ctx context.Context) (*connection.Connection, error) {
	c := &r.connection
	c.Lock()
	defer c.Unlock()
	if c.link == nil {
		var err error
		if c.link, c.unplug, err = connection.Open(ctx, r.cfg); err != nil {
			c.link = nil
			return nil, err
		}
	}
	c.users++
	return c.link, nil
}

func (r *tierRegister) disconnect() {
	c := &r.connection
	c.Lock()
	defer c.Unlock()
	if c.users--; c.users == 0 {
		c.unplug()
		c.link = nil
	}
}

// forget makes the next use declare the tier again.
func (r *tierRegister) forget(t tier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.declared, t)
}

// failure returns why RabbitMQ could not declare a tier, if that was a moment ago.
func (r *tierRegister) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range delayTiers {
		f, ok := r.failures[t]
		if !ok || time.Since(f.at) > 2*declarationPause {
			continue
		}
		return fmt.Errorf("%w: %w", f.err, errWorkersStopped)
	}
	return nil
}
