package contract

import (
	"context"
	"sync"
	"time"
)

// runContext is the ctx of a run. It becomes a context of the standard library,
// with its timer and its place among its parent's children, when somebody first
// listens to it: a function that does not wait for anything pays for none of that.
type runContext struct {
	parent   context.Context
	deadline time.Time
	meta     Meta

	mu       sync.Mutex
	canceled bool
	listened context.Context // nil until somebody listens
	end      context.CancelFunc
}

// Deadline implements context.Context.
func (c *runContext) Deadline() (time.Time, bool) {
	if d, ok := c.parent.Deadline(); ok && d.Before(c.deadline) {
		return d, true
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *runContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listened == nil {
		c.listened, c.end = context.WithDeadline(c.parent, c.deadline)
		if c.canceled {
			c.end()
		}
	}
	return c.listened.Done()
}

// Err implements context.Context.
func (c *runContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.listened != nil:
		return c.listened.Err()
	case c.canceled:
		return context.Canceled
	case c.parent.Err() != nil:
		return c.parent.Err()
	case !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// Value implements context.Context. What the standard library asks for to
// attach a child goes to the context that is listened to.
func (c *runContext) Value(key any) any {
	if key == (metaKey{}) {
		return c.meta
	}
	c.mu.Lock()
	ctx := c.listened
	c.mu.Unlock()
	if ctx == nil {
		ctx = c.parent
	}
	return ctx.Value(key)
}

func (c *runContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.canceled = true
	if c.end != nil {
		c.end()
	}
}
