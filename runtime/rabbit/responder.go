package rabbit

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// responder is the answering side of requests: it hosts one request function.
//
// Deliveries, replies and acknowledgements go over one channel, in order. A call
// that has been answered never runs again, with one exception: a call of a
// function that only reads. When a delivery is acknowledged depends on the
// function:
//
//   - ReadOnly: some time after the reply, together with others.
//   - Redeliver: immediately before the reply. If the broker does not get the
//     acknowledgement, it does not get the reply either, and delivers the call
//     again. The lost run is canceled, and its reply is not sent over another
//     channel.
//   - any other: before the run. The caller is told which worker took it, so
//     that the loss of the worker ends the call.
//
// A call that is delivered again is acknowledged before the run in any case:
// one that kills its workers kills two of them. A function without Redeliver
// does not run it, because it may have run; its caller is told so.
type responder struct {
	b    *Broker
	fn   contract.Function
	live func()          // told whenever it begins to consume
	base context.Context // of all runs; ends when the grace period is over

	mu       sync.Mutex
	session  *workSession  // nil while there is no connection
	changed  chan struct{} // closed when session changes
	draining bool          // the intake is to stop
	closed   bool          // the intake has stopped
	load     int           // calls taken on and not yet answered
	unloaded chan struct{} // closed when load comes to zero after the intake has stopped

	pool   *pool
	outbox outbox
}

// workSession is the answering side's life on one connection.
type workSession struct {
	ch     *amqp.Channel
	acks   *acks
	intake chan struct{} // closed when no more deliveries come
	cancel func() error  // stops the intake

	mu   sync.Mutex
	sent []sentReply // the last ones, see noteSent
	next int         // index in sent of the oldest one, once it is full
}

// newResponder answers fn's calls; live is told whenever it begins to consume.
func newResponder(b *Broker, fn contract.Function, live func()) *responder {
	r := &responder{b: b, fn: fn, live: live, changed: make(chan struct{}), unloaded: make(chan struct{})}
	r.pool = newPool(fn.Concurrency, r.run, r.answerExpired)
	r.outbox.wake = make(chan struct{}, 1)
	return r
}

// serve answers calls until ctx is done. Then it takes no more, finishes what
// has begun, within the grace period, and gives the rest back.
func (r *responder) serve(ctx context.Context) error {
	var cut context.CancelFunc
	r.base, cut = context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	connected, disconnect := context.WithCancel(r.base)
	defer disconnect()
	defer r.b.Listen(topicCancel, r.hearCancel)()

	var g sync.WaitGroup
	g.Go(func() { r.b.work.use(connected, "answer "+r.fn.Name, r.serveConnection) })
	g.Go(func() { r.send(connected) })
	<-ctx.Done()
	err := r.drain()
	if err != nil {
		cut()
		r.awaitCut()
	}
	r.pool.stop(err == nil)
	disconnect()
	g.Wait()
	return err
}

// drain stops the intake and waits, for the grace period at most, until all
// that was taken on is answered.
func (r *responder) drain() error {
	grace := time.NewTimer(r.b.cfg.Grace)
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
	r.giveBack()
	r.mu.Lock()
	r.closed = true
	if r.load == 0 {
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	select {
	case <-r.unloaded:
		return nil
	case <-grace.C:
		return r.unfinished()
	}
}

// afterGrace is how long a function has to return once its ctx is canceled
// because the grace period is over. Its caller is then told that the outcome is
// unknown.
const afterGrace = time.Second

// awaitCut waits until all that was taken on is answered, for afterGrace at most.
func (r *responder) awaitCut() {
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if !closed { // the intake did not stop: there may always be more
		return
	}
	patience := time.NewTimer(afterGrace)
	defer patience.Stop()
	select {
	case <-r.unloaded:
	case <-patience.C:
	}
}

// unfinished is the error of a drain whose time is over; nil if all is answered.
func (r *responder) unfinished() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.load == 0 {
		return nil
	}
	return fmt.Errorf("function %q: %d calls were not finished within the grace period of %v", r.fn.Name, r.load, r.b.cfg.Grace)
}

// giveBack returns the calls that have not begun and may come again to the queue.
func (r *responder) giveBack() {
	for _, j := range r.pool.remove(func(j *job) bool { return j.d.returnable() }) {
		if j.d.giveBack() {
			j.d.session.acks.back(j.d.tag)
		}
		r.answered()
	}
}

// serveConnection answers calls over conn, until ctx is done or conn fails.
func (r *responder) serveConnection(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to answer on: %w", err)
	}
	defer ch.Close()
	needed := r.b.names.requestFunction(&r.fn.Descriptor)
	if err := r.b.rehome(ctx, conn, needed); err != nil {
		return err
	}
	for _, t := range []topology{r.b.names.common(), needed} {
		if err := t.declare(ch); err != nil {
			return err
		}
	}
	prefetch := prefetchFor(r.fn.Concurrency)
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	s := &workSession{ch: ch, acks: newAcks(ch, ackBatch(r.fn.Concurrency)), intake: make(chan struct{})}
	defer r.lose(s)
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))

	var deliveries <-chan amqp.Delivery
	s.cancel = func() error { return nil }
	if r.isDraining() { // replies are still to be sent
		close(s.intake)
	} else {
		consumer := contract.NewID()
		deliveries, err = ch.Consume(r.b.names.requestQueue(r.fn.Name), consumer, false, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("consume from %q: %w", r.b.names.requestQueue(r.fn.Name), err)
		}
		s.cancel = func() error { return ch.Cancel(consumer, false) }
	}
	r.setSession(s)
	defer r.setSession(nil)
	if deliveries != nil {
		r.live()
		if r.isDraining() { // since a moment, and without knowing of this session
			if err := s.cancel(); err != nil {
				return fmt.Errorf("end the consumer: %w", err)
			}
		}
		r.receive(s, deliveries)
	}
	if !r.isDraining() && ctx.Err() == nil && !ch.IsClosed() {
		return fmt.Errorf("the broker ended the consumer of %q", r.b.names.requestQueue(r.fn.Name))
	}
	select {
	case <-ctx.Done():
		s.acks.flush()
		return nil
	case e := <-closed:
		return closeReason(e)
	}
}

// prefetchFor is how many messages the broker sends ahead: no more than can run
// at once, since what waits here could run elsewhere, and those that have run
// and wait to be acknowledged together.
func prefetchFor(concurrency int) int { return min(concurrency+ackBatch(concurrency)-1, maxPrefetch) }

const maxPrefetch = 65_535 // it travels in 16 bits

func (r *responder) setSession(s *workSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session = s
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *responder) isDraining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// receive accepts deliveries until the consumer or the channel ends.
func (r *responder) receive(s *workSession, deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		r.accept(s, &d)
	}
	close(s.intake)
}

// accept adds the calls of one message to the pool.
func (r *responder) accept(s *workSession, m *amqp.Delivery) {
	now := time.Now()
	s.acks.delivered(m.DeliveryTag)
	d := &delivery{
		session: s, tag: m.DeliveryTag, replyTo: m.ReplyTo, key: m.RoutingKey, arrived: now, redelivered: m.Redelivered,
		frames: m.ContentType == contentTypeCalls || flag(m.Headers, headerFrames),
	}
	var calls []wireCall
	if m.ContentType == contentTypeCalls {
		var err error
		if calls, err = decodeCalls(m.Body); err != nil {
			r.b.cfg.Log.Warn("calls that cannot be read are dropped", zap.String("function", r.fn.Name), zap.Error(err))
			s.acks.now(d.tag)
			return
		}
	} else {
		calls = []wireCall{parseCall(m, now)}
	}
	if d.replyTo == "" {
		r.b.cfg.Log.Debug("a call that wants no reply", zap.String("function", r.fn.Name), zap.String("id", calls[0].id))
	}
	d.firstTag = calls[0].tag
	d.settle = r.ackTimeOf(m.Redelivered, len(calls))
	d.left = len(calls)

	r.mu.Lock()
	if r.draining && d.settle != beforeRun || r.closed {
		r.mu.Unlock()
		s.acks.back(d.tag)
		return
	}
	r.load += len(calls)
	r.mu.Unlock()

	if !r.fn.Redeliver && m.Redelivered {
		s.acks.now(d.tag)
		d.acked = true
		for i := range calls {
			r.reply(d, &calls[i], contract.Reply{}, errLost, 0)
		}
		return
	}
	jobs := make([]job, len(calls))
	for i := range calls {
		jobs[i] = job{d: d, call: &calls[i]}
	}
	r.pool.add(jobs)
}

// errLost is the outcome of a call that may have run and is not run again.
var errLost = &contract.Error{
	Code: contract.CodeLost, Executed: contract.ExecutedUnknown,
	Detail: "the worker was lost while it had the call; it may have run and is not run again",
}

// answered counts one call off.
func (r *responder) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load--
	if r.load == 0 && r.closed {
		close(r.unloaded) // once: nothing is taken on any more
	}
}
