// Package memory is a store of sessions in this process, for development: its
// sessions are lost when the process ends.
package memory

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// sweepInterval is how often expired records are deleted, when a record is stored.
const sweepInterval = time.Minute

// Store is a store.Store in this process. Its size is not bounded: records are
// deleted only after they have expired. The zero value is an empty store.
type Store struct {
	mu      sync.Mutex
	records map[string]record
	swept   time.Time
}

type record struct {
	value   []byte
	expires time.Time
}

// Find implements store.Store.
func (m *Store) Find(_ context.Context, key string, idle time.Duration) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value := m.value(key)
	if value != nil {
		m.records[key] = record{value, time.Now().Add(idle)}
	}
	return value, nil
}

// Swap implements store.Store.
func (m *Store) Swap(_ context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	if !equal(m.value(key), old) {
		return false, nil
	}
	if m.records == nil {
		m.records = map[string]record{}
	}
	m.records[key] = record{value, time.Now().Add(ttl)}
	return true, nil
}

// DeleteIf implements store.Store.
func (m *Store) DeleteIf(_ context.Context, key string, old []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !equal(m.value(key), old) {
		return false, nil
	}
	delete(m.records, key)
	return true, nil
}

// Delete implements store.Store.
func (m *Store) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, key)
	return nil
}

// Close implements store.Store.
func (m *Store) Close() error { return nil }

// value returns the record, or nil if there is none. The caller must hold m.mu.
func (m *Store) value(key string) []byte {
	r, found := m.records[key]
	if !found || !time.Now().Before(r.expires) {
		return nil
	}
	return r.value
}

// sweep deletes expired records at an interval. The caller must hold m.mu.
func (m *Store) sweep() {
	now := time.Now()
	if now.Sub(m.swept) < sweepInterval {
		return
	}
	m.swept = now
	for key, r := range m.records {
		if !now.Before(r.expires) {
			delete(m.records, key)
		}
	}
}

func equal(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
