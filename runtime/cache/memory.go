package cache

import (
	"container/list"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is a store in this process: the least recently used goes first when
// it is full.
type memory struct {
	limit int // bytes

	mu    sync.Mutex
	items map[string]*list.Element // of *item
	order list.List                // most recently used first
	size  int
}

type item struct {
	key     string
	value   []byte
	expires time.Time
}

// itemOverhead is about what an item costs beside its key and value.
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
	return &memory{limit: mebibytes << 20, items: map[string]*list.Element{}}, nil
}

func (m *memory) get(_ context.Context, keys []string, values [][]byte) error {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, key := range keys {
		values[i] = m.find(key, now)
	}
	return nil
}

func (m *memory) set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, value, now.Add(ttl))
	return nil
}

func (m *memory) add(_ context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if there := m.find(key, now); there != nil {
		return there, nil
	}
	m.put(key, value, now.Add(ttl))
	return value, nil
}

func (m *memory) close() error { return nil }

// find returns what is stored and alive. m.mu is held, here and below.
func (m *memory) find(key string, now time.Time) []byte {
	e, ok := m.items[key]
	if !ok {
		return nil
	}
	it := e.Value.(*item)
	if !now.Before(it.expires) {
		m.drop(e)
		return nil
	}
	m.order.MoveToFront(e)
	return it.value
}

func (m *memory) put(key string, value []byte, expires time.Time) {
	if e, ok := m.items[key]; ok {
		m.drop(e)
	}
	it := &item{key, value, expires}
	m.items[key] = m.order.PushFront(it)
	m.size += it.weight()
	for m.size > m.limit {
		m.drop(m.order.Back())
	}
}

func (m *memory) drop(e *list.Element) {
	it := m.order.Remove(e).(*item)
	delete(m.items, it.key)
	m.size -= it.weight()
}

func (it *item) weight() int { return itemOverhead + len(it.key) + len(it.value) }
