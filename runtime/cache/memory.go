package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

// memory is a store in this process. When it is full, what is least likely to
// be asked for again goes first.
type memory struct{ items *otter.Cache[string, item] }

type item struct {
	value []byte
	ttl   time.Duration
}

// itemOverhead is about what an item costs beside its key and value, in bytes.
const itemOverhead = 200

func openMemory(options string) (*memory, error) {
	mebibytes := 64
	if options != "" {
		size, ok := strings.CutPrefix(options, "?size=")
		n, err := strconv.Atoi(size)
		if !ok || err != nil || n < 1 || n > 1<<20 {
			return nil, fmt.Errorf("memory://%s: write memory:// or memory://?size=256 (MiB)", options)
		}
		mebibytes = n
	}
	return &memory{otter.Must(&otter.Options[string, item]{
		MaximumWeight:    uint64(mebibytes) << 20,
		Weigher:          func(key string, i item) uint32 { return uint32(itemOverhead + len(key) + len(i.value)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, item]) time.Duration { return e.Value.ttl }),
	})}, nil
}

func (m *memory) get(_ context.Context, keys []string, values [][]byte) error {
	for i, key := range keys {
		found, _ := m.items.GetIfPresent(key)
		values[i] = found.value
	}
	return nil
}

func (m *memory) set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	m.items.Set(key, item{value, ttl})
	return nil
}

func (m *memory) add(_ context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	there, _ := m.items.SetIfAbsent(key, item{value, ttl})
	return there.value, nil
}

func (m *memory) remove(_ context.Context, key string, _ bool) error {
	m.items.Invalidate(key)
	return nil
}

func (m *memory) close() error {
	m.items.StopAllGoroutines()
	m.items.InvalidateAll()
	return nil
}
