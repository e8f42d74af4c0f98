package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// What a caller bears at the most.
const (
	maxWaiting      = 50_000    // calls of this process that wait for their reply
	maxWaitingBytes = 256 << 20 // of their bodies
	maxCallBody     = 15 << 20  // bytes; with its frame it stays below maxBody, as contract.MaxReply does
)

// verdictWait is how long past its deadline a call waits to be told that it
// expired in its queue, and so was never started.
const verdictWait = 50 * time.Millisecond

// caller is the calling side of requests: it sends calls, together where they
// wait together (see lane), and hands each its reply.
type caller struct {
	b       *Broker
	cancels chan string // tags of calls, with their reply queue, that nobody waits for any more

	mu      sync.Mutex
	session *callSession       // nil while there is no connection
	changed chan struct{}      // closed when session changes
	waiting map[string]*waiter // by tag
	bytes   int                // of the bodies of waiting
	lastTag uint64
}

// waiter is one call that waits for its reply. Whoever takes it out of
// caller.waiting, and nobody else, may send its outcome or forget it.
type waiter struct {
	outcome chan outcome // holds one
	timer   *time.Timer
	message *message // that it left with; nil: it has not left. Guarded by caller.mu
	size    int      // bytes
}

type outcome struct {
	reply contract.Reply
	err   *contract.Error
}

var waiters = sync.Pool{New: func() any {
	w := &waiter{outcome: make(chan outcome, 1), timer: time.NewTimer(time.Hour)}
	w.timer.Stop()
	return w
}}

func newCaller(b *Broker) *caller {
	return &caller{b: b, cancels: make(chan string, 1024), waiting: map[string]*waiter{}, changed: make(chan struct{})}
}

// call sends r and waits for its reply, until r's deadline or the end of ctx.
// Every error is an *contract.Error.
func (c *caller) call(ctx context.Context, r contract.Call) (contract.Reply, error) {
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
		return contract.Reply{}, canceled(contract.ExecutedNo)
	}
	if err := checkRequest(&r); err != nil {
		return contract.Reply{}, err
	}

	w := waiters.Get().(*waiter)
	w.message, w.size = nil, len(r.Body)
	tag, failed := c.submit(w, &r, deadline)
	if failed != nil {
		waiters.Put(w)
		return contract.Reply{}, failed
	}
	w.timer.Reset(deadline.Sub(now))
	select {
	case o := <-w.outcome:
		return w.done(o)
	case <-w.timer.C:
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return c.giveUp(w, tag, canceled)
		}
	}
	// A call that expired in its queue was never started. The broker drops
	// it about now, and another process of ours may be the one to say so.
	if c.wasSent(w, tag) {
		w.timer.Reset(verdictWait)
		select {
		case o := <-w.outcome:
			return w.done(o)
		case <-w.timer.C:
		}
	}
	return c.giveUp(w, tag, contract.Expired)
}

// done makes w ready for another call and returns what came of this one.
func (w *waiter) done(o outcome) (contract.Reply, error) {
	w.timer.Stop()
	waiters.Put(w)
	if o.err != nil {
		return contract.Reply{}, o.err
	}
	return o.reply, nil
}

// giveUp ends the call without its reply, unless that has just come.
func (c *caller) giveUp(w *waiter, tag string, why func(contract.Executed) *contract.Error) (contract.Reply, error) {
	c.mu.Lock()
	if c.waiting[tag] != w {
		c.mu.Unlock()
		return w.done(<-w.outcome)
	}
	delete(c.waiting, tag)
	executed := contract.ExecutedNo
	c.bytes -= w.size
	if w.message != nil {
		executed = contract.ExecutedUnknown
		if c.session != nil {
			select {
			case c.cancels <- cancelBody(c.session.replyTo, tag):
			default: // the worker's own deadline will do
			}
		}
	}
	c.mu.Unlock()
	return w.done(outcome{err: why(executed)})
}

func (c *caller) wasSent(w *waiter, tag string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return w.message != nil || c.waiting[tag] != w
}

// submit sends the call, or leaves it in a lane to be sent with others.
func (c *caller) submit(w *waiter, r *contract.Call, deadline time.Time) (tag string, failed *contract.Error) {
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
	c.waiting[tag] = w
	c.bytes += w.size
	m := s.add(r.Key, wireCall{
		tag: tag, id: id, deadline: deadline.UnixMilli(), contentType: r.ContentType,
		correlation: r.Correlation, causation: r.Causation, trace: r.Trace, session: r.Session, body: r.Body,
	}, w)
	c.mu.Unlock()
	s.send(m)
	return tag, nil
}

// refusal is why a call cannot be made over s now; nil if it can. c.mu is held.
func (c *caller) refusal(s *callSession, w *waiter) *contract.Error {
	switch {
	case s == nil:
		return c.unavailable()
	case s.blocked != "":
		return blockedError(s.blocked)
	case len(c.waiting) >= maxWaiting || c.bytes+w.size > maxWaitingBytes:
		return &contract.Error{
			Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second,
			Detail: fmt.Sprintf("%d calls of this process, of %d bytes, wait for their replies already", len(c.waiting), c.bytes),
		}
	}
	// A broker that blocks tells each connection only once that has published.
	if reason, blocked := c.b.publish.blocking(); blocked != nil {
		return blockedError(reason)
	}
	return nil
}

// ready waits until calls can be made. It fails with what is wrong when ctx is done.
func (c *caller) ready(ctx context.Context) error {
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
			return fmt.Errorf("broker not ready for calls: %w", cmp.Or(c.b.Health(), context.Cause(ctx)))
		}
	}
}

// setSession is called with c.mu held.
func (c *caller) setSession(s *callSession) {
	c.session = s
	close(c.changed)
	c.changed = make(chan struct{})
}

// resolve hands the call its outcome, if it still waits, and returns the
// message that it left with. c.mu is held.
func (c *caller) resolve(tag string, o outcome) *message {
	w := c.waiting[tag]
	if w == nil {
		return nil
	}
	delete(c.waiting, tag)
	c.bytes -= w.size
	m := w.message // before w is somebody else's
	w.outcome <- o
	return m
}

// workersLost ends the calls that these workers have acknowledged: they are not
// delivered again.
func (c *caller) workersLost(workers []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag, w := range c.waiting {
		if w.message != nil && w.message.worker != "" && slices.Contains(workers, w.message.worker) {
			c.resolve(tag, outcome{err: errLost})
		}
	}
}

// run keeps the caller connected until ctx is done. Requests leave and replies
// come over one connection: replies need no acknowledgement, so they still come
// while the broker blocks it.
func (c *caller) run(ctx context.Context) {
	var g sync.WaitGroup
	g.Go(func() { c.sendCancels(ctx) })
	c.b.calls.use(ctx, "call", c.serveConnection)
	g.Wait()
}

// sendCancels tells the workers which calls nobody waits for any more, until
// ctx is done. It is its own goroutine so that who gives up need not wait.
func (c *caller) sendCancels(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case body := <-c.cancels:
			_ = c.b.Broadcast(ctx, topicCancel, []byte(body)) // best effort: the deadline ends the run otherwise
		}
	}
}

// topicCancel is the broadcast that a call is canceled. Its body is the reply
// queue of the call, a space, and its tag.
const topicCancel = "cancel"

func cancelBody(replyTo, tag string) string { return replyTo + " " + tag }

// parseCancel takes the body of a cancel broadcast apart.
func parseCancel(body []byte) (replyTo, tag string, ok bool) {
	s := string(body)
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// checkRequest refuses what AMQP cannot carry.
func checkRequest(r *contract.Call) error {
	var bad string
	switch {
	case r.Key == "" || len(r.Key) > maxShort:
		bad = fmt.Sprintf("the routing key has %d bytes: AMQP allows 1 to %d", len(r.Key), maxShort)
	case len(r.ID) > maxShort:
		bad = fmt.Sprintf("the call id has %d bytes: AMQP allows %d", len(r.ID), maxShort)
	case len(r.ContentType) > maxShort:
		bad = fmt.Sprintf("the content type has %d bytes: AMQP allows %d", len(r.ContentType), maxShort)
	case len(r.Body) > maxCallBody:
		bad = fmt.Sprintf("the body has %d bytes: a call takes %d at the most", len(r.Body), maxCallBody)
	case len(r.Correlation)+len(r.Causation)+len(r.Trace.Parent)+len(r.Trace.State)+len(r.Trace.Baggage) > maxHeaders:
		bad = fmt.Sprintf("trace and baggage have more than %d bytes", maxHeaders)
	case len(r.Session) > contract.MaxSession:
		bad = fmt.Sprintf("the session has %d bytes: a call takes %d at the most", len(r.Session), contract.MaxSession)
	default:
		return nil
	}
	return &contract.Error{Code: contract.CodeInvalid, Detail: bad, Executed: contract.ExecutedNo}
}

// unavailable is the error of a call that finds no connection.
func (c *caller) unavailable() *contract.Error {
	return &contract.Error{
		Code: contract.CodeUnavailable, Executed: contract.ExecutedNo, After: time.Second,
		Detail: "there is no connection to the message broker; it is being made again", Cause: c.b.Health(),
	}
}

func blockedError(reason string) *contract.Error {
	return &contract.Error{
		Code: contract.CodeBlocked, Executed: contract.ExecutedNo, After: 5 * time.Second,
		Detail: "the message broker takes nothing at present (" + cmp.Or(reason, "no reason given") + ")",
	}
}

func canceled(executed contract.Executed) *contract.Error {
	return &contract.Error{Code: contract.CodeCanceled, Detail: "the caller went away", Executed: executed, Cause: context.Canceled}
}
