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

// tierWatch notices that a tier holds messages for longer than its time. AMQP
// does not tell: what has expired, and waits for a dead-letter worker of the
// broker, is in no message count. So each process keeps in mind when the messages
// that it has published to a tier must come out, and each process that moves due
// messages tells the others up to when they have come out. Messages leave a tier
// in the order in which they came.
type tierWatch struct {
	broadcast func(topic string, body []byte) error

	mu         sync.Mutex
	expected   map[Tier]expectation
	unreported map[Tier]int64 // of this process, not told yet: see arrived
	moving     int            // consumers of due messages
	since      time.Time      // when the last of them began
}

// expectation is what must come out of a tier, in Unix milliseconds. Every message
// that was due before first has come out.
type expectation struct {
	first, last int64
	probe       int64 // when the message must come out that tests the tier; 0 without one
	probed      Tier  // where that is
}

// topicArrivals is broadcast with a JSON object: up to when, in Unix milliseconds,
// messages have come out of each tier.
const topicArrivals = "arrivals"

// published notes a message that the tier must give out at due.
func (w *tierWatch) published(t Tier, due int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, waits := w.expected[t]
	if !waits {
		e.first = due
	}
	e.last = max(e.last, due)
	if w.expected == nil {
		w.expected = map[Tier]expectation{}
	}
	w.expected[t] = e
}

// arrived notes a message that this process got from the tier.
func (w *tierWatch) arrived(t Tier, due int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unreported == nil {
		w.unreported = map[Tier]int64{}
	}
	w.unreported[t] = max(w.unreported[t], due)
	w.cameOut(t, due)
}

// cameOut notes that messages have come out of the tier up to due. The caller
// must hold w.mu.
func (w *tierWatch) cameOut(t Tier, due int64) {
	e, waits := w.expected[t]
	switch {
	case !waits:
	case due >= e.last:
		delete(w.expected, t)
	case due >= e.first:
		w.expected[t] = expectation{first: e.last, last: e.last}
	}
	for other, e := range w.expected { // whose messages are gone if this one came through
		if e.probe > 0 && e.probed == t && due >= e.probe {
			delete(w.expected, other)
		}
	}
}

// consuming notes that due messages are consumed until stop is called.
func (w *tierWatch) consuming() (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moving++
	w.since = time.Now()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.moving--
	}
}

// isConsuming reports whether this process consumes due messages.
func (w *tierWatch) isConsuming() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moving > 0
}

// overdue returns the tiers whose messages are late by more than tolerance.
func (w *tierWatch) overdue(now time.Time, tolerance time.Duration) (list []Tier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.moving == 0 || now.Sub(w.since) < tolerance {
		return nil // they may have come to where they wait for this process
	}
	for t, e := range w.expected {
		if e.first+tolerance.Milliseconds() < now.UnixMilli() {
			list = append(list, t)
		}
	}
	slices.Sort(list)
	return list
}

// waits reports whether messages of the tier are still expected.
func (w *tierWatch) waits(t Tier) (expectation, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.expected[t]
	return e, ok
}

// setProbe notes that a message to test the tier was published to probed.
func (w *tierWatch) setProbe(t, probed Tier, due int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := w.expected[t]; ok {
		e.probe, e.probed = due, probed
		w.expected[t] = e
	}
}

// forget drops what was expected of the tier.
func (w *tierWatch) forget(t Tier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.expected, t)
}

// report broadcasts what came out since the last time.
func (w *tierWatch) report() {
	w.mu.Lock()
	news := w.unreported
	w.unreported = nil
	w.mu.Unlock()
	if len(news) == 0 {
		return
	}
	byName := make(map[string]int64, len(news))
	for t, due := range news {
		byName[t.Name()] = due
	}
	body, err := json.Marshal(byName)
	if err == nil {
		err = w.broadcast(topicArrivals, body)
	}
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(news, func(t Tier, due int64) bool { return w.unreported[t] >= due })
	if w.unreported == nil {
		w.unreported = map[Tier]int64{}
	}
	maps.Copy(w.unreported, news)
}

// receiveReport takes in what another process tells.
func (w *tierWatch) receiveReport(body []byte) {
	var byName map[string]int64
	if json.Unmarshal(body, &byName) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, due := range byName {
		if t, ok := ParseTier(name); ok {
			w.cameOut(t, due)
		}
	}
}

// toleranceFactor times the check interval is how late a tier may be before it is
// looked into.
const toleranceFactor = 3

// longestProbed is the longest tier that is tested itself. For a longer one the
// shortest tier is: the answer would take too long.
const longestProbed = 10 * time.Second

// watchTiers looks into tiers that are late, until ctx is done.
func (d *Delays) watchTiers(ctx context.Context) {
	if !d.watching.TryLock() { // another Serve of this process does it
		return
	}
	defer d.watching.Unlock()
	defer d.cfg.Listen(topicArrivals, d.watch.receiveReport)()
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
		d.watch.report()
		tolerance := toleranceFactor * d.cfg.CheckInterval
		var problem error
		for _, t := range d.watch.overdue(time.Now(), tolerance) {
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

// inspect looks into a tier that is late. It returns what is wrong with it, if
// this cannot be mended here.
func (d *Delays) inspect(ctx context.Context, t Tier, tolerance time.Duration) error {
	queue := d.cfg.Names.Delay(t.Name())
	if _, err := d.cfg.Consume.InspectQueue(ctx, queue); errors.Is(err, contract.ErrNotFound) { // it was deleted, with all in it
		d.watch.forget(t)
		d.tiers.forget(t)
		return nil
	}
	if due, err := d.cfg.Consume.InspectQueue(ctx, d.cfg.Names.Due()); err == nil && due.Messages > 0 {
		return nil // messages come out: the workers do not keep up
	}
	moved, err := d.moveLate(ctx, t, tolerance)
	if err != nil {
		return fmt.Errorf("delayed events do not come out of queue %q, and cannot be moved by hand: check that all nodes of RabbitMQ run: %w", queue, err)
	}
	if moved > 0 {
		return nil
	}
	e, waits := d.watch.waits(t)
	if !waits {
		return nil
	}
	if e.probe == 0 {
		select {
		case d.reconsume <- struct{}{}:
		default:
		}
		if err := d.probe(ctx, t); err != nil {
			return fmt.Errorf("delayed events do not come out of queue %q, and it cannot be tested: check that all nodes of RabbitMQ run: %w", queue, err)
		}
		return nil
	}
	if time.Now().UnixMilli() > e.probe+tolerance.Milliseconds() {
		return fmt.Errorf("delayed events do not come out of queue %q: %w", queue, errWorkersStopped)
	}
	return nil
}

// errWorkersStopped says what to do when RabbitMQ does not pass on what has expired.
var errWorkersStopped = errors.New("restart RabbitMQ: its dead-letter workers have stopped; no event is lost, all wait until then")

// probe publishes a message that comes out of the tier, or of the shortest one,
// and is dropped then: it tells whether messages come out at all.
func (d *Delays) probe(ctx context.Context, t Tier) error {
	probed := t
	if t.Length() > longestProbed {
		probed = Tiers[0]
	}
	p, due := d.probeOf(probed)
	if err := d.PublishTo(ctx, probed, d.cfg.Names.Due(), p); err != nil {
		return err
	}
	d.watch.setProbe(t, probed, due)
	return nil
}

// probeOf is a probe of the tier, and when it comes out.
func (d *Delays) probeOf(t Tier) (p amqp.Publishing, due int64) {
	p = amqp.Publishing{AppId: "rabbet", DeliveryMode: amqp.Persistent}
	return p, d.delayIn(&p, t, d.cfg.Names.Due())
}

// setProblem makes /readyz and the log say what is wrong, once, and when it is over.
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
