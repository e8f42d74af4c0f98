// Package caller sends calls, in batches where several wait, and matches replies
// to them.
package caller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Limits of a caller.
const (
	maxPending      = 50_000    // calls without their reply
	maxPendingBytes = 256 << 20 // bytes of their bodies
	MaxCallBody     = 15 << 20  // bytes; with a frame it is below wire.MaxBody, like contract.MaxReply
)

// Caller sends calls, in batches (see batcher), and resolves each with its reply.
type Caller struct {
	cfg     Config
	cancels chan string // bodies of cancel broadcasts for abandoned calls

	mu      sync.Mutex
	session *session                // nil while there is no connection
	changed chan struct{}           // closed when session changes
	pending map[string]*pendingCall // by tag
	bytes   int                     // of the bodies of pending
	lastTag uint64
}

// pendingCall is one call without its reply. Only the goroutine that removes it
// from Caller.pending may send its outcome or drop it.
type pendingCall struct {
	outcome chan outcome // holds one
	timer   *time.Timer
	batch   *batch // in which it was sent; nil: it is queued. Guarded by Caller.mu
	size    int    // bytes of the body
}

type outcome struct {
	reply contract.Reply
	err   *contract.Error
}

var pendingCalls = sync.Pool{New: func() any {
	p := &pendingCall{outcome: make(chan outcome, 1), timer: time.NewTimer(time.Hour)}
	p.timer.Stop()
	return p
}}

// Config says what a caller needs.
type Config struct {
	Names      topology.Names
	Process    string
	NoBatch    bool                   // send every call in a message of its own
	Connection *connection.Connection // requests and replies travel over it
	Publish    *connection.Connection // asked whether the broker blocks publishers
	Directory  *contract.Directory
	Broadcast  func(topic string, body []byte) error
	Health     func() error // says what is wrong with the connections
	Log        *zap.Logger
}

// New returns a Caller that sends calls while Run runs.
func New(cfg Config) *Caller {
	return &Caller{cfg: cfg, cancels: make(chan string, 1024), pending: map[string]*pendingCall{}, changed: make(chan struct{})}
}

// Call sends r and waits for its reply, until r's deadline or the end of ctx.
// Every error is an *contract.Error.
func (c *Caller) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	now := time.Now()
	deadline := r.Deadline
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	if deadline.IsZero() {
		deadline = now.Add(contract.DefaultTimeout)
	}
	if !now.Before(deadline) {
		return contract.Reply{}, contract.Expired(contract.ExecutedNo)
	}
	if ctx.Err() != nil {
		return contract.Reply{}, wire.Canceled(contract.ExecutedNo)
	}
	if err := checkRequest(&r); err != nil {
		return contract.Reply{}, err
	}

	p := pendingCalls.Get().(*pendingCall)
	p.batch, p.size = nil, len(r.Body)
	tag, failed := c.submit(p, &r, deadline)
	if failed != nil {
		pendingCalls.Put(p)
		return contract.Reply{}, failed
	}
	p.timer.Reset(deadline.Sub(now))
	select {
	case o := <-p.outcome:
		return p.done(o)
	case <-p.timer.C:
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return c.abandon(p, tag, wire.Canceled)
		}
	}
	// A call that expired in its queue was never started. The broker dead-letters
	// it about now, and a process that consumes expired calls answers it.
	if c.wasSent(p, tag) {
		p.timer.Reset(wire.ExpiryGrace)
		select {
		case o := <-p.outcome:
			return p.done(o)
		case <-p.timer.C:
		}
	}
	return c.abandon(p, tag, contract.Expired)
}

// done returns the outcome of the call, and p to the pool.
func (p *pendingCall) done(o outcome) (contract.Reply, error) {
	p.timer.Stop()
	pendingCalls.Put(p)
	if o.err != nil {
		return contract.Reply{}, o.err
	}
	return o.reply, nil
}

// abandon fails the call, unless its reply has just arrived.
func (c *Caller) abandon(p *pendingCall, tag string, why func(contract.Executed) *contract.Error) (contract.Reply, error) {
	c.mu.Lock()
	if c.pending[tag] != p {
		c.mu.Unlock()
		return p.done(<-p.outcome)
	}
	delete(c.pending, tag)
	executed := contract.ExecutedNo
	c.bytes -= p.size
	if p.batch != nil {
		executed = contract.ExecutedUnknown
		if c.session != nil {
			select {
			case c.cancels <- wire.CancelBody(c.session.replyTo, tag):
			default: // the run ends at its deadline
			}
		}
	}
	c.mu.Unlock()
	return p.done(outcome{err: why(executed)})
}

func (c *Caller) wasSent(p *pendingCall, tag string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.batch != nil || c.pending[tag] != p
}

// submit sends the call, or queues it in its batcher.
func (c *Caller) submit(p *pendingCall, r *contract.Call, deadline time.Time) (tag string, failed *contract.Error) {
	id := r.ID
	if id == "" {
		id = contract.NewID()
	}
	c.mu.Lock()
	s := c.session
	if failed = c.refusal(s, p); failed != nil {
		c.mu.Unlock()
		return "", failed
	}
	c.lastTag++
	tag = strconv.FormatUint(c.lastTag, 36)
	c.pending[tag] = p
	c.bytes += p.size
	due := s.batcherFor(r.Key).enqueue(wire.Call{
		Tag: tag, ID: id, Deadline: deadline.UnixMilli(), ContentType: r.ContentType,
		Correlation: r.Correlation, Causation: r.Causation, Trace: r.Trace, Session: r.Session, Body: r.Body,
	}, p)
	c.mu.Unlock()
	s.send(due)
	return tag, nil
}

// refusal returns why a call cannot be sent over s now, or nil. The caller must
// hold c.mu.
func (c *Caller) refusal(s *session, p *pendingCall) *contract.Error {
	switch {
	case s == nil:
		return c.unavailable()
	case s.blocked != "":
		return blockedError(s.blocked)
	case len(c.pending) >= maxPending || c.bytes+p.size > maxPendingBytes:
		return &contract.Error{
			Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("%d calls of this process, of %d bytes, are already waiting for their replies", len(c.pending), c.bytes),
		}
	}
	// The broker notifies a connection that it is blocked only after it publishes.
	if reason, blocked := c.cfg.Publish.Blocked(); blocked != nil {
		return blockedError(reason)
	}
	return nil
}

// Ready waits until calls can be sent. When ctx is done first, the error says what
// is wrong.
func (c *Caller) Ready(ctx context.Context) error {
	for {
		c.mu.Lock()
		s, changed := c.session, c.changed
		c.mu.Unlock()
		if s != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("broker not ready for calls: %w", cmp.Or(c.cfg.Health(), context.Cause(ctx)))
		}
	}
}

// setSession sets the session. The caller must hold c.mu.
func (c *Caller) setSession(s *session) {
	c.session = s
	close(c.changed)
	c.changed = make(chan struct{})
}

// resolve ends the call with that outcome, if it is pending, and returns the batch
// in which it was sent. The caller must hold c.mu.
func (c *Caller) resolve(tag string, o outcome) *batch {
	p := c.pending[tag]
	if p == nil {
		return nil
	}
	delete(c.pending, tag)
	c.bytes -= p.size
	b := p.batch // p may be used again once it has its outcome
	p.outcome <- o
	return b
}

// WorkersLost fails the calls that these workers have acknowledged before they ran
// them: the broker does not deliver those again.
func (c *Caller) WorkersLost(workers []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag, p := range c.pending {
		if p.batch != nil && p.batch.worker != "" && slices.Contains(workers, p.batch.worker) {
			c.resolve(tag, outcome{err: wire.ErrLost})
		}
	}
}

// Run keeps the caller connected until ctx is done. Requests and replies travel
// over one connection. Replies need no acknowledgement, so that they arrive also
// while the broker blocks the connection.
func (c *Caller) Run(ctx context.Context) {
	var g sync.WaitGroup
	g.Go(func() { c.sendCancels(ctx) })
	c.cfg.Connection.Use(ctx, "call", c.serveConnection)
	g.Wait()
}

// sendCancels broadcasts which calls were abandoned, until ctx is done. A caller
// that abandons its call does not wait for the broadcast.
func (c *Caller) sendCancels(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case body := <-c.cancels:
			_ = c.cfg.Broadcast(wire.TopicCancel, []byte(body)) // best effort: the deadline ends the run otherwise
		}
	}
}

// checkRequest fails on what AMQP cannot carry.
func checkRequest(r *contract.Call) error {
	var bad string
	switch {
	case r.Key == "" || len(r.Key) > wire.MaxShort:
		bad = fmt.Sprintf("the routing key has %d bytes: AMQP allows 1 to %d", len(r.Key), wire.MaxShort)
	case len(r.ID) > wire.MaxShort:
		bad = fmt.Sprintf("the call id has %d bytes: AMQP allows %d", len(r.ID), wire.MaxShort)
	case len(r.ContentType) > wire.MaxShort:
		bad = fmt.Sprintf("the content type has %d bytes: AMQP allows %d", len(r.ContentType), wire.MaxShort)
	case len(r.Body) > MaxCallBody:
		bad = fmt.Sprintf("the body has %d bytes: a call may have %d", len(r.Body), MaxCallBody)
	case len(r.Correlation)+len(r.Causation)+len(r.Trace.Parent)+len(r.Trace.State)+len(r.Trace.Baggage) > wire.MaxHeaders:
		bad = fmt.Sprintf("trace and baggage have more than %d bytes", wire.MaxHeaders)
	case len(r.Session) > contract.MaxSession:
		bad = fmt.Sprintf("the session has %d bytes: a call may have %d", len(r.Session), contract.MaxSession)
	default:
		return nil
	}
	return &contract.Error{Code: contract.CodeInvalid, Detail: bad, Executed: contract.ExecutedNo}
}

// unavailable is the error of a call without a connection.
func (c *Caller) unavailable() *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second,
		Detail: "there is no connection to the message broker; it is being established again", Cause: c.cfg.Health(),
	}
}

func blockedError(reason string) *contract.Error {
	return &contract.Error{
		Code: contract.CodeBlocked, Executed: contract.ExecutedNo, After: 5 * time.Second,
		Detail: "the message broker blocks publishers at present (" + cmp.Or(reason, "no reason given") + ")",
	}
}
