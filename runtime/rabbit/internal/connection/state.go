package connection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
)

// up makes s the living session.
func (l *Connection) up(s *Transport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transport, l.problem = s, nil
	l.announce()
}

// down says that there is no living session, and why.
func (l *Connection) down(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transport, l.problem = nil, why
	l.endBlock()
	l.announce()
}

// announce wakes who waits for a change. l.mu is held.
func (l *Connection) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// CloseDeadline is until when the broker may answer to what is closed from now on.
func (l *Connection) CloseDeadline() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closeDeadline.IsZero() {
		return l.closeDeadline
	}
	return time.Now().Add(channel.CloseTimeout)
}

// IsUnresponsive reports whether the broker did not answer a farewell, and has sent
// nothing since.
func (l *Connection) IsUnresponsive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.transport != nil && l.transport.unanswered.Load() == 1+l.transport.raw.reads.Load()
}

// SetCloseDeadline says until when all that is closed has time altogether.
func (l *Connection) SetCloseDeadline(by time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeDeadline = by
}

// awaiting says that a is the first to be tried; later it is better known what
// is wrong.
func (l *Connection) awaiting(a address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.problem, errNotYet) {
		l.problem = fmt.Errorf("RabbitMQ at %v has not answered yet: check that an AMQP 0-9-1 broker listens there", a)
	}
}

func (l *Connection) SetBlocked(b amqp.Blocking) {
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
func (l *Connection) endBlock() bool {
	if l.unblock == nil {
		return false
	}
	close(l.unblock)
	l.blocked, l.unblock, l.freed = "", nil, time.Now()
	return true
}

// Blocked returns the broker's reason to take nothing at present and a
// channel that is closed when that ends; nil when it takes messages.
func (l *Connection) Blocked() (reason string, ends <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked, l.unblock
}

// BlockedSince reports whether the broker blocks, or did at any time after t.
func (l *Connection) BlockedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unblock != nil || l.freed.After(t)
}

func (l *Connection) SetProblem(user string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.problems, user)
		return
	}
	l.problems[user] = err
	l.announce()
}

// ProblemOf returns what setProblem has set for the user.
func (l *Connection) ProblemOf(user string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problems[user]
}

// Changed returns a channel that is closed when the link's state changes.
func (l *Connection) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Health is nil, or what is wrong now in a sentence.
func (l *Connection) Health() error {
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

// Ready waits for a living session. It fails with what is wrong when ctx is done.
func (l *Connection) Ready(ctx context.Context) error {
	if l.Await(ctx) != nil {
		return nil
	}
	if err := l.Health(); err != nil {
		return err
	}
	return context.Cause(ctx)
}
