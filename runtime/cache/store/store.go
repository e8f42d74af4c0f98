// Package store defines what the results cache needs of a store, and opens
// stores by the scheme of their URL. It knows no particular store and nothing of
// what is stored: cache/redis, cache/memcached and cache/memory are stores, and
// cache/storetest is the test suite that every store must pass.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// MaxTTL is the longest time that a value is stored for. Memcached takes a
// longer one for a date.
const MaxTTL = 30 * 24 * time.Hour

// A Store keeps values under keys. It is safe for concurrent use.
//
// Keys are at most 250 bytes of printable ASCII without spaces. A store may lose
// any value at any time, but it must never return a value that was deleted or
// replaced before the read began. Neither the store nor its caller modifies a
// value after it was passed to a method or returned by one.
//
// An operation ends within a small multiple of Options.Timeout, even if its ctx
// allows more. A store that cannot be reached returns errors; it never blocks.
type Store interface {
	// Get fills values with what is stored under keys, in the same order: nil
	// where nothing is stored. It makes one round trip to each server involved.
	// After an error, the contents of values are undefined.
	Get(ctx context.Context, keys []string, values [][]byte) error

	// Set stores value for ttl, at most MaxTTL. It fails with ErrFull if the
	// store works but has no room for value.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// Add stores value for ttl if nothing is stored under key, and returns what
	// is stored then. It fails with ErrConflict if that is unknown.
	//
	// Add sends value at most once. A repeated request could arrive late and
	// restore a value that was deleted in the meantime.
	Add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error)

	// Delete removes what is stored under key, if anything is.
	Delete(ctx context.Context, key string) error

	// Invalidate is Delete for a caller that depends on it. It tries even if
	// earlier operations failed, and it returns nil only when the value cannot
	// come back because a replica takes over.
	Invalidate(ctx context.Context, key string) error

	// Shared reports whether other processes read and write the same values.
	Shared() bool

	// Close frees the connections. No other method may be running or called later.
	Close() error
}

var (
	// ErrCircuitOpen means that the server was not asked, because it has failed
	// several times in a row.
	ErrCircuitOpen = errors.New("the store has failed several times in a row: its circuit breaker is open")

	// ErrConflict is returned by Add if a value was stored or removed at the same
	// moment, or if the key holds something that is not a plain value.
	ErrConflict = errors.New("another value was stored or removed under this key at the same time")

	// ErrFull means that the store works, but has no room.
	ErrFull = errors.New("the store is full")
)

// IsConnectionLost reports whether err says that the server closed a connection.
// After a restart of the server this is true for all pooled connections, and a
// second try is worthwhile. It is false for a timeout.
func IsConnectionLost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// DefaultTimeout is the default of Options.Timeout.
const DefaultTimeout = 100 * time.Millisecond

// Options configure a store. The zero value is useful.
type Options struct {
	// Timeout bounds a round trip to a server; DefaultTimeout if zero.
	Timeout time.Duration
	// Log receives one message when a server fails and one when it works again;
	// nothing is logged if it is nil.
	Log *zap.Logger
}

// WithDefaults returns o with its defaults filled in.
func (o Options) WithDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

// An OpenFunc opens the store at url. It does not connect: a store that cannot
// be reached fails later, operation by operation. Its errors never contain the
// password of url.
type OpenFunc func(url string, o Options) (Store, error)

// Schemes maps the schemes of URLs to the functions that open their stores.
type Schemes map[string]OpenFunc

// Open opens the store at url.
func (s Schemes) Open(url string, o Options) (Store, error) {
	scheme, _, ok := strings.Cut(url, "://")
	if !ok {
		return nil, errors.New("the cache URL has no scheme: write memory://, redis://host:6379 or memcached://host:11211")
	}
	open, ok := s[scheme]
	if !ok {
		return nil, fmt.Errorf("cache URL with scheme %q: choose one of %s", scheme, strings.Join(slices.Sorted(maps.Keys(s)), ", "))
	}
	return open(url, o)
}
