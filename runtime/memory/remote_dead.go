package memory

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// DeadLetterCounts is Broker.DeadLetterCounts.
func (r *Remote) DeadLetterCounts(ctx context.Context, _ ...string) ([]contract.DeadLetterCount, error) {
	answer, err := r.askDead(ctx, wireDead{Asks: deadList})
	return answer.Functions, err
}

// VisitDeadLetters is Broker.VisitDeadLetters.
func (r *Remote) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	return visitDead(ctx, r, function, visit)
}

func (r *Remote) deadNumbers(ctx context.Context, function string) ([]uint64, error) {
	answer, err := r.askDead(ctx, wireDead{Asks: deadNumbers, Function: function})
	return answer.Numbers, err
}

func (r *Remote) deadLetter(ctx context.Context, function string, number uint64) (*contract.DeadLetter, error) {
	answer, err := r.askDead(ctx, wireDead{Asks: deadRead, Function: function, Number: number})
	return answer.Letter, err
}

func (r *Remote) settleDead(ctx context.Context, function string, number uint64, fate contract.DeadLetterAction, body []byte) error {
	_, err := r.askDead(ctx, wireDead{Asks: deadSettle, Function: function, Number: number, Fate: fate, Body: body})
	return err
}

func (r *Remote) askDead(ctx context.Context, q wireDead) (wireDead, error) {
	f, err := r.exchange(ctx, &frame{Kind: dead, Dead: &q})
	if err != nil || f.Dead == nil {
		return wireDead{}, err
	}
	return *f.Dead, nil
}

// dead answers a remote that looks after dead letters.
func (g *guest) dead(f *frame) {
	var answer wireDead
	var err error
	switch q := f.Dead; q.Asks {
	case deadList:
		answer.Functions, err = g.broker.DeadLetterCounts(g.ctx)
	case deadNumbers:
		answer.Numbers, err = g.broker.deadNumbers(g.ctx, q.Function)
	case deadRead:
		if answer.Letter, err = g.broker.deadLetter(g.ctx, q.Function, q.Number); answer.Letter != nil {
			answer.Letter.Event = *sendable(answer.Letter.Event)
		}
	case deadSettle:
		err = g.broker.settleDead(g.ctx, q.Function, q.Number, q.Fate, q.Body)
	}
	g.send(&frame{Kind: answered, ID: f.ID, Dead: &answer, Failure: failureOf(err)})
}
