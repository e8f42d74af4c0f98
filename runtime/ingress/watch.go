package ingress

import (
	"context"
	"sync"
	"time"
)

// watchInterval is how often a request that waits looks whether its client is
// still there.
const watchInterval = 50 * time.Millisecond

// clientContext is the context of a request whose connection net/http does not
// watch. It ends when the client leaves, too; to know that costs nothing until
// somebody listens.
type clientContext struct {
	context.Context // net/http's
	conn            *clientConn

	mu       sync.Mutex
	listened context.Context // what Done returned a channel of
	cancel   context.CancelFunc
	timer    *time.Timer // looks for the client
}

func (c *clientContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listened == nil {
		c.listened, c.cancel = context.WithCancel(c.Context)
		c.timer = time.AfterFunc(watchInterval, c.look)
	}
	return c.listened.Done()
}

func (c *clientContext) Err() error { return c.current().Err() }

// Value lets those who derive a context hang it on the one that ends, without a
// goroutine of their own.
func (c *clientContext) Value(key any) any { return c.current().Value(key) }

func (c *clientContext) current() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listened != nil {
		return c.listened
	}
	return c.Context
}

func (c *clientContext) look() {
	left := c.conn.left()
	c.mu.Lock()
	defer c.mu.Unlock()
	if left {
		c.cancel()
	}
	if c.listened.Err() == nil {
		c.timer.Reset(watchInterval)
	}
}

// end is called when the handler returns.
func (c *clientContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listened != nil {
		c.timer.Stop()
		c.cancel()
	}
}
