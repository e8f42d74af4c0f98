package memory

import (
	"slices"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
	"go.uber.org/zap"
)

// maxDead is how many dead letters are kept per function; the oldest go first.
const maxDead = 1_000

// DeadLetter is an event that a function could not handle.
type DeadLetter struct {
	Function string
	Event    faas.Event // as it was delivered last; Attempt says how often it ran
	Err      *faas.Error
	Worker   string // that ran it last
	First    time.Time
	Last     time.Time
}

// DeadLetters lists what a function could not handle, the oldest first: the
// youngest 1,000 since the broker was made.
func (b *Broker) DeadLetters(function string) []DeadLetter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dead[function])
}

// bury keeps d's event as a dead letter. b.mu is held.
func (b *Broker) bury(d *delivery, err *faas.Error) {
	name := d.message.queue.function.Name
	letters := b.dead[name]
	if len(letters) == maxDead {
		b.cfg.Log.Warn("the oldest dead letter was dropped to make room", zap.String("function", name), zap.String("id", letters[0].Event.ID))
		letters = slices.Delete(letters, 0, 1)
	}
	b.dead[name] = append(letters, DeadLetter{
		Function: name, Event: d.event, Err: err, Worker: d.worker().announcement.Worker,
		First: d.message.first, Last: time.Now(),
	})
}
