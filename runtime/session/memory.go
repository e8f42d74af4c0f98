package session

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// sweepInterval is how often what has expired is thrown out, when something is stored.
const sweepInterval = time.Minute

// memoryRecords is records in this process, for development: nothing bounds them but time.
type memoryRecords struct {
	idle time.Duration

	mu    sync.Mutex
	items map[string]item
	swept time.Time
}

type item struct {
	value   []byte
	expires time.Time
}

func (m *memoryRecords) find(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value := m.value(key)
	if value != nil {
		m.items[key] = item{value, time.Now().Add(m.idle)}
	}
	return value, nil
}

func (m *memoryRecords) swap(_ context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	if !same(m.value(key), old) {
		return false, nil
	}
	m.items[key] = item{value, time.Now().Add(ttl)}
	return true, nil
}

func (m *memoryRecords) removeIf(_ context.Context, key string, old []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !same(m.value(key), old) {
		return false, nil
	}
	delete(m.items, key)
	return true, nil
}

func (m *memoryRecords) remove(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.items, key)
	return nil
}

func (m *memoryRecords) close() error { return nil }

// value is what is stored and alive. m.mu is held, here and below.
func (m *memoryRecords) value(key string) []byte {
	it, found := m.items[key]
	if !found || !time.Now().Before(it.expires) {
		return nil
	}
	return it.value
}

func (m *memoryRecords) sweep() {
	now := time.Now()
	if now.Sub(m.swept) < sweepInterval {
		return
	}
	m.swept = now
	for key, it := range m.items {
		if !now.Before(it.expires) {
			delete(m.items, key)
		}
	}
}

func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
