package memory

import (
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A queue has the messages that wait for one function, and delivers them to the
// workers that host it. The mutex of the Broker protects it: the caller of a
// method holds it.
type queue struct {
	broker    *Broker
	function  contract.Descriptor // as the newest worker announced it
	consumers []*consumer         // in the order of their attach
	next      int                 // index of the consumer to try first, so that they take turns
	running   int

	head, tail *message // messages that are ready, in order
	ready      int      // their number
	delayed    map[*message]*time.Timer
	paused     bool // the function is ordered, and an event waits for its retry
}

// A message is one event for one function, or one call.
type message struct {
	queue     *queue
	event     contract.Event // Attempt is the number of the next run
	call      *call          // nil for an event
	number    uint64
	published time.Time
	delivered bool // at least once
	losses    int  // number of workers that died while they ran it

	prev, next *message
	queued     bool // it is ready, between prev and next
}

// executed says whether the function may have run for m, which waits.
func (m *message) executed() contract.Executed {
	if m.delivered {
		return contract.ExecutedUnknown
	}
	return contract.ExecutedNo
}

// full reports whether the queue accepts no new message. A message that is
// delivered again is always accepted: it was counted before.
func (q *queue) full() bool { return q.waiting() >= q.broker.cfg.QueueLimit }

// waiting returns the number of messages that wait.
func (q *queue) waiting() int { return q.ready + len(q.delayed) }

// push adds m at the end and delivers what can be delivered.
func (q *queue) push(m *message) {
	m.queued = true
	m.prev = q.tail
	if q.tail == nil {
		q.head = m
	} else {
		q.tail.next = m
	}
	q.tail = m
	q.ready++
	q.dispatch()
}

// pushFront adds m at the front. It delivers nothing.
func (q *queue) pushFront(m *message) {
	m.queued = true
	m.next = q.head
	if q.head == nil {
		q.tail = m
	} else {
		q.head.prev = m
	}
	q.head = m
	q.ready++
}

// remove removes m, which must be ready.
func (q *queue) remove(m *message) {
	if m.prev == nil {
		q.head = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		q.tail = m.prev
	} else {
		m.next.prev = m.prev
	}
	m.prev, m.next, m.queued = nil, nil, false
	q.ready--
}

// pushAt pushes m at t. Until then m delays no other message.
func (q *queue) pushAt(m *message, t time.Time) {
	q.delay(m, time.Until(t), func() {
		if time.Now().Before(t) { // the wall clock was set back
			q.pushAt(m, t)
			return
		}
		q.push(m)
	})
}

// pauseFor pauses the queue for the given time, and then delivers m before all
// others.
func (q *queue) pauseFor(m *message, wait time.Duration) {
	q.paused = true
	q.delay(m, wait, func() {
		q.paused = false
		q.pushFront(m)
		q.dispatch()
	})
}

// delay calls fn with the mutex of the Broker held after the given time, unless
// the queue is cleared before. m counts as waiting until then.
func (q *queue) delay(m *message, wait time.Duration, fn func()) {
	if q.broker.closed {
		return
	}
	q.delayed[m] = time.AfterFunc(wait, func() {
		q.broker.mu.Lock()
		defer q.broker.mu.Unlock()
		if _, ok := q.delayed[m]; ok {
			delete(q.delayed, m)
			fn()
		}
	})
}

// dispatch delivers ready messages in order, until no consumer is free. It fails
// calls that have expired.
func (q *queue) dispatch() {
	for q.head != nil {
		m := q.head
		if m.call != nil && !time.Now().Before(m.call.deadline) {
			q.remove(m)
			m.call.fail(contract.Expired(m.executed()))
			continue
		}
		c := q.freeConsumer(m.event.Key)
		if c == nil {
			return
		}
		q.remove(m)
		c.deliver(m)
	}
}

// freeConsumer returns a consumer that can run one more message with this key, or
// nil. While versions of a function that react to different keys overlap, each
// version gets its own messages; a key that no version reacts to any more goes to
// any of them.
func (q *queue) freeConsumer(key string) *consumer {
	if q.function.Ordered && (q.running > 0 || q.paused) {
		return nil
	}
	reacts := func(c *consumer) bool { return c.function.Has(key) }
	// The first consumer is checked first: nearly always it reacts.
	anyone := len(q.consumers) > 0 && !reacts(q.consumers[0]) && !slices.ContainsFunc(q.consumers, reacts)
	for i := range q.consumers {
		at := (q.next + i) % len(q.consumers)
		if c := q.consumers[at]; c.running < c.function.Concurrency && (anyone || reacts(c)) {
			q.next = at + 1
			return c
		}
	}
	return nil
}

// clear drops every message that waits.
func (q *queue) clear() {
	for m, timer := range q.delayed {
		timer.Stop()
		delete(q.delayed, m)
	}
	for q.head != nil {
		q.remove(q.head)
	}
}

// failAll fails every call that waits with an error of its own from newError.
func (q *queue) failAll(newError func() *contract.Error) {
	for q.head != nil {
		m := q.head
		q.remove(m)
		err := newError()
		err.Executed = m.executed()
		m.call.fail(err)
	}
}
