package memory

import (
	"context"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// feedSize is how many items wait for a slow reader before some are dropped.
const feedSize = 256

// feed hands items to one reader without ever holding the writer up.
type feed[T any] struct {
	items chan T
	ended chan struct{}
	once  sync.Once
}

func newFeed[T any]() *feed[T] {
	return &feed[T]{items: make(chan T, feedSize), ended: make(chan struct{})}
}

// offer drops v when the reader is too slow.
func (f *feed[T]) offer(v T) {
	select {
	case f.items <- v:
	default:
	}
}

// each calls fn with every item until ctx is done or the feed is stopped.
func (f *feed[T]) each(ctx context.Context, fn func(T)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.ended:
			return
		case v := <-f.items:
			fn(v)
		}
	}
}

func (f *feed[T]) stop() { f.once.Do(func() { close(f.ended) }) }

// listeners are the functions of this process that want broadcasts. The zero
// value is ready.
type listeners struct {
	mu      sync.Mutex
	feeds   map[*feed[[]byte]]string // with their topics
	stopped bool
}

// listen calls fn, in a goroutine that ends with stop, with what tell is told.
func (l *listeners) listen(topic string, fn func([]byte)) (stop func()) {
	f := newFeed[[]byte]()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return f.stop
	}
	if l.feeds == nil {
		l.feeds = map[*feed[[]byte]]string{}
	}
	l.feeds[f] = topic
	go f.each(context.Background(), fn)
	return func() {
		f.stop()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.feeds, f)
	}
}

func (l *listeners) tell(topic string, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, pattern := range l.feeds {
		if contract.Match(pattern, topic) {
			f.offer(body)
		}
	}
}

func (l *listeners) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for f := range l.feeds {
		f.stop()
	}
}
