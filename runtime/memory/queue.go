package memory

import (
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// queue holds what waits for one function, however many workers host it, and
// hands it to those that have a run to spare. The broker's mutex guards it.
type queue struct {
	broker    *Broker
	function  contract.Descriptor // as the youngest worker announced it
	consumers []*consumer
	next      int // consumer that is asked first, so that they take turns
	running   int

	head, tail *message // ready to start, in order
	ready      int
	delayed    map[*message]*time.Timer
	held       bool // of an ordered function: an event waits for its retry, and all others behind it
}

// message is one event on its way to one function, or one call.
type message struct {
	queue      *queue
	event      contract.Event // Attempt counts the runs that failed, and the coming one
	call       *call          // nil for an event
	sequence   uint64
	first      time.Time // when it was taken in
	readySince time.Time
	started    bool // it was handed to a worker at least once
	losses     int  // workers that died under it

	prev, next *message
	queued     bool
}

// consumer is one worker's hosting of one function.
type consumer struct {
	worker   *worker
	function contract.Descriptor
	running  int
}

// full reports whether the queue takes no more. A retry is always taken back:
// it only ever refills the place that it left.
func (q *queue) full() bool { return q.waiting() >= q.broker.cfg.QueueLimit }

func (q *queue) waiting() int { return q.ready + len(q.delayed) }

// push appends m to what is ready and starts what can be started.
func (q *queue) push(m *message) {
	m.readySince, m.queued = time.Now(), true
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

// pushFront puts m back where it came from; the caller dispatches.
func (q *queue) pushFront(m *message) {
	m.readySince, m.queued = time.Now(), true
	m.next = q.head
	if q.head == nil {
		q.tail = m
	} else {
		q.head.prev = m
	}
	q.head = m
	q.ready++
}

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

// pushAt makes m ready at t. A timer holds it meanwhile: it takes no worker
// and delays nothing else.
func (q *queue) pushAt(m *message, t time.Time) {
	if q.broker.stopped {
		return
	}
	q.delayed[m] = time.AfterFunc(time.Until(t), func() {
		q.broker.mu.Lock()
		defer q.broker.mu.Unlock()
		if _, waiting := q.delayed[m]; !waiting {
			return
		}
		delete(q.delayed, m)
		if time.Now().Before(t) { // the wall clock was set back
			q.pushAt(m, t)
			return
		}
		q.push(m)
	})
}

// hold makes m ready again after the wait, and lets nothing overtake it.
func (q *queue) hold(m *message, wait time.Duration) {
	if q.broker.stopped {
		return
	}
	q.held = true
	q.delayed[m] = time.AfterFunc(wait, func() {
		q.broker.mu.Lock()
		defer q.broker.mu.Unlock()
		if _, waiting := q.delayed[m]; !waiting {
			return
		}
		delete(q.delayed, m)
		q.held = false
		q.pushFront(m)
		q.dispatch()
	})
}

// dispatch starts what can be started, first come, first served.
func (q *queue) dispatch() {
	for q.head != nil {
		m := q.head
		if m.call != nil && !time.Now().Before(m.call.deadline) {
			q.remove(m)
			m.call.reply(contract.Reply{}, contract.Expired(m.executed()))
			continue
		}
		c := q.free(m.event.Key)
		if c == nil {
			return
		}
		q.remove(m)
		c.worker.start(q, c, m)
	}
}

// free returns a consumer with a run to spare for key, or nil. While versions
// of a function that react to different keys overlap, each gets its own.
func (q *queue) free(key string) *consumer {
	if q.function.Ordered && (q.running > 0 || q.held) {
		return nil
	}
	knows := func(c *consumer) bool { return c.function.Has(key) }
	anybody := len(q.consumers) > 0 && !knows(q.consumers[0]) && !slices.ContainsFunc(q.consumers, knows)
	for i := range q.consumers {
		at := (q.next + i) % len(q.consumers)
		if c := q.consumers[at]; c.running < c.function.Concurrency && (anybody || knows(c)) {
			q.next = at + 1
			return c
		}
	}
	return nil
}

// drop forgets everything that waits.
func (q *queue) drop() {
	for m, timer := range q.delayed {
		timer.Stop()
		delete(q.delayed, m)
	}
	for q.head != nil {
		q.remove(q.head)
	}
}

// fail answers every call that waits.
func (q *queue) fail(why func() *contract.Error) {
	for q.head != nil {
		m := q.head
		q.remove(m)
		err := why()
		err.Executed = m.executed()
		m.call.reply(contract.Reply{}, err)
	}
}

// executed says whether a function may have run for m, which waits.
func (m *message) executed() contract.Executed {
	if m.started {
		return contract.ExecutedUnknown
	}
	return contract.ExecutedNo
}
