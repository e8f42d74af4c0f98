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

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Stats count what a process's cached calls came to, since it began.
type Stats struct {
	Process string `json:"process"`

	Hits      uint64 `json:"hits"`      // answered without running the function, those below included
	Local     uint64 `json:"local"`     // by the in-process level
	Stale     uint64 `json:"stale"`     // with a result that was no longer fresh
	Misses    uint64 `json:"misses"`    // nothing to serve was stored
	Collapsed uint64 `json:"collapsed"` // misses that waited for the same call of another
	Bypasses  uint64 `json:"bypasses"`  // could not be cached, or the store did not answer
	Fills     uint64 `json:"fills"`     // results and failures stored
	Errors    uint64 `json:"errors"`    // operations that the store failed

	Invalidated uint64 `json:"invalidated"` // tags, by this process

	Read    uint64 `json:"read"`    // bytes of entries, as stored
	Written uint64 `json:"written"` // bytes of entries, as stored

	LocalBytes uint64 `json:"localBytes"` // what the in-process level holds now
	LocalSize  uint64 `json:"localSize"`  // what it may hold; 0: there is none
	LocalOn    bool   `json:"localOn"`    // it is trusted now: broadcasts of invalidations are heard
}

// counters are the moving part of Stats.
type counters struct {
	hits, local, stale, misses, collapsed, bypasses, fills, errors, invalidated, read, written atomic.Uint64
}

// Stats returns what has been counted so far.
func (r *Results) Stats() Stats {
	n := &r.counts
	s := Stats{
		Process: r.process,
		Hits:    n.hits.Load(), Local: n.local.Load(), Stale: n.stale.Load(), Misses: n.misses.Load(),
		Collapsed: n.collapsed.Load(), Bypasses: n.bypasses.Load(), Fills: n.fills.Load(), Errors: n.errors.Load(),
		Invalidated: n.invalidated.Load(), Read: n.read.Load(), Written: n.written.Load(),
	}
	if l := r.local; l != nil {
		s.LocalBytes, s.LocalSize, s.LocalOn = l.entries.WeightedSize(), l.entries.GetMaximum(), r.news.inReach(time.Now())
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

// failure counts an operation that was made in vain.
func (n *counters) failure(err error) {
	if err != nil && !errors.Is(err, errShut) {
		n.errors.Add(1)
	}
}

// answerStats tells whoever asks over the broadcast.
func (r *Results) answerStats() {
	r.news.listen(topicAsk, func([]byte) { r.news.tell(context.Background(), topicStats, r.Stats()) })
}

// AskStats returns the Stats of every process that answers within the patience
// of ctx.
func AskStats(ctx context.Context, over Broadcaster) ([]Stats, error) {
	heard := make(chan Stats, 1000)
	stop := over.Listen(topicStats, func(body []byte) {
		var s Stats
		if json.Unmarshal(body, &s) == nil {
			select {
			case heard <- s:
			default: // more processes than anybody has
			}
		}
	})
	defer stop()
	if err := over.Broadcast(ctx, topicAsk, nil); err != nil {
		return nil, err
	}
	all := map[string]Stats{}
	for {
		select {
		case s := <-heard:
			all[s.Process] = s
		case <-ctx.Done():
			return slices.SortedFunc(maps.Values(all), func(a, b Stats) int { return strings.Compare(a.Process, b.Process) }), nil
		}
	}
}
