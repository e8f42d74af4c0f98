package session

import (
	"context"
	"strings"
	"time"
)

// records keeps bytes under keys of printable ASCII, each for a time. A record
// changes only under the eyes of who changes it.
type records interface {
	// find returns the record, nil for none, and lets it live for the idle time from now on.
	find(ctx context.Context, key string) ([]byte, error)
	// swap stores value for ttl if the record still is old, nil for none, and reports whether it was.
	swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error)
	// removeIf removes the record if it still is old, and reports whether it was.
	removeIf(ctx context.Context, key string, old []byte) (bool, error)
	// remove removes the record, if there is one.
	remove(ctx context.Context, key string) error
	close() error
}

func openRecords(url string, cfg Config) (records, error) {
	if strings.HasPrefix(url, "memory://") {
		return &memoryRecords{idle: cfg.Idle, items: map[string]item{}}, nil
	}
	return openRedis(url, cfg)
}
