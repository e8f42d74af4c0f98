package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Broadcaster tells all processes of a namespace something, this one included:
// a rabbit.Broker is one, and a memory.Broker.
type Broadcaster interface {
	// Broadcast fails, or it has been sent; not everybody need hear it.
	Broadcast(ctx context.Context, topic string, body []byte) error
	// Listen calls fn with what is broadcast on topic until stop is called.
	Listen(topic string, fn func(body []byte)) (stop func())
}

// What the caches of a namespace tell each other.
const (
	topicInvalidate = "cache.invalidate" // an invalidation
	topicBeat       = "cache.beat"       // a beat
	topicAsk        = "cache.ask"        // wants every process's Stats
	topicStats      = "cache.stats"      // Stats
)

type invalidation struct {
	Keys []string `json:"keys"` // of the generations
}

// beat is how a process finds out whether it hears broadcasts: by its own.
type beat struct {
	From string        `json:"from"`
	Sent time.Duration `json:"sent"` // since that one began
}

// A process with an in-process level beats every beatInterval, and trusts that
// level only while it has heard a beat of the last beatLapse.
const (
	beatInterval = time.Second
	beatLapse    = 3 * time.Second
)

// news is what this process hears of the others.
type news struct {
	from  Broadcaster // nil: nothing
	log   *zap.Logger
	id    string // its own
	began time.Time
	lapse time.Duration
	heard atomic.Int64 // when the latest own beat that was heard was sent: a time.Duration since it began
	stops []func()
	beats sync.WaitGroup
}

func newNews(cfg Config, log *zap.Logger) *news {
	n := &news{from: cfg.Broadcast, log: log, id: contract.NewID(), began: time.Now(), lapse: cmp.Or(cfg.lapse, beatLapse)}
	n.heard.Store(int64(-n.lapse)) // nothing yet
	return n
}

func (n *news) listen(topic string, fn func(body []byte)) {
	if n.from != nil {
		n.stops = append(n.stops, n.from.Listen(topic, fn))
	}
}

// inReach reports whether broadcasts have been heard lately.
func (n *news) inReach(now time.Time) bool {
	return now.Sub(n.began)-time.Duration(n.heard.Load()) < n.lapse
}

// tell broadcasts what. Whoever does not hear it is stale for LocalBound at the most.
func (n *news) tell(ctx context.Context, topic string, what any) {
	if n.from == nil {
		return
	}
	body, err := json.Marshal(what)
	if err == nil {
		err = n.from.Broadcast(ctx, topic, body)
	}
	if err != nil {
		n.log.Debug("not broadcast", zap.String("topic", topic), zap.Error(err))
	}
}

// beatUntilClosed beats, and listens to that.
func (n *news) beatUntilClosed(interval time.Duration) {
	n.listen(topicBeat, func(body []byte) {
		var b beat
		if json.Unmarshal(body, &b) == nil && b.From == n.id {
			n.heard.Store(int64(b.Sent))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.stops = append(n.stops, cancel)
	n.beats.Go(func() { // ends with close
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			n.tell(ctx, topicBeat, beat{n.id, time.Since(n.began)})
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
}

func (n *news) close() {
	for _, stop := range n.stops {
		stop()
	}
	n.beats.Wait()
}
