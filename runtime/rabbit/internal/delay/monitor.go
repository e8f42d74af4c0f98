package delay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// tierMonitor detects tiers that hold messages longer than their length. AMQP does
// not show that: a message that has expired and waits for a dead-letter worker of
// the broker is in no message count. Therefore each process remembers when the
// messages that it published to a tier are due, and each process that moves due
// messages broadcasts up to which time messages have left each tier. Messages leave
// a tier in order.
type tierMonitor struct {
	broadcast func(topic string, body []byte) error

	mu         sync.Mutex
	expected   map[Tier]expectation
	unreported map[Tier]int64 // of this process; not broadcast yet
	moving     int            // number of consumers of due messages
	since      time.Time      // when the last of them started
}

// expectation is what must leave a tier, in Unix milliseconds. Every message that
// was due before first has left it.
type expectation struct {
	first, last int64
	probe       int64 // when the probe is due; 0: no probe
	probed      Tier  // the tier of the probe
}

// topicArrivals is the topic of a broadcast JSON object: up to which time, in Unix
// milliseconds, messages have left each tier.
const topicArrivals = "arrivals"

// published notes a message that must leave the tier at due.
func (m *tierMonitor) published(t Tier, due int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, waits := m.expected[t]
	if !waits {
		e.first = due
	}
	e.last = max(e.last, due)
	if m.expected == nil {
		m.expected = map[Tier]expectation{}
	}
	m.expected[t] = e
}

// arrived notes a message that this process received from the tier.
func (m *tierMonitor) arrived(t Tier, due int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unreported == nil {
		m.unreported = map[Tier]int64{}
	}
	m.unreported[t] = max(m.unreported[t], due)
	m.left(t, due)
}

// left notes that messages have left the tier up to due. The caller must hold m.mu.
func (m *tierMonitor) left(t Tier, due int64) {
	e, waits := m.expected[t]
	switch {
	case !waits:
	case due >= e.last:
		delete(m.expected, t)
	case due >= e.first:
		m.expected[t] = expectation{first: e.last, last: e.last}
	}
	for other, e := range m.expected { // a probe that arrived shows that the messages of the other tier are gone
		if e.probe > 0 && e.probed == t && due >= e.probe {
			delete(m.expected, other)
		}
	}
}

// consuming notes that due messages are consumed, until stop is called.
func (m *tierMonitor) consuming() (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moving++
	m.since = time.Now()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.moving--
	}
}

// isConsuming reports whether this process consumes due messages.
func (m *tierMonitor) isConsuming() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moving > 0
}

// overdue returns the tiers whose messages are overdue by more than tolerance.
func (m *tierMonitor) overdue(now time.Time, tolerance time.Duration) (list []Tier) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moving == 0 || now.Sub(m.since) < tolerance {
		return nil // due messages may have waited for this process
	}
	for t, e := range m.expected {
		if e.first+tolerance.Milliseconds() < now.UnixMilli() {
			list = append(list, t)
		}
	}
	slices.Sort(list)
	return list
}

// expectationOf returns what is still expected of the tier.
func (m *tierMonitor) expectationOf(t Tier) (expectation, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.expected[t]
	return e, ok
}

// setProbe notes that a probe for the tier was published to probed.
func (m *tierMonitor) setProbe(t, probed Tier, due int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.expected[t]; ok {
		e.probe, e.probed = due, probed
		m.expected[t] = e
	}
}

// forget drops the expectation of the tier.
func (m *tierMonitor) forget(t Tier) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.expected, t)
}

// report broadcasts what has left the tiers since the last time.
func (m *tierMonitor) report() {
	m.mu.Lock()
	arrivals := m.unreported
	m.unreported = nil
	m.mu.Unlock()
	if len(arrivals) == 0 {
		return
	}
	byName := make(map[string]int64, len(arrivals))
	for t, due := range arrivals {
		byName[t.Name()] = due
	}
	body, err := json.Marshal(byName)
	if err == nil {
		err = m.broadcast(topicArrivals, body)
	}
	if err == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(arrivals, func(t Tier, due int64) bool { return m.unreported[t] >= due })
	if m.unreported == nil {
		m.unreported = map[Tier]int64{}
	}
	maps.Copy(m.unreported, arrivals)
}

// receiveReport handles the report of another process.
func (m *tierMonitor) receiveReport(body []byte) {
	var byName map[string]int64
	if json.Unmarshal(body, &byName) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, due := range byName {
		if t, ok := ParseTier(name); ok {
			m.left(t, due)
		}
	}
}

// toleranceFactor times the check interval is how late a tier may be before it is
// inspected.
const toleranceFactor = 3

// longestProbed is the longest tier that is probed itself. For longer ones the
// shortest tier is probed, because the answer would take too long.
const longestProbed = 10 * time.Second

// monitorTiers inspects overdue tiers until ctx is done.
func (d *Delays) monitorTiers(ctx context.Context) {
	if !d.watching.TryLock() { // another Serve of this process monitors
		return
	}
	defer d.watching.Unlock()
	defer d.cfg.Listen(topicArrivals, d.monitor.receiveReport)()
	defer d.setProblem(nil)
	tick := time.NewTicker(d.cfg.CheckInterval)
	defer tick.Stop()
	d.probeAll(ctx)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		d.monitor.report()
		tolerance := toleranceFactor * d.cfg.CheckInterval
		var problem error
		for _, t := range d.monitor.overdue(time.Now(), tolerance) {
			if err := d.inspect(ctx, t, tolerance); err != nil && problem == nil {
				problem = err
			}
		}
		if problem == nil {
			problem = d.tiers.failure()
		}
		d.setProblem(problem)
	}
}

// inspect handles an overdue tier. It returns what is wrong with it, if it cannot
// repair that.
func (d *Delays) inspect(ctx context.Context, t Tier, tolerance time.Duration) error {
	queue := d.cfg.Names.Delay(t.Name())
	if _, err := d.cfg.Consume.InspectQueue(ctx, queue); errors.Is(err, contract.ErrNotFound) { // it was deleted
		d.monitor.forget(t)
		d.tiers.forget(t)
		return nil
	}
	if due, err := d.cfg.Consume.InspectQueue(ctx, d.cfg.Names.Due()); err == nil && due.Messages > 0 {
		return nil // messages leave the tier faster than they are moved
	}
	moved, err := d.moveLate(ctx, t, tolerance)
	if err != nil {
		return fmt.Errorf("delayed events do not leave queue %q, and cannot be moved: check that all nodes of RabbitMQ run: %w", queue, err)
	}
	if moved > 0 {
		return nil
	}
	e, waits := d.monitor.expectationOf(t)
	if !waits {
		return nil
	}
	if e.probe == 0 {
		select {
		case d.reconsume <- struct{}{}:
		default:
		}
		if err := d.probe(ctx, t); err != nil {
			return fmt.Errorf("delayed events do not leave queue %q, and it cannot be probed: check that all nodes of RabbitMQ run: %w", queue, err)
		}
		return nil
	}
	if time.Now().UnixMilli() > e.probe+tolerance.Milliseconds() {
		return fmt.Errorf("delayed events do not leave queue %q: %w", queue, errWorkersStopped)
	}
	return nil
}

// errWorkersStopped says what to do when RabbitMQ does not dead-letter expired
// messages.
var errWorkersStopped = errors.New("restart RabbitMQ: its dead-letter workers have stopped; no event is lost, all wait until then")

// probe publishes a message that is dropped when it leaves the tier, or the
// shortest tier. It shows whether messages leave tiers at all.
func (d *Delays) probe(ctx context.Context, t Tier) error {
	probed := t
	if t.Length() > longestProbed {
		probed = Tiers[0]
	}
	p, due := d.probeOf(probed)
	if err := d.PublishTo(ctx, probed, d.cfg.Names.Due(), p); err != nil {
		return err
	}
	d.monitor.setProbe(t, probed, due)
	return nil
}

// probeOf returns a probe of the tier, and when it leaves it.
func (d *Delays) probeOf(t Tier) (p amqp.Publishing, due int64) {
	p = amqp.Publishing{AppId: "rabbet", DeliveryMode: amqp.Persistent}
	return p, d.delayIn(&p, t, d.cfg.Names.Due())
}

// setProblem updates the health of the process, and logs a problem when it begins
// and when it ends.
func (d *Delays) setProblem(err error) {
	const user = "delay tiers"
	before := d.cfg.Consume.ProblemOf(user)
	d.cfg.Consume.SetProblem(user, err)
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		d.cfg.Log.Error("delayed events are held up", zap.Error(err))
	case err == nil && before != nil:
		d.cfg.Log.Info("delayed events are no longer held up")
	}
}
