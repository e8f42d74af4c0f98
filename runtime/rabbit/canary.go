package rabbit

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A delay tier can stop without a sign. Its dead-letter worker may have died
// with all others of the broker (seen on 3.10.8 and 4.0.5: an at-least-once
// queue, of any user, that is deleted while its worker starts crashes the
// worker until its supervisor gives up), or a message that does not expire
// stands at its head. AMQP shows neither: messages that have expired are not
// counted. Therefore a process that uses a tier sends a canary through it now
// and then, which comes back to this process only.
const (
	canaryPrefix   = "canary." // of the routing key; the process's id follows
	canaryInterval = 30 * time.Second
	maxRescued     = 10_000 // messages at a time
)

// canaries watches the delay tiers that this process uses.
type canaries struct {
	b   *Broker
	ctx context.Context // of what is sent; done when the broker closes

	mu      sync.Mutex
	queue   string             // that they come back to; "" while there is none
	out     map[string]*canary // by tier
	working sync.WaitGroup
}

// canary is the last one that was sent through a tier.
type canary struct {
	id     string
	sent   time.Time
	timer  *time.Timer // nil once it has come back
	second bool        // the one before it has not come back
}

func newCanaries(ctx context.Context, b *Broker) *canaries {
	c := &canaries{b: b, ctx: ctx, out: map[string]*canary{}}
	b.system.listen(canaryPrefix+b.cfg.Process, c.returned)
	return c
}

// used is called for each message that goes into the tier.
func (c *canaries) used(tier string, length time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.out[tier]
	if c.queue == "" || last != nil && (last.timer != nil || time.Since(last.sent) < canaryInterval) {
		return
	}
	c.send(tier, length, false)
}

// send sends a canary through the tier. c.mu is held.
func (c *canaries) send(tier string, length time.Duration, second bool) {
	if c.ctx.Err() != nil {
		return
	}
	n := &canary{id: contract.NewID(), sent: time.Now(), second: second}
	c.out[tier] = n
	n.timer = time.AfterFunc(length+c.b.cfg.canaryPatience, func() { c.overdue(tier, length, n) })
	back := binding{queue: c.queue, key: canaryPrefix + c.b.cfg.Process, exchange: c.b.names.due()}
	c.working.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, copyTimeout)
		defer cancel()
		if err := c.b.consume.declare(ctx, topology{bindings: []binding{back}}.declare); err != nil {
			c.b.log.Warn("a delay queue cannot be watched", zap.String("queue", c.b.names.delay(tier)), zap.Error(err))
			c.forget(n)
			return
		}
		err := c.b.copies.publish(ctx, c.b.names.delay(tier), canaryPrefix+c.b.cfg.Process, amqp.Publishing{
			MessageId: n.id, DeliveryMode: amqp.Persistent, AppId: c.b.cfg.Process, Body: []byte(tier + " " + n.id),
			Expiration: strconv.FormatInt(length.Milliseconds(), 10),
		})
		if err != nil { // nothing can be learned from it
			c.forget(n)
		}
	})
}

func (c *canaries) forget(n *canary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
		n.timer = nil
	}
}

// reset notes the queue that canaries come back to. Those that are out are lost
// with the one before.
func (c *canaries) reset(queue string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = queue
	for tier, n := range c.out {
		if n.timer != nil {
			n.timer.Stop()
		}
		delete(c.out, tier)
	}
}

// returned takes a canary that has come back.
func (c *canaries) returned(body []byte) {
	var tier, id string
	if n, _ := fmt.Sscan(string(body), &tier, &id); n != 2 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.out[tier]
	if n == nil || n.id != id || n.timer == nil {
		return
	}
	n.timer.Stop()
	n.timer = nil
	c.b.consume.setProblem("delay tier "+tier, nil)
}

// overdue sends another canary, and if that is the second time, tells that the
// tier has stopped, and moves on by hand what stands in it.
func (c *canaries) overdue(tier string, length time.Duration, n *canary) {
	c.mu.Lock()
	if c.out[tier] != n || n.timer == nil || c.ctx.Err() != nil {
		c.mu.Unlock()
		return
	}
	c.working.Add(1)
	defer c.working.Done()
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.out[tier] == n {
			c.send(tier, length, true)
		}
	}()
	if !n.second { // the exchange may have been deleted and declared again, without the binding
		return
	}

	queue := c.b.names.delay(tier)
	moved, err := c.rescue(queue, n.id)
	why := fmt.Errorf("the delay queue %q does not give out what is due: restart RabbitMQ: its dead-letter workers have stopped", queue)
	if moved > 0 {
		why = fmt.Errorf("a message that does not expire stood at the head of the delay queue %q: %d messages were moved on", queue, moved)
	}
	c.b.consume.setProblem("delay tier "+tier, why)
	c.b.log.Error("a delay queue has stopped", zap.String("queue", queue), zap.Error(why), zap.NamedError("rescue", err))
}

// rescue moves messages from the head of a delay queue to the due events, up to
// the canary: what stands before a canary that is overdue is overdue as well.
func (c *canaries) rescue(queue, id string) (moved int, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	s := c.b.consume.next(ctx)
	if s == nil {
		return 0, ctx.Err()
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return 0, err
	}
	defer closeChannel(ch)
	for moved < maxRescued {
		d, ok, err := ch.Get(queue, false)
		if err != nil || !ok {
			return moved, err
		}
		if d.MessageId != id {
			e := c.b.names.fromDelivery(&d)
			if err := c.b.copies.publish(ctx, c.b.names.due(), d.RoutingKey, copyOf(&d, &e, nil)); err != nil {
				return moved, err // it goes back with ch
			}
			moved++
		}
		if err := d.Ack(false); err != nil || d.MessageId == id {
			return moved, err
		}
	}
	return moved, nil
}

// close ends the watch, once ctx is done.
func (c *canaries) close() {
	c.reset("")
	c.working.Wait()
}
