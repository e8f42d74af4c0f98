// Package memory is a store of the inbox in this process, for development: its keys
// are lost when the process ends.
package memory

import (
	"context"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// maxDone is how many keys that are done a Store has; the oldest are dropped first.
const maxDone = 100_000

// Store is a store.Store in this process. The zero value is an empty store.
type Store struct {
	mu   sync.Mutex
	keys map[string]entry
	done []string // in order of completion
}

// entry is the state of a key that is not free.
type entry struct {
	token   string // "" when done
	expires time.Time
}

// Claim implements store.Store.
func (m *Store) Claim(_ context.Context, key, token string, lease time.Duration) (store.Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e, taken := m.keys[key]
	switch {
	case !taken || !now.Before(e.expires) || e.token == token:
		m.put(key, entry{token, now.Add(lease)})
		return store.Claim{State: store.Mine}, nil
	case e.token == "":
		return store.Claim{State: store.Done}, nil
	}
	return store.Claim{State: store.Elsewhere, Left: e.expires.Sub(now)}, nil
}

// Complete implements store.Store.
func (m *Store) Complete(_ context.Context, key string, keep time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, taken := m.keys[key]; !taken || e.token != "" {
		m.done = append(m.done, key)
	}
	m.put(key, entry{"", time.Now().Add(keep)})
	if len(m.done) > maxDone {
		if oldest := m.done[0]; m.keys[oldest].token == "" {
			delete(m.keys, oldest)
		}
		m.done = m.done[1:]
	}
	return nil
}

// Release implements store.Store.
func (m *Store) Release(_ context.Context, key, token string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, taken := m.keys[key]; taken && e.token == token {
		delete(m.keys, key)
	}
	return nil
}

// DataLossRisk implements store.Store.
func (m *Store) DataLossRisk(context.Context) string { return "" }

// Close implements store.Store.
func (m *Store) Close() error { return nil }

// put sets the state of a key. The caller must hold m.mu.
func (m *Store) put(key string, e entry) {
	if m.keys == nil {
		m.keys = map[string]entry{}
	}
	m.keys[key] = e
}
