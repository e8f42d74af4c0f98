package stores

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Record is an event that is stored until it is published.
type Record struct {
	ID    string // of the event: the same however often it is published
	Key   string // its routing key
	Event []byte // all of it, in whatever form its publisher understands
}

// Outbox holds records that were stored together with what they tell of. Any
// number of processes may relay from one: each record is published at least
// once, and those of one subject in the order in which they were stored.
type Outbox struct {
	db    *database
	woken chan struct{} // holds one: something was stored by this process
}

// Relay says how records get out.
type Relay struct {
	// Publish returns nil once somebody else has taken responsibility for the
	// record. It fails with ErrRejected if that can never be: the record is
	// parked. It fails with ErrUnavailable if nobody can take any record now: the
	// relay pauses, for up to 2 s. After any other error the record waits, from
	// about half a second to a minute, while others go on. Required.
	Publish func(ctx context.Context, r Record) error
	// Report is told of what failed; nil: nobody is.
	Report func(err error)
	// Batch is how many records are taken at once, and so how many may be
	// published twice when the process dies; 100.
	Batch int
	// Lease is how long the records of a process that died wait for another.
	// Publishing has half of that; 10 s.
	Lease time.Duration
	// Poll is how often to look for what this process has not stored itself, and
	// for what has waited long enough; 1 s.
	Poll time.Duration
}

func newOutbox(db *database) *Outbox { return &Outbox{db: db, woken: make(chan struct{}, 1)} }

// wake makes the relay of this process look at once.
func (o *Outbox) wake() {
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

// lastTime is how long a relay that is to stop still publishes: what a broker
// does not take by then, another relay gets.
const lastTime = 2 * time.Second

// Relay publishes what is stored, until ctx is done. What has been stored by
// then still goes out, for up to 2 s.
func (o *Outbox) Relay(ctx context.Context, r Relay) {
	r.Batch, r.Lease, r.Poll = cmp.Or(r.Batch, 100), cmp.Or(r.Lease, 10*time.Second), cmp.Or(r.Poll, time.Second)
	if r.Report == nil {
		r.Report = func(error) {}
	}
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTime, cancel) })()
	failures := 0
	for ctx.Err() == nil {
		pause, woken := r.Poll, o.woken
		taken, err := o.round(working, &r)
		switch {
		case err != nil:
			r.Report(err)
			pause, woken = backoff(failures, 100*time.Millisecond, 2*time.Second), nil
			failures++
		case taken > 0:
			failures = 0
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-woken:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	for {
		taken, err := o.round(working, &r)
		if err != nil {
			r.Report(fmt.Errorf("what is stored stays for the next relay: %w", err))
		}
		if taken == 0 || err != nil || working.Err() != nil {
			return
		}
	}
}

// round takes and publishes one batch, and returns how many records it took. It
// fails when nothing can be published, or the database does not answer.
func (o *Outbox) round(ctx context.Context, r *Relay) (taken int, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Lease)
	defer cancel()
	clearing, done := context.WithTimeout(context.WithoutCancel(ctx), r.Lease) // also when publishing has to end
	defer done()
	b, err := o.claim(ctx, r.Batch, r.Lease)
	if err != nil {
		return 0, fmt.Errorf("take from the outbox: %w", o.db.explain(err))
	}
	if len(b.records) == 0 {
		return 0, nil
	}
	down := b.publish(ctx, r)
	for pause := 10 * time.Millisecond; ; pause *= 2 { // while the lease lasts: what is not cleared is published again
		err := o.settle(clearing, b)
		if err == nil {
			return len(b.records), down
		}
		select {
		case <-time.After(pause):
		case <-clearing.Done():
			return len(b.records), fmt.Errorf("clear the outbox, what was published will be again: %w", o.db.explain(err))
		}
	}
}

// batch is what one relay holds under one lease.
type batch struct {
	owner   string
	records []*claimed // in the order in which they were stored
}

// claimed is a record in a relay's hands.
type claimed struct {
	Record
	number   int64
	subject  string
	attempts int
	outcome  outcome
	err      error
}

// outcome is what became of a claimed record.
type outcome int

const (
	untouched outcome = iota // it goes back
	published                // it goes
	failed                   // it waits
	parked                   // it stays
)

// publish publishes the records, those of one subject one after the other. It
// returns the error that says that nothing can be published at present.
func (b *batch) publish(ctx context.Context, r *Relay) (down error) {
	ctx, cancel := context.WithTimeout(ctx, r.Lease/2)
	defer cancel()
	subjects := map[string][]*claimed{}
	for _, c := range b.records {
		subjects[c.subject] = append(subjects[c.subject], c)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, records := range subjects {
		all.Go(func() {
			for _, c := range records {
				err := r.Publish(ctx, c.Record)
				if errors.Is(err, ErrUnavailable) {
					mu.Lock()
					down = err
					mu.Unlock()
					return
				}
				if c.settle(err); c.outcome == failed {
					r.Report(fmt.Errorf("publish %s %q, attempt %d: %w", c.Key, c.ID, c.attempts, err))
					return // what follows must not overtake it
				}
				if c.outcome == parked {
					r.Report(fmt.Errorf("publish %s %q: it is parked in the outbox as number %d: %w", c.Key, c.ID, c.number, err))
				}
			}
		})
	}
	all.Wait()
	if down != nil {
		return fmt.Errorf("publish from the outbox: %w", down)
	}
	return nil
}

// settle notes how publishing c went.
func (c *claimed) settle(err error) {
	switch {
	case err == nil:
		c.outcome = published
	case errors.Is(err, ErrRejected):
		c.outcome, c.err = parked, err
	default:
		c.outcome, c.err = failed, err
	}
	if err != nil {
		c.attempts++
	}
}

// backoff is how long to wait after so many failures before: first, twice as
// long each time, at most most, and up to half of it more or less.
func backoff(failures int, first, most time.Duration) time.Duration {
	wait := first << min(failures, 20)
	wait = min(wait, most)
	return wait/2 + rand.N(wait)
}
