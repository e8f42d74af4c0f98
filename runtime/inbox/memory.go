package inbox

import (
	"context"
	"sync"
	"time"
)

// maxDone is how many keys that are done a Memory knows; the oldest go first.
const maxDone = 100_000

// Memory is a Store in this process, for development: what it knows ends with
// the process. The zero Memory is ready to use.
type Memory struct {
	mu   sync.Mutex
	keys map[string]entry
	done []string // in the order in which they were completed
}

// entry is the state of a key that is not free.
type entry struct {
	token   string // "" when done
	expires time.Time
}

// Claim is Store's.
func (m *Memory) Claim(_ context.Context, key, token string, lease time.Duration) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e, taken := m.keys[key]
	switch {
	case !taken || !now.Before(e.expires) || e.token == token:
		m.put(key, entry{token, now.Add(lease)})
		return Claim{State: Mine}, nil
	case e.token == "":
		return Claim{State: Done}, nil
	}
	return Claim{State: Elsewhere, Left: e.expires.Sub(now)}, nil
}

// Complete is Store's.
func (m *Memory) Complete(_ context.Context, key string, keep time.Duration) error {
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

// Release is Store's.
func (m *Memory) Release(_ context.Context, key, token string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, taken := m.keys[key]; taken && e.token == token {
		delete(m.keys, key)
	}
	return nil
}

// put is m.keys[key] = e. m.mu is held.
func (m *Memory) put(key string, e entry) {
	if m.keys == nil {
		m.keys = map[string]entry{}
	}
	m.keys[key] = e
}
