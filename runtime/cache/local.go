package cache

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
)

// LocalBound is how stale a result of the in-process level may be: at most this
// long ago it was in the store and had not been invalidated. It is usually much
// less, because invalidations are broadcast.
const LocalBound = 2 * time.Second

// local is the in-process level: entries that this process has read from the
// store. An entry is trusted for a bounded time, while no invalidation of one of
// its tags has arrived and broadcasts are reachable.
//
// An invalidation does not search for entries. It increases the count of its
// tag, and an entry with a lower count is not trusted. That includes an entry
// whose lookup is still in flight: its counts are from before the lookup.
type local struct {
	bound     time.Duration
	entries   *otter.Cache[[sha256.Size]byte, *localEntry]
	counts    [1 << 16]atomic.Uint32 // invalidations by the hash of the tag's key; tags may share one
	seed      maphash.Seed
	broadcast *broadcast
}

// localEntry is an entry that agreed with the store.
type localEntry struct {
	entry      entry.Entry
	counts     []tagCount
	refreshAt  time.Time   // after this, a hit makes the entry be read again
	expiresAt  time.Time   // after this, it is not trusted
	refreshing atomic.Bool // it is being read again
}

// tagCount is how many invalidations of a tag had arrived.
type tagCount struct {
	slot  uint16
	count uint32
}

// localOverhead is about what an entry costs in addition to its body, in bytes.
const localOverhead = 400

func newLocal(size int64, bound time.Duration, b *broadcast) *local {
	return &local{
		bound: bound, seed: maphash.MakeSeed(), broadcast: b,
		entries: otter.Must(&otter.Options[[sha256.Size]byte, *localEntry]{
			MaximumWeight: uint64(size),
			Weigher: func(_ [sha256.Size]byte, e *localEntry) uint32 {
				return uint32(localOverhead + len(e.entry.Body) + len(e.entry.Generations) + 8*len(e.counts))
			},
			ExpiryCalculator: otter.ExpiryWriting[[sha256.Size]byte, *localEntry](bound),
		}),
	}
}

func (l *local) close() {
	l.entries.StopAllGoroutines()
	l.entries.InvalidateAll()
}

// lookupLocally looks for an entry in the in-process level. It returns false if
// the store must be asked.
func (c *call) lookupLocally(ctx context.Context, now time.Time) (lookup, bool) {
	l := c.results.local
	e := l.find(&c.sum, now)
	if e == nil {
		return lookup{}, false
	}
	found := c.evaluateEntry(e.entry, now)
	if found.forward != "" || found.revalidate {
		return lookup{}, false
	}
	if now.After(e.refreshAt) && e.refreshing.CompareAndSwap(false, true) {
		c.refreshLocal(ctx, now)
	}
	c.results.counters.local.Add(1)
	return found, true
}

// refreshLocal reads the entry again in the background, so that no caller waits
// when it expires. If the store does not answer, the entry stays until then.
func (c *call) refreshLocal(ctx context.Context, now time.Time) {
	own := c.clone() // c is reused when its caller has its result
	c.results.background.Go(func() {
		if l := own.lookupInStore(context.WithoutCancel(ctx), now); !l.found && l.forward != forwardBypass {
			own.results.local.entries.Invalidate(own.sum)
		}
	})
}

// find returns the entry with that sum if it may be trusted now, or nil.
func (l *local) find(sum *[sha256.Size]byte, now time.Time) *localEntry {
	e, ok := l.entries.GetIfPresent(*sum)
	if !ok || !now.Before(e.expiresAt) || !l.broadcast.reachable(now) {
		return nil
	}
	for _, t := range e.counts {
		if l.counts[t.slot].Load() != t.count {
			return nil
		}
	}
	return e
}

// observe returns the counts of the tags with those generation keys, for keep. It
// must be called before the store is read.
func (l *local) observe(keys []string) []tagCount {
	counts := make([]tagCount, len(keys))
	for i, key := range keys {
		slot := l.slot(key)
		counts[i] = tagCount{slot, l.counts[slot].Load()}
	}
	return counts
}

// keep keeps an entry that agreed with the store at some time after readAt.
func (l *local) keep(sum *[sha256.Size]byte, e entry.Entry, counts []tagCount, readAt time.Time) {
	l.entries.Set(*sum, &localEntry{entry: e, counts: counts, refreshAt: readAt.Add(l.bound / 2), expiresAt: readAt.Add(l.bound)})
}

// invalidate makes entries with one of the tags with those generation keys
// untrusted.
func (l *local) invalidate(keys []string) {
	for _, key := range keys {
		l.counts[l.slot(key)].Add(1)
	}
}

func (l *local) slot(key string) uint16 { return uint16(maphash.String(l.seed, key)) }
