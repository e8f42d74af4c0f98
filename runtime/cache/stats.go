package cache

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Stats count what has become of the cached calls of a process since its start.
type Stats struct {
	Process string `json:"process"`

	Hits      uint64 `json:"hits"`      // answered without running the function; includes Local and Stale
	Local     uint64 `json:"local"`     // hits of the in-process level
	Stale     uint64 `json:"stale"`     // hits with a result that was no longer fresh
	Misses    uint64 `json:"misses"`    // no usable result was stored; includes Collapsed
	Collapsed uint64 `json:"collapsed"` // misses that waited for an equal call
	Bypasses  uint64 `json:"bypasses"`  // could not be cached, or the store did not answer
	Fills     uint64 `json:"fills"`     // results and failures that were stored
	Errors    uint64 `json:"errors"`    // operations on the store that failed

	Invalidated uint64 `json:"invalidated"` // tags, by this process

	Read    uint64 `json:"read"`    // bytes of entries, as stored
	Written uint64 `json:"written"` // bytes of entries, as stored

	LocalBytes uint64 `json:"localBytes"` // what the in-process level holds now
	LocalSize  uint64 `json:"localSize"`  // what it may hold; 0 if there is none
	LocalOn    bool   `json:"localOn"`    // whether it is trusted now: broadcasts arrive
}

// counters are the counts in Stats.
type counters struct {
	hits, local, stale, misses, collapsed, bypasses, fills, errors, invalidated, read, written atomic.Uint64
}

// Stats returns what has been counted so far.
func (r *Results) Stats() Stats {
	n := &r.counters
	s := Stats{
		Process: r.process,
		Hits:    n.hits.Load(), Local: n.local.Load(), Stale: n.stale.Load(), Misses: n.misses.Load(),
		Collapsed: n.collapsed.Load(), Bypasses: n.bypasses.Load(), Fills: n.fills.Load(), Errors: n.errors.Load(),
		Invalidated: n.invalidated.Load(), Read: n.read.Load(), Written: n.written.Load(),
	}
	if l := r.local; l != nil {
		s.LocalBytes, s.LocalSize, s.LocalOn = l.entries.WeightedSize(), l.entries.GetMaximum(), r.broadcast.reachable(time.Now())
	}
	return s
}

// result counts how a call went.
func (n *counters) result(r *contract.CacheResult) {
	switch {
	case r.Hit:
		n.hits.Add(1)
		if r.TTL < 0 {
			n.stale.Add(1)
		}
	case r.Forward == forwardBypass:
		n.bypasses.Add(1)
	default:
		n.misses.Add(1)
		if r.Collapsed {
			n.collapsed.Add(1)
		}
	}
}

// failure counts an operation that failed, if it was tried and err is not nil.
func (n *counters) failure(err error) {
	if err != nil && !errors.Is(err, store.ErrCircuitOpen) {
		n.errors.Add(1)
	}
}

// answerStats broadcasts the Stats whenever they are requested.
func (r *Results) answerStats() {
	r.broadcast.listen(topicStatsRequest, func([]byte) { r.broadcast.send(context.Background(), topicStats, r.Stats()) })
}

// maxProcesses is how many processes AskStats has room for.
const maxProcesses = 1000

// AskStats requests the Stats of all processes. It returns those that arrive
// until ctx ends, sorted by process.
func AskStats(ctx context.Context, over Broadcaster) ([]Stats, error) {
	received := make(chan Stats, maxProcesses)
	stop := over.Listen(topicStats, func(body []byte) {
		var s Stats
		if json.Unmarshal(body, &s) == nil {
			select {
			case received <- s:
			default:
			}
		}
	})
	defer stop()
	if err := over.Broadcast(ctx, topicStatsRequest, nil); err != nil {
		return nil, err
	}
	all := map[string]Stats{}
	for {
		select {
		case s := <-received:
			all[s.Process] = s
		case <-ctx.Done():
			return slices.SortedFunc(maps.Values(all), func(a, b Stats) int { return strings.Compare(a.Process, b.Process) }), nil
		}
	}
}
