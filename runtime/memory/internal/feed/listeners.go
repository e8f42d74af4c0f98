package feed

import (
	"context"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Listeners are the functions in this process that receive broadcasts. The zero
// value has none and is ready to use. Its methods are safe for concurrent use.
type Listeners struct {
	mu      sync.Mutex
	topics  map[*Feed[[]byte]]string // the pattern of each listener
	stopped bool
}

// Listen calls fn, in a goroutine of its own, with every broadcast whose topic
// matches the pattern, one at a time, until stop is called.
func (l *Listeners) Listen(pattern string, fn func(body []byte)) (stop func()) {
	f := New[[]byte]()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return f.Stop
	}
	if l.topics == nil {
		l.topics = map[*Feed[[]byte]]string{}
	}
	l.topics[f] = pattern
	go f.Each(context.Background(), fn) // ends with stop, or with Stop
	return func() {
		f.Stop()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.topics, f)
	}
}

// Broadcast passes body to every listener whose pattern matches topic. It never
// blocks: a listener that is too slow misses it.
func (l *Listeners) Broadcast(topic string, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, pattern := range l.topics {
		if contract.Match(pattern, topic) {
			f.Offer(body)
		}
	}
}

// Stop stops all listeners, and those that are added later.
func (l *Listeners) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for f := range l.topics {
		f.Stop()
	}
}
