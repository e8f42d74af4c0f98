package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"go.uber.org/zap"
)

// maxDead is how many dead letters are kept per function; the oldest go first.
const maxDead = 1_000

// letter is a dead letter with the number by which it can be found again.
type letter struct {
	number uint64
	contract.DeadLetter
}

// bury keeps d's event as a dead letter. b.mu is held.
func (b *Broker) bury(d *delivery, err *contract.Error) {
	b.keepDead(contract.DeadLetter{
		Function: d.message.queue.function.Name, Event: d.event, Code: err.Code, Error: err.Error(),
		Worker: d.worker().announcement.Worker, First: d.message.first, Last: time.Now(), Stack: string(err.Stack),
	})
}

// keepDead puts l behind the others. b.mu is held.
func (b *Broker) keepDead(l contract.DeadLetter) {
	letters := b.dead[l.Function]
	if len(letters) == maxDead {
		b.cfg.Log.Warn("the oldest dead letter was dropped to make room", zap.String("function", l.Function), zap.String("id", letters[0].Event.ID))
		letters = slices.Delete(letters, 0, 1)
	}
	b.last++
	b.dead[l.Function] = append(letters, letter{b.last, l})
}

// DeadLetterCounts lists the functions that have dead letters, of the youngest
// 1,000 per function since the broker was made.
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

// VisitDeadLetters calls visit with the function's dead letters and does what it says;
// see contract.DeadLetters.
func (b *Broker) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	return visitDead(ctx, b, function, visit)
}

// graves is where dead letters are: here, or in another process.
type graves interface {
	deadNumbers(ctx context.Context, function string) ([]uint64, error)
	// deadLetter returns nil if it is gone meanwhile.
	deadLetter(ctx context.Context, function string, number uint64) (*contract.DeadLetter, error)
	settleDead(ctx context.Context, function string, number uint64, fate contract.DeadLetterAction, body []byte) error
}

func visitDead(ctx context.Context, g graves, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	numbers, err := g.deadNumbers(ctx, function)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l, err := g.deadLetter(ctx, function, number)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		fate, err := visit(l)
		if err != nil {
			return err
		}
		switch fate {
		case contract.ActionKeep:
		case contract.ActionStop:
			return nil
		default:
			if err := g.settleDead(ctx, function, number, fate, l.Event.Body); err != nil {
				return fmt.Errorf("dead letter %q: %w", l.Event.ID, err)
			}
			if l.OnRemoved != nil {
				l.OnRemoved()
			}
		}
	}
	return nil
}

func (b *Broker) deadNumbers(_ context.Context, function string) ([]uint64, error) {
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

func (b *Broker) deadLetter(_ context.Context, function string, number uint64) (*contract.DeadLetter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, found := b.findDead(function, number)
	if !found {
		return nil, nil
	}
	l := b.dead[function][i].DeadLetter
	l.Event.Body = bytes.Clone(l.Event.Body)
	return &l, nil
}

// findDead returns the place of a letter. b.mu is held.
func (b *Broker) findDead(function string, number uint64) (int, bool) {
	return slices.BinarySearchFunc(b.dead[function], number, func(l letter, number uint64) int { return cmp.Compare(l.number, number) })
}

func (b *Broker) settleDead(_ context.Context, function string, number uint64, fate contract.DeadLetterAction, body []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return errClosed()
	}
	i, found := b.findDead(function, number)
	if !found {
		return &contract.Error{Code: contract.CodeConflict, Detail: "somebody else has just removed it", Executed: contract.ExecutedNo}
	}
	l := b.dead[function][i].DeadLetter
	l.Event.Body = bytes.Clone(body)
	if fate == contract.ActionReplay {
		q := b.events[function]
		if q == nil {
			return &contract.Error{
				Code: contract.CodeUnroutable, Executed: contract.ExecutedNo,
				Detail: fmt.Sprintf("the function %q is gone: bring it back, or discard the letter", function),
			}
		}
		if q.full() {
			return &contract.Error{
				Code: contract.CodeRefused, Executed: contract.ExecutedNo,
				Detail: fmt.Sprintf("%d messages wait for the function %q: replay more slowly, or start more workers", b.cfg.QueueLimit, function),
			}
		}
		e := l.Event
		e.Attempt, e.Redelivered, e.NotBefore = 1, false, time.Time{}
		q.push(b.newMessage(q, e, time.Now()))
	}
	b.dead[function] = slices.Delete(b.dead[function], i, i+1)
	if fate == contract.ActionReplace {
		b.keepDead(l)
	}
	return nil
}
