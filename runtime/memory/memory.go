// Package memory is the contract inside one process: a broker without a
// server, the embedded default. Other processes on the same machine can use it
// over a unix socket (Share, Dial), as long as the process that holds it lives.
//
// It means the same as package rabbit, but for durability: what is queued is
// lost with the process. It knows nothing of HTTP, caches or any function.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"go.uber.org/zap"
)

// Config says how a broker behaves. The zero Config works.
type Config struct {
	Process    string            // unique id of this process, and of its worker; contract.NewID() by default
	Grace      time.Duration     // how long Serve lets running functions finish; 25 s by default
	Observe    contract.Observer // told of every run; nil: nobody watches
	Log        *zap.Logger       // nil: zap.NewNop()
	QueueLimit int               // messages that may wait per function; 10,000 by default
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

// Broker carries events and calls between the functions of one process, and of
// those that share it. Make it with New; any number of goroutines may use it.
type Broker struct {
	cfg       Config
	directory contract.Directory
	listeners listeners
	closed    chan struct{}

	mu       sync.Mutex // guards everything below, and all queues, messages and workers
	stopped  bool
	requests map[string]*queue // by function
	events   map[string]*queue // by function
	workers  map[string]*worker
	dead     map[string][]letter              // by function, in order
	tails    map[*feed[contract.Event]]string // with their patterns
	links    map[*peer]struct{}
	last     uint64 // number of the youngest message or dead letter
}

// New returns a broker that is ready at once.
func New(cfg Config) *Broker {
	return &Broker{
		cfg:      cfg.withDefaults(),
		closed:   make(chan struct{}),
		requests: map[string]*queue{},
		events:   map[string]*queue{},
		workers:  map[string]*worker{},
		dead:     map[string][]letter{},
		tails:    map[*feed[contract.Event]]string{},
		links:    map[*peer]struct{}{},
	}
}

// Directory lists the functions that are, or were, served here.
func (b *Broker) Directory() *contract.Directory { return &b.directory }

// Ready returns nil, or an error once the broker is closed: there is nothing
// to wait for inside one process.
func (b *Broker) Ready(context.Context) error { return b.Health() }

// Health returns nil, or an error once the broker is closed.
func (b *Broker) Health() error {
	select {
	case <-b.closed:
		return errClosed()
	default:
		return nil
	}
}

// Close refuses what comes from now on, ends the intake of every Serve and
// fails the calls that have not started. Events that wait are lost with it.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil
	}
	b.stopped = true
	close(b.closed)
	for _, q := range b.events {
		q.drop()
	}
	for _, q := range b.requests {
		q.fail(func() *contract.Error { return errClosed() })
	}
	for tail := range b.tails {
		tail.stop()
	}
	b.listeners.stop()
	return nil
}

func errClosed() *contract.Error {
	return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broker is closed", Executed: contract.ExecutedNo}
}

// hear passes an announcement on to the directory and to every process that
// shares the broker. b.mu is held, so that all hear the same order.
func (b *Broker) hear(a contract.Announcement) {
	b.directory.Update(a, time.Now())
	for p := range b.links {
		p.send(&frame{Kind: announced, Announcement: &a})
	}
}

func checkKey(key string) *contract.Error {
	if key == "" || len(key) > 255 {
		return &contract.Error{
			Code: contract.CodeInvalid, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("routing key %.40q: AMQP allows 1 to 255 bytes", key),
		}
	}
	return nil
}
