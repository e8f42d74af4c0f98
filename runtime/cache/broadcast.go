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

// A Broadcaster sends messages to all processes of a namespace, including this
// one. A rabbit.Broker is one, and a memory.Broker.
type Broadcaster interface {
	// Broadcast returns nil if the message was sent. It may not reach every process.
	Broadcast(ctx context.Context, topic string, body []byte) error
	// Listen calls fn with each message on topic until stop is called.
	Listen(topic string, fn func(body []byte)) (stop func())
}

// The topics of the messages between the caches of a namespace.
const (
	topicInvalidate   = "cache.invalidate" // an invalidation
	topicHeartbeat    = "cache.beat"       // a heartbeat
	topicStatsRequest = "cache.ask"        // a request for the Stats of every process
	topicStats        = "cache.stats"      // Stats
)

// A process with an in-process level sends a heartbeat every heartbeatInterval.
// It trusts the level only while it has received one that was sent within the
// last heartbeatTimeout.
const (
	heartbeatInterval = time.Second
	heartbeatTimeout  = 3 * time.Second
)

// heartbeat shows a process that it receives broadcasts: its own one arrives.
type heartbeat struct {
	From string        `json:"from"`
	Sent time.Duration `json:"sent"` // since the start of that process
}

// broadcast is the connection to the other processes of the namespace.
type broadcast struct {
	over    Broadcaster // nil: none
	log     *zap.Logger
	id      string // of this process, in heartbeats
	started time.Time
	timeout time.Duration
	latest  atomic.Int64 // when the latest heartbeat that arrived was sent: a time.Duration since started
	stops   []func()
	beating sync.WaitGroup
}

func newBroadcast(cfg Config, log *zap.Logger) *broadcast {
	b := &broadcast{over: cfg.Broadcast, log: log, id: contract.NewID(), started: time.Now(), timeout: cmp.Or(cfg.heartbeatTimeout, heartbeatTimeout)}
	b.latest.Store(int64(-b.timeout)) // none yet
	return b
}

// startHeartbeat sends heartbeats, and listens for them, until close is called.
func (b *broadcast) startHeartbeat(interval time.Duration) {
	b.listen(topicHeartbeat, func(body []byte) {
		var h heartbeat
		if json.Unmarshal(body, &h) == nil && h.From == b.id {
			b.latest.Store(int64(h.Sent))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	b.stops = append(b.stops, cancel)
	b.beating.Go(func() { // ends with close
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			b.send(ctx, topicHeartbeat, heartbeat{b.id, time.Since(b.started)})
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
}

// reachable reports whether broadcasts have arrived lately.
func (b *broadcast) reachable(now time.Time) bool {
	return now.Sub(b.started)-time.Duration(b.latest.Load()) < b.timeout
}

// send broadcasts message as JSON. An error is not returned: a process that does
// not receive the message is stale for LocalBound at most.
func (b *broadcast) send(ctx context.Context, topic string, message any) {
	if b.over == nil {
		return
	}
	body, err := json.Marshal(message)
	if err == nil {
		err = b.over.Broadcast(ctx, topic, body)
	}
	if err != nil {
		b.log.Debug("broadcast failed", zap.String("topic", topic), zap.Error(err))
	}
}

// listen calls fn with each message on topic until close is called.
func (b *broadcast) listen(topic string, fn func(body []byte)) {
	if b.over != nil {
		b.stops = append(b.stops, b.over.Listen(topic, fn))
	}
}

func (b *broadcast) close() {
	for _, stop := range b.stops {
		stop()
	}
	b.beating.Wait()
}
