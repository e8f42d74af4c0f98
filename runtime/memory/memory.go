// Package memory is a broker inside one process, which needs no server. Other
// processes on the same machine can use it through package remote while this
// process lives.
//
// It behaves like package rabbit, except that it is not durable: what is queued
// is lost with the process. It knows nothing of HTTP, caches or any function.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/feed"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/share"
)

// Config says how a Broker behaves. The zero Config is valid.
type Config struct {
	Process    string            // unique id of this process and of its worker; default: contract.NewID()
	Grace      time.Duration     // how long Serve lets running functions finish; default: 25 s
	Observe    contract.Observer // called after every run; nil: runs are not observed
	Log        *zap.Logger       // default: zap.NewNop()
	QueueLimit int               // number of messages that may wait per function; default: 10,000
}

func (c Config) withDefaults() Config {
	c.Process = cmp.Or(c.Process, contract.NewID())
	c.Grace = cmp.Or(c.Grace, 25*time.Second)
	c.QueueLimit = cmp.Or(c.QueueLimit, 10_000)
	if c.Observe == nil {
		c.Observe = func(contract.Invocation) {}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// A Broker carries events and calls between functions. It has one queue per
// function. Create it with New. Its methods are safe for concurrent use.
type Broker struct {
	cfg       Config
	directory contract.Directory
	listeners feed.Listeners
	closing   chan struct{} // closed by Close

	mu          sync.Mutex // protects the fields below, and every queue, message, worker and delivery
	closed      bool
	requests    map[string]*queue  // by function
	events      map[string]*queue  // by function
	workers     map[string]*worker // by id
	dead        map[string][]letter
	tails       map[*feed.Feed[contract.Event]]string // with their patterns
	subscribers map[share.Subscriber]struct{}
	last        uint64 // number of the newest message or dead letter
}

// New returns a Broker that is ready to use. Close it.
func New(cfg Config) *Broker {
	return &Broker{
		cfg:         cfg.withDefaults(),
		closing:     make(chan struct{}),
		requests:    map[string]*queue{},
		events:      map[string]*queue{},
		workers:     map[string]*worker{},
		dead:        map[string][]letter{},
		tails:       map[*feed.Feed[contract.Event]]string{},
		subscribers: map[share.Subscriber]struct{}{},
	}
}

// Directory returns the functions that are, or were, hosted with Serve.
func (b *Broker) Directory() *contract.Directory { return &b.directory }

// Ready returns the same as Health: a Broker is ready at once.
func (b *Broker) Ready(context.Context) error { return b.Health() }

// Health returns nil, or an error with ErrUnavailable if the Broker is closed.
func (b *Broker) Health() error {
	select {
	case <-b.closing:
		return errClosed()
	default:
		return nil
	}
}

// Close ends every Serve, Tail, Listen and Share, and fails the calls that have
// not started. The Broker accepts nothing any more. Events that wait are lost.
// It does not wait for Serve and Share to return, and never fails.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	close(b.closing)
	for _, q := range b.events {
		q.clear()
	}
	for _, q := range b.requests {
		q.failAll(errClosed)
	}
	for tail := range b.tails {
		tail.Stop()
	}
	b.listeners.Stop()
	return nil
}

func errClosed() *contract.Error {
	return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broker is closed", Executed: contract.ExecutedNo}
}

// validateKey returns an error unless key is a routing key that AMQP 0-9-1 allows.
func validateKey(key string) *contract.Error {
	if key == "" || len(key) > 255 {
		return &contract.Error{
			Code: contract.CodeInvalid, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("routing key %.40q: AMQP allows 1 to 255 bytes", key),
		}
	}
	return nil
}
