package connection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
)

// up makes t the transport.
func (c *Connection) up(t *Transport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transport, c.problem = t, nil
	c.announce()
}

// down notes that there is no transport, and why.
func (c *Connection) down(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transport, c.problem = nil, why
	c.endBlock()
	c.announce()
}

// announce wakes all that wait for a change. The caller must hold c.mu.
func (c *Connection) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// CloseDeadline returns until when to wait for the broker's answers when something
// is closed now.
func (c *Connection) CloseDeadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closeDeadline.IsZero() {
		return c.closeDeadline
	}
	return time.Now().Add(channel.CloseTimeout)
}

// IsUnresponsive reports whether the broker did not answer before a close deadline,
// and has sent nothing since.
func (c *Connection) IsUnresponsive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.transport != nil && c.transport.unanswered.Load() == 1+c.transport.raw.reads.Load()
}

// SetCloseDeadline sets one deadline for all that is closed from now on.
func (c *Connection) SetCloseDeadline(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeDeadline = by
}

// awaiting notes that a is the first address to be tried. Later errors say more.
func (c *Connection) awaiting(a address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.problem, errNotYet) {
		c.problem = fmt.Errorf("RabbitMQ at %v has not answered yet: check that an AMQP 0-9-1 broker listens there", a)
	}
}

// SetBlocked notes that the broker blocks publishers, or no longer does.
func (c *Connection) SetBlocked(b amqp.Blocking) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.Active {
		if c.endBlock() {
			c.log.Info("the broker accepts messages again")
		}
		return
	}
	c.blocked = cmp.Or(b.Reason, "no reason given")
	if c.unblock == nil {
		c.unblock = make(chan struct{})
	}
	c.log.Warn("the broker blocks publishers", zap.String("reason", c.blocked))
}

// endBlock reports whether the broker was blocking. The caller must hold c.mu.
func (c *Connection) endBlock() bool {
	if c.unblock == nil {
		return false
	}
	close(c.unblock)
	c.blocked, c.unblock, c.freed = "", nil, time.Now()
	return true
}

// Blocked returns why the broker blocks publishers, and a channel that is closed
// when it stops. The channel is nil when it does not block.
func (c *Connection) Blocked() (reason string, ends <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocked, c.unblock
}

// BlockedSince reports whether the broker blocks, or did at any time after t.
func (c *Connection) BlockedSince(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unblock != nil || c.freed.After(t)
}

// SetProblem sets what keeps the user from working, or that nothing does. Health
// returns it.
func (c *Connection) SetProblem(user string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.problems, user)
		return
	}
	c.problems[user] = err
	c.announce()
}

// ProblemOf returns the problem of the user; see SetProblem.
func (c *Connection) ProblemOf(user string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problems[user]
}

// Changed returns a channel that is closed when the state of c changes.
func (c *Connection) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Health returns nil, or what is wrong now in one sentence.
func (c *Connection) Health() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem != nil {
		return c.problem
	}
	if users := slices.Sorted(maps.Keys(c.problems)); len(users) > 0 {
		return c.problems[users[0]]
	}
	if c.blocked != "" {
		return errors.New("RabbitMQ takes no messages at present (" + c.blocked + "): give it memory or disk")
	}
	return nil
}

// Ready waits for a transport. When ctx is done first, the error says what is wrong.
func (c *Connection) Ready(ctx context.Context) error {
	if c.Await(ctx) != nil {
		return nil
	}
	if err := c.Health(); err != nil {
		return err
	}
	return context.Cause(ctx)
}
