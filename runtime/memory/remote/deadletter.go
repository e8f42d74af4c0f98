package remote

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/wire"
)

// DeadLetterCounts does the same as memory.Broker.DeadLetterCounts.
func (b *Broker) DeadLetterCounts(ctx context.Context, _ ...string) ([]contract.DeadLetterCount, error) {
	answer, err := deadLetters{b}.request(ctx, wire.DeadLetters{Asks: wire.CountLetters})
	return answer.Functions, err
}

// VisitDeadLetters does the same as memory.Broker.VisitDeadLetters.
func (b *Broker) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	return deadletter.Visit(ctx, deadLetters{b}, function, visit)
}

// deadLetters is the deadletter.Store of the shared broker.
type deadLetters struct{ broker *Broker }

func (d deadLetters) Numbers(ctx context.Context, function string) ([]uint64, error) {
	answer, err := d.request(ctx, wire.DeadLetters{Asks: wire.LetterNumbers, Function: function})
	return answer.Numbers, err
}

func (d deadLetters) Read(ctx context.Context, function string, number uint64) (*contract.DeadLetter, error) {
	answer, err := d.request(ctx, wire.DeadLetters{Asks: wire.ReadLetter, Function: function, Number: number})
	return answer.Letter, err
}

func (d deadLetters) Settle(ctx context.Context, function string, number uint64, action contract.DeadLetterAction, body []byte) error {
	_, err := d.request(ctx, wire.DeadLetters{Asks: wire.SettleLetter, Function: function, Number: number, Fate: action, Body: body})
	return err
}

func (d deadLetters) request(ctx context.Context, q wire.DeadLetters) (wire.DeadLetters, error) {
	f, err := d.broker.request(ctx, &wire.Frame{Kind: wire.DeadLetterRequest, Dead: &q})
	if err != nil || f.Dead == nil {
		return wire.DeadLetters{}, err
	}
	return *f.Dead, nil
}
