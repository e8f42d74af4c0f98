package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// store keeps bytes under keys of at most 250 bytes of printable ASCII. It may
// lose any of them at any time. What it returns, and what it was given, is not
// changed afterwards.
type store interface {
	// get puts what is stored under keys into values, nil for nothing, in one
	// round trip to each server.
	get(ctx context.Context, keys []string, values [][]byte) error
	// set stores value for ttl, at most 30 days.
	set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// add stores value if there is nothing yet, and returns what is there. It
	// never sends value twice: a copy that arrives late must not bring back what
	// has been removed meanwhile.
	add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error)
	// remove returns nil once nothing is stored under key; nor will be again when
	// a replica takes over, if it is for good.
	remove(ctx context.Context, key string, forGood bool) error
	close() error
}

// errUnsettled is what add fails with if nothing is known of what is there: it
// is none of ours, or came or went that very moment.
var errUnsettled = errors.New("something else came, went or is stored under this key")

// errFull is what a store that works and has no room left fails with.
var errFull = errors.New("the store is full")

// openStore returns the store at url. An operation on it takes little more
// than timeout, even if its ctx allows more.
func openStore(url string, timeout time.Duration, log *zap.Logger) (store, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return nil, errors.New("the cache URL has no scheme: write memory://, redis://host:6379 or memcached://host:11211")
	}
	switch scheme {
	case "memory":
		return openMemory(rest)
	case "memcached":
		return openMemcached(rest, timeout, log)
	}
	if slices.Contains(redisurl.Schemes, scheme) {
		return openRedis(url, timeout, log)
	}
	return nil, fmt.Errorf("cache URL with scheme %q: choose memory, redis, rediss, redis+sentinel, redis+cluster or memcached", scheme)
}

// again repeats an operation whose pooled connection turned out to be dead, as
// all are after the server has started anew. Time that is up stays up.
func again(operation func() error) error {
	for try := 1; ; try++ {
		err := operation()
		if err == nil || try == 3 || !deadConnection(err) {
			return err
		}
	}
}

func deadConnection(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
