package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// memcachedStore is a store on one or more Memcached servers. The client knows
// no ctx: its own timeout bounds each operation.
type memcachedStore struct{ client *memcache.Client }

func openMemcached(list string, timeout time.Duration) (*memcachedStore, error) {
	var servers []string
	for address := range strings.SplitSeq(strings.TrimSuffix(list, "/"), ",") {
		if address == "" || strings.ContainsAny(address, "/@?") {
			return nil, errors.New("memcached:// takes addresses and nothing else: write memcached://host:11211 or memcached://a,b,c")
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), "11211")
		}
		servers = append(servers, address)
	}
	var selector memcache.ServerList
	if err := selector.SetServers(servers...); err != nil {
		return nil, fmt.Errorf("memcached://%s: %w: check the names of its hosts", list, err)
	}
	client := memcache.NewFromSelector(&selector)
	client.Timeout = timeout
	client.MaxIdleConns = 256 // 2 by default, and every other call would dial
	return &memcachedStore{client}, nil
}

func (s *memcachedStore) get(ctx context.Context, keys []string, values [][]byte) error {
	return again(ctx, func() error {
		found, err := s.client.GetMulti(keys)
		if err != nil {
			return err
		}
		for i, key := range keys {
			values[i] = nil
			if it := found[key]; it != nil {
				values[i] = it.Value
			}
		}
		return nil
	})
}

func (s *memcachedStore) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return again(ctx, func() error { return s.client.Set(itemOf(key, value, ttl)) })
}

func (s *memcachedStore) add(ctx context.Context, key string, value []byte, ttl time.Duration) (there []byte, err error) {
	err = again(ctx, func() error {
		err := s.client.Add(itemOf(key, value, ttl))
		if err == nil {
			there = value
			return nil
		}
		if !errors.Is(err, memcache.ErrNotStored) {
			return err
		}
		it, err := s.client.Get(key)
		if err != nil {
			return err
		}
		there = it.Value
		return nil
	})
	return there, err
}

func (s *memcachedStore) close() error { return s.client.Close() }

// itemOf rounds ttl up to whole seconds; the entry itself knows better.
func itemOf(key string, value []byte, ttl time.Duration) *memcache.Item {
	return &memcache.Item{Key: key, Value: value, Expiration: int32((ttl + time.Second - 1) / time.Second)}
}

// again repeats an operation whose pooled connection turned out to be dead, as
// all are after the server has started anew. Time that is up stays up.
func again(ctx context.Context, operation func() error) error {
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := operation()
		if err == nil || try == 3 || !deadConnection(err) {
			return err
		}
	}
}

func deadConnection(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
