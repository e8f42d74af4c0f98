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

// What a caller bears at the most.
const (
	MaxPending      = 50_000    // calls of this process that wait for their reply
	MaxPendingBytes = 256 << 20 // of their bodies
	MaxCallBody     = 15 << 20  // bytes; with its frame it stays below maxBody, as contract.MaxReply does
)

// Caller is the calling side of requests: it sends calls, together where they
// wait together (see lane), and hands each its reply.
type Caller struct {
	cfg     Config
	cancels chan string // tags of calls, with their reply queue, that nobody waits for any more

	mu      sync.Mutex
	session *session                // nil while there is no connection
	changed chan struct{}           // closed when session changes
	pending map[string]*pendingCall // by tag
	bytes   int                     // of the bodies of waiting
	lastTag uint64
}

// pendingCall is one call that waits for its reply. Whoever takes it out of
// caller.waiting, and nobody else, may send its outcome or forget it.
type pendingCall struct {
	outcome chan outcome // holds one
	timer   *time.Timer
	batch   *batch // that it left with; nil: it has not left. Guarded by caller.mu
	size    int    // bytes
}

type outcome struct {
	reply contract.Reply
	err   *contract.Error
}

var pendingCalls = sync.Pool{New: func() any {
	w := &pendingCall{outcome: make(chan outcome, 1), timer: time.NewTimer(time.Hour)}
	w.timer.Stop()
	return w
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

	w := pendingCalls.Get().(*pendingCall)
	w.batch, w.size = nil, len(r.Body)
	tag, failed := c.submit(w, &r, deadline)
	if failed != nil {
		pendingCalls.Put(w)
		return contract.Reply{}, failed
	}
	w.timer.Reset(deadline.Sub(now))
	select {
	case o := <-w.outcome:
		return w.done(o)
	case <-w.timer.C:
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return c.abandon(w, tag, wire.Canceled)
		}
	}
	// A call that expired in its queue was never started. The broker drops
	// it about now, and another process of ours may be the one to say so.
	if c.wasSent(w, tag) {
		w.timer.Reset(wire.ExpiryGrace)
		select {
		case o := <-w.outcome:
			return w.done(o)
		case <-w.timer.C:
		}
	}
	return c.abandon(w, tag, contract.Expired)
}

// done makes w ready for another call and returns what came of this one.
func (w *pendingCall) done(o outcome) (contract.Reply, error) {
	w.timer.Stop()
	pendingCalls.Put(w)
	if o.err != nil {
		return contract.Reply{}, o.err
	}
	return o.reply, nil
}

// abandon ends the call without its reply, unless that has just come.
func (c *Caller) abandon(w *pendingCall, tag string, why func(contract.Executed) *contract.Error) (contract.Reply, error) {
	c.mu.Lock()
	if c.pending[tag] != w {
		c.mu.Unlock()
		return w.done(<-w.outcome)
	}
	delete(c.pending, tag)
	executed := contract.ExecutedNo
	c.bytes -= w.size
	if w.batch != nil {
		executed = contract.ExecutedUnknown
		if c.session != nil {
			select {
			case c.cancels <- wire.CancelBody(c.session.replyTo, tag):
			default: // the worker's own deadline will do
			}
		}
	}
	c.mu.Unlock()
	return w.done(outcome{err: why(executed)})
}

func (c *Caller) wasSent(w *pendingCall, tag string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return w.batch != nil || c.pending[tag] != w
}

// submit sends the call, or leaves it in a lane to be sent with others.
func (c *Caller) submit(w *pendingCall, r *contract.Call, deadline time.Time) (tag string, failed *contract.Error) {
	id := r.ID
	if id == "" {
		id = contract.NewID()
	}
	c.mu.Lock()
	s := c.session
	if failed = c.refusal(s, w); failed != nil {
		c.mu.Unlock()
		return "", failed
	}
	c.lastTag++
	tag = strconv.FormatUint(c.lastTag, 36)
	c.pending[tag] = w
	c.bytes += w.size
	m := s.enqueue(r.Key, wire.Call{
		Tag: tag, Id: id, Deadline: deadline.UnixMilli(), ContentType: r.ContentType,
		Correlation: r.Correlation, Causation: r.Causation, Trace: r.Trace, Session: r.Session, Body: r.Body,
	}, w)
	c.mu.Unlock()
	s.send(m)
	return tag, nil
}

// refusal is why a call cannot be made over s now; nil if it can. c.mu is held.
func (c *Caller) refusal(s *session, w *pendingCall) *contract.Error {
	switch {
	case s == nil:
		return c.unavailable()
	case s.blocked != "":
		return blockedError(s.blocked)
	case len(c.pending) >= MaxPending || c.bytes+w.size > MaxPendingBytes:
		return &contract.Error{
			Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("%d calls of this process, of %d bytes, wait for their replies already", len(c.pending), c.bytes),
		}
	}
	// A broker that blocks tells each connection only once that has published.
	if reason, blocked := c.cfg.Publish.Blocked(); blocked != nil {
		return blockedError(reason)
	}
	return nil
}

// Ready waits until calls can be made. It fails with what is wrong when ctx is done.
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

// setSession is called with c.mu held.
func (c *Caller) setSession(s *session) {
	c.session = s
	close(c.changed)
	c.changed = make(chan struct{})
}

// resolve hands the call its outcome, if it still waits, and returns the
// message that it left with. c.mu is held.
func (c *Caller) resolve(tag string, o outcome) *batch {
	w := c.pending[tag]
	if w == nil {
		return nil
	}
	delete(c.pending, tag)
	c.bytes -= w.size
	m := w.batch // before w is somebody else's
	w.outcome <- o
	return m
}

// WorkersLost ends the calls that these workers have acknowledged: they are not
// delivered again.
func (c *Caller) WorkersLost(workers []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag, w := range c.pending {
		if w.batch != nil && w.batch.worker != "" && slices.Contains(workers, w.batch.worker) {
			c.resolve(tag, outcome{err: wire.ErrLost})
		}
	}
}

// Run keeps the caller connected until ctx is done. Requests leave and replies
// come over one connection: replies need no acknowledgement, so they still come
// while the broker blocks it.
func (c *Caller) Run(ctx context.Context) {
	var g sync.WaitGroup
	g.Go(func() { c.sendCancels(ctx) })
	c.cfg.Connection.Use(ctx, "call", c.serveConnection)
	g.Wait()
}

// sendCancels tells the workers which calls nobody waits for any more, until
// ctx is done. It is its own goroutine so that who gives up need not wait.
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

// checkRequest refuses what AMQP cannot carry.
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
		bad = fmt.Sprintf("the body has %d bytes: a call takes %d at the most", len(r.Body), MaxCallBody)
	case len(r.Correlation)+len(r.Causation)+len(r.Trace.Parent)+len(r.Trace.State)+len(r.Trace.Baggage) > wire.MaxHeaders:
		bad = fmt.Sprintf("trace and baggage have more than %d bytes", wire.MaxHeaders)
	case len(r.Session) > contract.MaxSession:
		bad = fmt.Sprintf("the session has %d bytes: a call takes %d at the most", len(r.Session), contract.MaxSession)
	default:
		return nil
	}
	return &contract.Error{Code: contract.CodeInvalid, Detail: bad, Executed: contract.ExecutedNo}
}

// unavailable is the error of a call that finds no connection.
func (c *Caller) unavailable() *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second,
		Detail: "there is no connection to the message broker; it is being made again", Cause: c.cfg.Health(),
	}
}

func blockedError(reason string) *contract.Error {
	return &contract.Error{
		Code: contract.CodeBlocked, Executed: contract.ExecutedNo, After: 5 * time.Second,
		Detail: "the message broker takes nothing at present (" + cmp.Or(reason, "no reason given") + ")",
	}
}

// FillForTest replaces the pending calls by as many that get no reply, with
// bodies of that many bytes in all.
func (c *Caller) FillForTest(calls, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.pending)
	for i := range calls {
		c.pending[fmt.Sprint("filler ", i)] = &pendingCall{outcome: make(chan outcome, 1)}
	}
	c.bytes = bytes
}
