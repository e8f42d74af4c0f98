// Package outbox publishes events that a database transaction has stored together
// with the change that they are about. Therefore an event is published if and only
// if the change was committed, whatever happens to the process or the broker.
//
// It knows the table of the outbox, and nothing of what else a transaction does.
package outbox

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/database"
)

// Migrations make the table of the outbox: pass them to database.DB.Migrate.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Errors of Relay.Publish.
var (
	// ErrRejected says that a record can never be published as it is.
	ErrRejected = errors.New("rejected")
	// ErrUnavailable says that no record can be published at present.
	ErrUnavailable = database.ErrUnavailable
)

// A Record is an event that is stored until it is published.
type Record struct {
	ID    string // of the event: the same however often it is published
	Key   string // its routing key
	Event []byte // the event, as Relay.Publish understands it; JSON for PublishTo
}

// An Outbox holds records until they are published. Any number of processes may
// relay from one: each record is published at least once, and those of one subject
// in the order in which they were stored.
type Outbox struct {
	db    *database.DB
	woken chan struct{} // buffers one signal: this process has stored records
}

// Relay says how records are published.
type Relay struct {
	// Publish returns nil once the record is published, and confirmed. After
	// ErrRejected the record is parked: it stays in the table and is not tried
	// again. After ErrUnavailable the relay pauses, for up to 2 s. After any other
	// error the record waits, from about half a second to a minute, while records
	// of other subjects are published. Required; see PublishTo.
	Publish func(ctx context.Context, r Record) error
	// Report is called with each failure. Nil: failures are not reported.
	Report func(err error)
	// Batch is how many records are claimed at once, and so how many may be
	// published twice when the process dies; 100.
	Batch int
	// Lease is how long the records that a process had claimed when it died wait
	// for another process. Publishing may take half of it; 10 s.
	Lease time.Duration
	// Poll is how often the relay searches for records that other processes have
	// stored, and for those that have waited long enough; 1 s.
	Poll time.Duration
}

// New returns the outbox in db. The schema must be up to date: see Migrations.
func New(db *database.DB) *Outbox { return &Outbox{db: db, woken: make(chan struct{}, 1)} }

// Wake makes the relay of this process publish at once. Call it after the
// transaction of Add is committed; without it the relay finds the records within
// Relay.Poll.
func (o *Outbox) Wake() {
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

// stopTimeout is how long a relay that stops still publishes. What is not published
// by then is left to another relay.
const stopTimeout = 2 * time.Second

// Relay publishes what is stored, until ctx is done. It then publishes what was
// stored before, for up to 2 s.
func (o *Outbox) Relay(ctx context.Context, r Relay) {
	r.Batch, r.Lease, r.Poll = cmp.Or(r.Batch, 100), cmp.Or(r.Lease, 10*time.Second), cmp.Or(r.Poll, time.Second)
	if r.Report == nil {
		r.Report = func(error) {}
	}
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopTimeout, cancel) })()
	failures := 0
	for ctx.Err() == nil {
		pause, woken := r.Poll, o.woken
		n, err := o.round(working, &r)
		switch {
		case err != nil:
			r.Report(err)
			pause, woken = backoff(failures, 100*time.Millisecond, 2*time.Second), nil
			failures++
		case n > 0:
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
		n, err := o.round(working, &r)
		if err != nil {
			r.Report(fmt.Errorf("stored events are left to another relay: %w", err))
		}
		if n == 0 || err != nil || working.Err() != nil {
			return
		}
	}
}

// round claims and publishes one batch, and returns how many records it claimed. It
// fails when nothing can be published, or the database does not answer.
func (o *Outbox) round(ctx context.Context, r *Relay) (claimed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Lease)
	defer cancel()
	settling, done := context.WithTimeout(context.WithoutCancel(ctx), r.Lease) // not canceled with ctx: what was published must be deleted
	defer done()
	b, err := o.claim(ctx, r.Batch, r.Lease)
	if err != nil {
		return 0, fmt.Errorf("claim from the outbox: %w", o.db.Explain(err))
	}
	if len(b.records) == 0 {
		return 0, nil
	}
	down := b.publish(ctx, r)
	for pause := 10 * time.Millisecond; ; pause *= 2 { // until the lease ends: after that another relay publishes them again
		err := o.settle(settling, b)
		if err == nil {
			return len(b.records), down
		}
		select {
		case <-time.After(pause):
		case <-settling.Done():
			return len(b.records), fmt.Errorf("delete from the outbox (the events will be published again): %w", o.db.Explain(err))
		}
	}
}

// batch is what one relay has claimed under one lease.
type batch struct {
	owner   string
	records []*claimed // in the order in which they were stored
}

// claimed is a record that this relay publishes.
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
	untouched outcome = iota // another relay may claim it
	published                // it is deleted
	failed                   // it waits
	parked                   // it stays until an operator changes it
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
					return // later records of the subject must not be published before it
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

// settle sets the outcome of publishing c.
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

// backoff returns how long to wait after a number of earlier failures: first, doubled
// for each of them, at most most, and then randomly up to half of it more or less.
func backoff(failures int, first, most time.Duration) time.Duration {
	wait := first << min(failures, 20)
	wait = min(wait, most)
	return wait/2 + rand.N(wait)
}
