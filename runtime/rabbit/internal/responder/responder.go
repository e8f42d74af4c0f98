// Package responder runs a request function on the calls of its queue, and sends
// the replies.
package responder

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Responder answers the calls of one request function.
//
// Deliveries, replies and acknowledgements use one channel, and are therefore in
// order. A call that was answered never runs again, unless its function is
// read-only. When a delivery is acknowledged depends on the function:
//
//   - ReadOnly: some time after the reply, together with others.
//   - Redeliver: immediately before the reply. If the broker does not receive the
//     acknowledgement, it does not receive the reply either, and delivers the call
//     again. The lost run is canceled, and its reply is not sent over another channel.
//   - otherwise: before the run, which waits until the broker has the
//     acknowledgement. The caller learns which worker has acknowledged it, so that
//     the call fails as soon as that worker is lost.
//
// A call that is delivered again is always acknowledged before the run, so that a
// call that kills its workers kills at most two. A function without Redeliver does
// not run such a call, because it may have run before; its caller learns that.
type Responder struct {
	cfg         Config
	fn          contract.Function
	onConsuming func()          // called whenever it begins to consume
	base        context.Context // of all runs; done when the grace period is over

	mu          sync.Mutex
	session     *session      // nil while there is no connection
	changed     chan struct{} // closed when session changes
	draining    bool          // no further calls are accepted, but the intake may still run
	closed      bool          // the intake has ended
	unanswered  int           // number of accepted calls
	allAnswered chan struct{} // closed when unanswered is zero and the intake has ended

	pool    *pool
	replies replyQueue
}

// session answers calls over one connection.
type session struct {
	ch       *amqp.Channel
	acks     *channel.Acks
	confirms bool          // ch has publisher confirms; see delivery.begin
	intake   chan struct{} // closed after the last delivery
	cancel   func() error  // ends the intake

	mu   sync.Mutex
	sent []sentReply // the last replies, see recordSent
	next int         // index of the oldest reply in sent, once it is full
}

// Config is what a Responder needs. All fields are required.
type Config struct {
	Names      topology.Names
	Process    string
	Connection *connection.Connection
	Listen     func(topic string, fn func(body []byte)) (stop func())
	Grace      time.Duration // how long running work may take to finish on shutdown
	Observe    contract.Observer
	Log        *zap.Logger
}

// New returns the Responder of a request function. onConsuming is called whenever
// it begins to consume.
func New(cfg Config, fn contract.Function, onConsuming func()) *Responder {
	r := &Responder{cfg: cfg, fn: fn, onConsuming: onConsuming, changed: make(chan struct{}), allAnswered: make(chan struct{})}
	r.pool = newPool(fn.Concurrency, r.run, r.answerExpired)
	r.replies.wake = make(chan struct{}, 1)
	r.replies.timer = time.AfterFunc(time.Hour, r.replies.flush)
	r.replies.timer.Stop()
	return r
}

// Serve answers calls until ctx is done. Then it accepts no further calls, finishes
// those that have started within the grace period, and requeues the others. The
// error says how many calls were not finished.
func (r *Responder) Serve(ctx context.Context) error {
	var cut context.CancelFunc
	r.base, cut = context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	connected, disconnect := context.WithCancel(r.base)
	defer disconnect()
	defer r.cfg.Listen(wire.TopicCancel, r.cancelCall)()

	var g sync.WaitGroup
	g.Go(func() { r.cfg.Connection.Use(connected, "answer "+r.fn.Name, r.serveConnection) })
	g.Go(func() { r.sendReplies(connected) })
	<-ctx.Done()
	err := r.drain()
	if err != nil {
		cut()
		r.awaitCanceled()
	}
	r.pool.stop(err == nil)
	disconnect()
	g.Wait()
	return err
}

// drain stops the intake and waits for the grace period at most until all accepted
// calls are answered.
func (r *Responder) drain() error {
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	r.mu.Lock()
	r.draining = true
	s := r.session
	r.mu.Unlock()
	if s != nil {
		canceled := make(chan struct{})
		go func() { // ends with the connection at the latest
			defer close(canceled)
			_ = s.cancel()
		}()
		select {
		case <-s.intake:
		case <-grace.C:
			return r.unfinished()
		}
	}
	r.requeueUnstarted()
	r.mu.Lock()
	r.closed = true
	if r.unanswered == 0 {
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	select {
	case <-r.allAnswered:
		return nil
	case <-grace.C:
		return r.unfinished()
	}
}

// cancelGrace is how long a run may take to return after its context is canceled
// because the grace period is over. Its caller then learns that the outcome is
// unknown.
const cancelGrace = time.Second

// awaitCanceled waits until all accepted calls are answered, for cancelGrace at
// most.
func (r *Responder) awaitCanceled() {
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if !closed { // the intake has not ended: there may be further calls
		return
	}
	timeout := time.NewTimer(cancelGrace)
	defer timeout.Stop()
	select {
	case <-r.allAnswered:
	case <-timeout.C:
	}
}

// unfinished returns the error of a drain that exceeds the grace period; nil if all
// calls are answered.
func (r *Responder) unfinished() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unanswered == 0 {
		return nil
	}
	return fmt.Errorf("function %q: %d calls were not finished within the grace period of %v", r.fn.Name, r.unanswered, r.cfg.Grace)
}

// requeueUnstarted requeues the calls that have not started and may be delivered
// again.
func (r *Responder) requeueUnstarted() {
	for _, j := range r.pool.remove(func(j *job) bool { return j.d.returnable() }) {
		if j.d.claimRequeue() {
			j.d.session.acks.Requeue(j.d.tag)
		}
		r.answered()
	}
}

// serveConnection answers calls over conn until ctx is done or conn fails.
func (r *Responder) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to answer on: %w", err)
	}
	defer ch.Close()
	needed := r.cfg.Names.RequestFunction(&r.fn.Descriptor)
	if err := topology.RecreateUnreachable(ctx, conn, needed, r.cfg.Log); err != nil {
		return err
	}
	for _, t := range []topology.Part{r.cfg.Names.Common(), needed} {
		if err := t.Declare(ch); err != nil {
			return err
		}
	}
	prefetch := prefetchFor(r.fn.Concurrency)
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	if !r.fn.Redeliver {
		if err := ch.Confirm(false); err != nil {
			return fmt.Errorf("ask for confirms: %w", err)
		}
	}
	s := &session{ch: ch, acks: channel.NewAcks(ch, ackBatch(r.fn.Concurrency)), confirms: !r.fn.Redeliver, intake: make(chan struct{})}
	defer r.onConnectionLost(s)
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))

	var deliveries <-chan amqp.Delivery
	s.cancel = func() error { return nil }
	if r.isDraining() { // there may be replies to send
		close(s.intake)
	} else {
		consumer := contract.NewID()
		deliveries, err = ch.Consume(r.cfg.Names.RequestQueue(r.fn.Name), consumer, false, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("consume from %q: %w", r.cfg.Names.RequestQueue(r.fn.Name), err)
		}
		s.cancel = func() error { return ch.Cancel(consumer, false) }
	}
	r.setSession(s)
	defer r.setSession(nil)
	if deliveries != nil {
		r.onConsuming()
		if r.isDraining() { // drain may not have seen this session
			if err := s.cancel(); err != nil {
				return fmt.Errorf("end the consumer: %w", err)
			}
		}
		r.receive(s, deliveries)
	}
	if !r.isDraining() && ctx.Err() == nil && !ch.IsClosed() {
		return fmt.Errorf("the broker ended the consumer of %q", r.cfg.Names.RequestQueue(r.fn.Name))
	}
	select {
	case <-ctx.Done():
		s.acks.Flush()
		return nil
	case e := <-closed:
		return channel.CloseReason(e)
	}
}

// prefetchFor returns the prefetch: as many messages as can run at once, because
// others could run elsewhere, and those that have run and wait to be acknowledged
// together.
func prefetchFor(concurrency int) int {
	return min(concurrency+ackBatch(concurrency)-1, channel.MaxPrefetch)
}

// ackBatch returns how many finished deliveries are acknowledged without waiting
// for more.
func ackBatch(concurrency int) int { return max(1, concurrency/4) }

func (r *Responder) setSession(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session = s
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Responder) isDraining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// receive accepts deliveries until the consumer or the channel ends.
func (r *Responder) receive(s *session, deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		r.accept(s, &d)
	}
	close(s.intake)
}

// accept adds the calls of one message to the pool.
func (r *Responder) accept(s *session, m *amqp.Delivery) {
	now := time.Now()
	s.acks.Delivered(m.DeliveryTag)
	d := &delivery{
		session: s, tag: m.DeliveryTag, replyTo: m.ReplyTo, key: m.RoutingKey, arrived: now, redelivered: m.Redelivered,
		frames: m.ContentType == wire.ContentTypeCalls || wire.Flag(m.Headers, wire.HeaderFrames),
	}
	var calls []wire.Call
	if m.ContentType == wire.ContentTypeCalls {
		var err error
		if calls, err = wire.DecodeCalls(m.Body); err != nil {
			r.cfg.Log.Warn("dropped a message of calls that cannot be decoded", zap.String("function", r.fn.Name), zap.Error(err))
			s.acks.AckNow(d.tag)
			return
		}
	} else {
		calls = []wire.Call{wire.ParseCall(m, now)}
	}
	if d.replyTo == "" {
		r.cfg.Log.Debug("received a call without reply-to", zap.String("function", r.fn.Name), zap.String("id", calls[0].ID))
	}
	d.firstTag = calls[0].Tag
	d.settle = r.ackTimeOf(m.Redelivered, len(calls))
	d.left, d.running = len(calls), len(calls)

	r.mu.Lock()
	if r.draining && d.settle != beforeRun || r.closed {
		r.mu.Unlock()
		s.acks.Requeue(d.tag)
		return
	}
	r.unanswered += len(calls)
	r.mu.Unlock()

	if !r.fn.Redeliver && m.Redelivered {
		s.acks.AckNow(d.tag)
		d.acked = true
		for i := range calls {
			r.reply(d, &calls[i], contract.Reply{}, wire.ErrLost, 0)
		}
		return
	}
	jobs := make([]job, len(calls))
	for i := range calls {
		jobs[i] = job{d: d, call: &calls[i]}
	}
	r.pool.add(jobs)
}

// answered notes that one accepted call needs no further work.
func (r *Responder) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unanswered--
	if r.unanswered == 0 && r.closed {
		close(r.allAnswered) // no further calls are accepted
	}
}
