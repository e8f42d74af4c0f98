package contract

import (
	"context"
	"sync"
	"time"
)

// runContext is the context of a run. It creates a context of the standard
// library, with its timer and its registration at the parent, only when Done is
// first called. A function that never waits does not pay for it.
type runContext struct {
	parent   context.Context
	deadline time.Time
	meta     Meta

	mu       sync.Mutex
	canceled bool
	listened context.Context // nil until Done is called
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

// Value implements context.Context. The standard library finds the context to
// attach a child to through it.
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
