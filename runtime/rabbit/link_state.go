package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// up makes s the living session.
func (l *link) up(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live, l.problem = s, nil
	l.announce()
}

// down says that there is no living session, and why.
func (l *link) down(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live, l.problem = nil, why
	l.endBlock()
	l.announce()
}

// announce wakes who waits for a change. l.mu is held.
func (l *link) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// farewell is until when the broker may answer to what is closed from now on.
func (l *link) farewell() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closeBy.IsZero() {
		return l.closeBy
	}
	return time.Now().Add(closeTimeout)
}

// isMute reports whether the broker did not answer a farewell, and has sent
// nothing since.
func (l *link) isMute() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live != nil && l.live.unanswered.Load() == 1+l.live.raw.reads.Load()
}

// closing says until when all that is closed has time altogether.
func (l *link) closing(by time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeBy = by
}

// awaiting says that a is the first to be tried; later it is better known what
// is wrong.
func (l *link) awaiting(a address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.problem, errNotYet) {
		l.problem = fmt.Errorf("RabbitMQ at %v has not answered yet: check that an AMQP 0-9-1 broker listens there", a)
	}
}

func (l *link) setBlocked(b amqp.Blocking) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !b.Active {
		if l.endBlock() {
			l.log.Info("the broker takes messages again")
		}
		return
	}
	l.blocked = cmp.Or(b.Reason, "no reason given")
	if l.unblock == nil {
		l.unblock = make(chan struct{})
	}
	l.log.Warn("the broker takes no messages", zap.String("reason", l.blocked))
}

// endBlock reports whether there was a block to end. l.mu is held.
func (l *link) endBlock() bool {
	if l.unblock == nil {
		return false
	}
	close(l.unblock)
	l.blocked, l.unblock, l.freed = "", nil, time.Now()
	return true
}

// blocking returns the broker's reason to take nothing at present and a
// channel that is closed when that ends; nil when it takes messages.
func (l *link) blocking() (reason string, ends <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked, l.unblock
}

// blockedSince reports whether the broker blocks, or did at any time after t.
func (l *link) blockedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unblock != nil || l.freed.After(t)
}

func (l *link) setProblem(user string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.problems, user)
		return
	}
	l.problems[user] = err
	l.announce()
}

// problemOf returns what setProblem has set for the user.
func (l *link) problemOf(user string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problems[user]
}

// change returns a channel that is closed when the link's state changes.
func (l *link) change() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// health is nil, or what is wrong now in a sentence.
func (l *link) health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.problem != nil {
		return l.problem
	}
	if users := slices.Sorted(maps.Keys(l.problems)); len(users) > 0 {
		return l.problems[users[0]]
	}
	if l.blocked != "" {
		return errors.New("RabbitMQ takes no messages at present (" + l.blocked + "): give it memory or disk")
	}
	return nil
}

// ready waits for a living session. It fails with what is wrong when ctx is done.
func (l *link) ready(ctx context.Context) error {
	if l.next(ctx) != nil {
		return nil
	}
	if err := l.health(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// pace is how long to pause between tries: first, then doubling up to longest.
type pace struct{ first, longest time.Duration }

// backoff is the pause before the next try: it doubles, and is jittered so
// that a thousand processes do not come back as one.
type backoff struct {
	pace
	now time.Duration
}

// reset makes the next pause the first one again.
func (b *backoff) reset() { b.now = 0 }

// wait reports false when ctx was done first.
func (b *backoff) wait(ctx context.Context) bool {
	b.now = max(b.first, min(2*b.now, b.longest))
	t := time.NewTimer(b.now/2 + rand.N(b.now/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
