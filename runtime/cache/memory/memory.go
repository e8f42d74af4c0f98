// Package memory is a store of the results cache in this process, of bounded size:
// what is least likely to be read again is evicted first. It knows nothing of what
// the values mean, and shares them with no other process.
package memory

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

const (
	defaultSize = 64 // MiB
	// itemOverhead is about what an item costs in addition to its key and value, in bytes.
	itemOverhead = 200
)

// memory is bounded by the size of its items. When it is full, otter evicts the
// items that are least likely to be read again.
type memory struct{ items *otter.Cache[string, item] }

type item struct {
	value []byte
	ttl   time.Duration
}

// Open opens an empty store. url is memory:// for at most 64 MiB, or
// memory://?size=256 for another number of MiB.
func Open(url string, _ store.Options) (store.Store, error) {
	size, err := parse(url)
	if err != nil {
		return nil, err
	}
	return &memory{otter.Must(&otter.Options[string, item]{
		MaximumWeight:    uint64(size) << 20,
		Weigher:          func(key string, i item) uint32 { return uint32(itemOverhead + len(key) + len(i.value)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, item]) time.Duration { return e.Value.ttl }),
	})}, nil
}

// parse returns the size that url asks for, in MiB.
func parse(url string) (int, error) {
	options := strings.TrimPrefix(url, "memory://")
	if options == "" {
		return defaultSize, nil
	}
	text, ok := strings.CutPrefix(options, "?size=")
	size, err := strconv.Atoi(text)
	if !ok || err != nil || size < 1 || size > 1<<20 {
		return 0, fmt.Errorf("memory://%s: write memory:// or memory://?size=256 (MiB)", options)
	}
	return size, nil
}

func (m *memory) Get(_ context.Context, keys []string, values [][]byte) error {
	for i, key := range keys {
		found, _ := m.items.GetIfPresent(key)
		values[i] = found.value
	}
	return nil
}

func (m *memory) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	m.items.Set(key, item{value, ttl})
	return nil
}

func (m *memory) Add(_ context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	stored, _ := m.items.SetIfAbsent(key, item{value, ttl})
	return stored.value, nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.items.Invalidate(key)
	return nil
}

func (m *memory) Invalidate(ctx context.Context, key string) error { return m.Delete(ctx, key) }

func (m *memory) Shared() bool { return false }

func (m *memory) Close() error {
	m.items.StopAllGoroutines()
	m.items.InvalidateAll()
	return nil
}
