package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/deadletter"
)

// maxDeadLetters is the number of dead letters that are kept per function. The
// oldest are dropped first.
const maxDeadLetters = 1_000

// DeadLetterCounts returns the functions that have dead letters. At most 1,000 are
// kept per function: the newest. It never fails.
func (b *Broker) DeadLetterCounts(context.Context, ...string) ([]contract.DeadLetterCount, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []contract.DeadLetterCount
	for _, name := range slices.Sorted(maps.Keys(b.dead)) {
		if n := len(b.dead[name]); n > 0 {
			list = append(list, contract.DeadLetterCount{Name: name, Letters: n})
		}
	}
	return list, nil
}

// VisitDeadLetters calls visit with each dead letter of the function and does what
// visit returns; see contract.DeadLetters. Several visitors may be active at the
// same time. If another one has removed a letter that visit wants to change,
// VisitDeadLetters fails with ErrConflict.
func (b *Broker) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	return deadletter.Visit(ctx, deadLetters{b}, function, visit)
}

// A letter is a dead letter with its number in the Broker.
type letter struct {
	number uint64
	contract.DeadLetter
}

// deadLetter makes the event of d a dead letter. The caller holds b.mu.
func (b *Broker) deadLetter(d *delivery, err *contract.Error) {
	b.appendDeadLetter(contract.DeadLetter{
		Function: d.message.queue.function.Name, Event: d.event, Code: err.Code, Error: err.Error(),
		Worker: d.worker().announcement.Worker, First: d.message.published, Last: time.Now(), Stack: string(err.Stack),
	})
}

// appendDeadLetter adds l as the newest letter of its function. The caller holds
// b.mu.
func (b *Broker) appendDeadLetter(l contract.DeadLetter) {
	letters := b.dead[l.Function]
	if len(letters) == maxDeadLetters {
		b.cfg.Log.Warn("dropped the oldest dead letter: the function has too many", zap.String("function", l.Function), zap.String("id", letters[0].Event.ID))
		letters = slices.Delete(letters, 0, 1)
	}
	b.last++
	b.dead[l.Function] = append(letters, letter{b.last, l})
}

// deadLetters is the deadletter.Store of a Broker.
type deadLetters struct{ broker *Broker }

func (d deadLetters) Numbers(_ context.Context, function string) ([]uint64, error) {
	b := d.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	letters, has := b.dead[function]
	if !has && b.events[function] == nil {
		return nil, &contract.Error{
			Code: contract.CodeNotFound, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("no event function %q was ever hosted here", function),
		}
	}
	var numbers []uint64
	for _, l := range letters {
		numbers = append(numbers, l.number)
	}
	return numbers, nil
}

func (d deadLetters) Read(_ context.Context, function string, number uint64) (*contract.DeadLetter, error) {
	b := d.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	i, found := b.findDeadLetter(function, number)
	if !found {
		return nil, nil
	}
	l := b.dead[function][i].DeadLetter
	l.Event.Body = bytes.Clone(l.Event.Body)
	return &l, nil
}

func (d deadLetters) Settle(_ context.Context, function string, number uint64, action contract.DeadLetterAction, body []byte) error {
	b := d.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed()
	}
	i, found := b.findDeadLetter(function, number)
	if !found {
		return &contract.Error{Code: contract.CodeConflict, Detail: "another visitor has removed it", Executed: contract.ExecutedNo}
	}
	l := b.dead[function][i].DeadLetter
	l.Event.Body = bytes.Clone(body)
	if action == contract.ActionReplay {
		if err := b.replay(l); err != nil {
			return err
		}
	}
	b.dead[function] = slices.Delete(b.dead[function], i, i+1)
	if action == contract.ActionReplace {
		b.appendDeadLetter(l)
	}
	return nil
}

// replay queues the event of l as if it was new. The caller holds b.mu.
func (b *Broker) replay(l contract.DeadLetter) error {
	q := b.events[l.Function]
	if q == nil {
		return &contract.Error{
			Code: contract.CodeUnroutable, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("the function %q is gone: bring it back, or discard the letter", l.Function),
		}
	}
	if q.full() {
		return &contract.Error{
			Code: contract.CodeRefused, Executed: contract.ExecutedNo,
			Detail: fmt.Sprintf("%d messages wait for the function %q: replay more slowly, or start more workers", b.cfg.QueueLimit, l.Function),
		}
	}
	e := l.Event
	e.Attempt, e.Redelivered, e.NotBefore = 1, false, time.Time{}
	q.push(b.newMessage(q, e, time.Now()))
	return nil
}

// findDeadLetter returns the index of a letter in b.dead[function]. The caller
// holds b.mu.
func (b *Broker) findDeadLetter(function string, number uint64) (int, bool) {
	return slices.BinarySearchFunc(b.dead[function], number, func(l letter, number uint64) int { return cmp.Compare(l.number, number) })
}
