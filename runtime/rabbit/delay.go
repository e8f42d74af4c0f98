package rabbit

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// tierWaits are the waits for which a queue exists. A longer or an odd wait is
// made of several: a message that comes back too early waits again. Those that
// most retries use are a quarter apart (the series R10 of ISO 3), so that a
// retry waits once: see retrySlack.
var tierWaits = []struct {
	name string
	wait time.Duration
}{
	{"100ms", 100 * time.Millisecond}, {"125ms", 125 * time.Millisecond}, {"160ms", 160 * time.Millisecond},
	{"200ms", 200 * time.Millisecond}, {"250ms", 250 * time.Millisecond}, {"315ms", 315 * time.Millisecond},
	{"400ms", 400 * time.Millisecond}, {"500ms", 500 * time.Millisecond}, {"630ms", 630 * time.Millisecond},
	{"800ms", 800 * time.Millisecond}, {"1s", time.Second}, {"1250ms", 1250 * time.Millisecond},
	{"1600ms", 1600 * time.Millisecond}, {"2s", 2 * time.Second}, {"2500ms", 2500 * time.Millisecond},
	{"3150ms", 3150 * time.Millisecond}, {"4s", 4 * time.Second}, {"5s", 5 * time.Second},
	{"6300ms", 6300 * time.Millisecond}, {"8s", 8 * time.Second}, {"10s", 10 * time.Second},
	{"15s", 15 * time.Second}, {"30s", 30 * time.Second},
	{"1m", time.Minute}, {"2m", 2 * time.Minute}, {"5m", 5 * time.Minute}, {"15m", 15 * time.Minute},
	{"1h", time.Hour}, {"4h", 4 * time.Hour}, {"1d", 24 * time.Hour},
}

// retrySlack is the share by which a retry may wait longer than its policy says:
// that spares it a second wait, which costs the broker as much as the first.
const retrySlack = 0.3

// grain is how late a delay may end, beside the time that the last way through
// the broker takes.
const grain = 100 * time.Millisecond

// tierFor picks the tier for a wait: the shortest that is long enough, if it is
// too long by no more than slack, or else the longest that is not too long. A
// wait below the shortest tier takes that one, which is too long by no more than
// the grain.
func tierFor(wait, slack time.Duration) (name string, length time.Duration) {
	best := tierWaits[0]
	for _, t := range tierWaits {
		if t.wait >= wait {
			if t.wait-wait <= slack {
				best = t
			}
			break
		}
		best = t
	}
	return best.name, best.wait
}

// tiers are the delay queues. They are declared when first used.
type tiers struct {
	link  *link
	names names

	mu       sync.Mutex
	declared map[string]bool
}

// ensure declares the tier, once.
func (t *tiers) ensure(ctx context.Context, tier string, wait time.Duration) error {
	t.mu.Lock()
	known := t.declared[tier]
	t.mu.Unlock()
	if known {
		return nil
	}
	if err := t.link.declare(ctx, t.names.delayTier(tier, wait).declare); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.declared == nil {
		t.declared = map[string]bool{}
	}
	t.declared[tier] = true
	return nil
}

// forget makes the next use declare the tier again.
func (t *tiers) forget(tier string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.declared, tier)
}

// delay publishes m so that it comes to the queue after wait, later by slack at
// the most, or earlier: then it has to wait again.
func (p *publisher) delay(ctx context.Context, queue string, wait, slack time.Duration, m amqp.Publishing) error {
	tier, length := tierFor(wait, slack)
	if err := p.tiers.ensure(ctx, tier, length); err != nil {
		return err
	}
	err := p.publish(ctx, p.names.delay(tier), queue, m)
	if contract.AsError(err) != nil && contract.AsError(err).Code == contract.CodeUnroutable { // somebody deleted it
		p.tiers.forget(tier)
	}
	return err
}
