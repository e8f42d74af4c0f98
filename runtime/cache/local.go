package cache

import (
	"context"
	"crypto/sha256"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// LocalBound is how stale the in-process level may be: what it serves was in
// the store, and had not been invalidated, at most so long ago. Mostly it is
// much less, for invalidations are broadcast.
const LocalBound = 2 * time.Second

// local is the in-process level: what this process has read from the store
// lately. An entry is trusted for a bounded time, as long as none of its tags
// has been heard of and the broadcast of invalidations is in reach.
//
// An invalidation does not look for entries. It marks its tag, and an entry
// that was read before the mark counts no more: one that is still on its way
// into here neither, because it carries the marks from before it was read.
type local struct {
	bound   time.Duration
	entries *otter.Cache[[sha256.Size]byte, *kept]
	marks   [1 << 16]atomic.Uint32 // how often a tag was invalidated; some share one
	seed    maphash.Seed
	news    *news
}

// kept is an entry that agreed with the store.
type kept struct {
	entry  entry
	marks  []mark
	due    time.Time // when to look at the store again, ahead of its end
	end    time.Time
	looked atomic.Bool // somebody does
}

// mark is how often a tag had been invalidated.
type mark struct {
	slot  uint16
	count uint32
}

// keptOverhead is about what an entry costs beside its body, in bytes.
const keptOverhead = 400

func newLocal(size int64, bound time.Duration, n *news) *local {
	return &local{
		bound: bound, seed: maphash.MakeSeed(), news: n,
		entries: otter.Must(&otter.Options[[sha256.Size]byte, *kept]{
			MaximumWeight: uint64(size),
			Weigher: func(_ [sha256.Size]byte, k *kept) uint32 {
				return uint32(keptOverhead + len(k.entry.body) + len(k.entry.generations) + 8*len(k.marks))
			},
			ExpiryCalculator: otter.ExpiryWriting[[sha256.Size]byte, *kept](bound),
		}),
	}
}

func (l *local) close() {
	l.entries.StopAllGoroutines()
	l.entries.InvalidateAll()
}

// find returns what is kept with that sum, nil for nothing that may be trusted now.
func (l *local) find(sum *[sha256.Size]byte, now time.Time) *kept {
	k, ok := l.entries.GetIfPresent(*sum)
	if !ok || !now.Before(k.end) || !l.news.inReach(now) {
		return nil
	}
	for _, m := range k.marks {
		if l.marks[m.slot].Load() != m.count {
			return nil
		}
	}
	return k
}

// observe returns the marks of the tags with those generation keys. It is to
// be called before the store is read, for keep.
func (l *local) observe(keys []string) []mark {
	marks := make([]mark, len(keys))
	for i, key := range keys {
		slot := l.slot(key)
		marks[i] = mark{slot, l.marks[slot].Load()}
	}
	return marks
}

// keep keeps an entry that agreed with the store when it was read, no sooner
// than at that time.
func (l *local) keep(sum *[sha256.Size]byte, e entry, marks []mark, read time.Time) {
	l.entries.Set(*sum, &kept{entry: e, marks: marks, due: read.Add(l.bound / 2), end: read.Add(l.bound)})
}

// drop forgets what has the tags with those generation keys.
func (l *local) drop(keys []string) {
	for _, key := range keys {
		l.marks[l.slot(key)].Add(1)
	}
}

func (l *local) slot(key string) uint16 { return uint16(maphash.String(l.seed, key)) }

// lookLocally judges what this process kept, if it may be trusted. Whatever it
// may not serve is left to the store.
func (c *call) lookLocally(ctx context.Context, now time.Time) (sight, bool) {
	l := c.results.local
	k := l.find(&c.sum, now)
	if k == nil {
		return sight{}, false
	}
	seen := c.judge(k.entry, now)
	if seen.forward != "" || seen.refresh {
		return sight{}, false
	}
	if now.After(k.due) && k.looked.CompareAndSwap(false, true) {
		ahead := c.clone()
		c.results.flights.running.Go(func() {
			// A store that does not answer knows no better: what is kept stays to its end.
			if seen := ahead.lookFarther(context.WithoutCancel(ctx), now); !seen.stored && seen.forward != forwardBypass {
				l.entries.Invalidate(ahead.sum)
			}
		})
	}
	c.results.counts.local.Add(1)
	return seen, true
}
