package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"go.uber.org/zap"
)

// memcachedStore is a store on one or more Memcached servers. Each has its own
// line and client, so that one that is gone takes nothing but its own keys
// along: they move to no other, which would have older ones when it is back.
type memcachedStore struct{ servers []*memcachedServer }

type memcachedServer struct {
	line   *line
	reader *memcachedReader
	client *memcache.Client // for what is not read
}

func openMemcached(list string, timeout time.Duration, log *zap.Logger) (*memcachedStore, error) {
	s := &memcachedStore{}
	for address := range strings.SplitSeq(strings.TrimSuffix(list, "/"), ",") {
		if address == "" || strings.ContainsAny(address, "/@?") {
			return nil, errors.New("memcached:// takes addresses and nothing else: write memcached://host:11211 or memcached://a,b,c")
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), "11211")
		}
		var selector memcache.ServerList
		if err := selector.SetServers(address); err != nil {
			return nil, fmt.Errorf("memcached://%s: %w: check the names of its hosts", list, err)
		}
		client := memcache.NewFromSelector(&selector)
		client.Timeout = timeout
		client.MaxIdleConns = 64 // 2 by default, and every other call would dial
		reader := newMemcachedReader(address, timeout)
		s.servers = append(s.servers, &memcachedServer{newLine(address, log, reader.fetch), reader, client})
	}
	return s, nil
}

// server returns the one that has key, by the hash that the client would use.
func (s *memcachedStore) server(key string) *memcachedServer {
	if len(s.servers) == 1 {
		return s.servers[0]
	}
	return s.servers[crc32.ChecksumIEEE(bytesOf(key))%uint32(len(s.servers))]
}

func (s *memcachedStore) get(ctx context.Context, keys []string, values [][]byte) error {
	if len(s.servers) == 1 {
		return s.servers[0].line.get(ctx, keys, values)
	}
	return spread(ctx, keys, values, func(key string) (*line, error) { return s.server(key).line, nil })
}

func (s *memcachedStore) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.write(ctx, key, (*line).do, func(client *memcache.Client) error {
		return again(func() error { return client.Set(itemOf(key, value, ttl)) })
	})
}

func (s *memcachedStore) add(ctx context.Context, key string, value []byte, ttl time.Duration) (there []byte, err error) {
	err = s.write(ctx, key, (*line).do, func(client *memcache.Client) error {
		err := client.Add(itemOf(key, value, ttl))
		if err == nil {
			there = value
			return nil
		}
		if !errors.Is(err, memcache.ErrNotStored) {
			return err
		}
		it, err := client.Get(key)
		if errors.Is(err, memcache.ErrCacheMiss) {
			return fmt.Errorf("%w: %w", errUnsettled, err)
		}
		if err != nil {
			return err
		}
		there = it.Value
		return nil
	})
	return there, err
}

func (s *memcachedStore) remove(ctx context.Context, key string, _ bool) error {
	return s.write(ctx, key, (*line).insist, func(client *memcache.Client) error {
		err := again(func() error { return client.Delete(key) })
		if errors.Is(err, memcache.ErrCacheMiss) {
			return nil
		}
		return err
	})
}

// write makes a write to the server that has key. The client knows no ctx: its
// own timeout bounds it.
func (s *memcachedStore) write(ctx context.Context, key string, how lineUse, operation func(*memcache.Client) error) error {
	server := s.server(key)
	return how(server.line, ctx, func() error {
		err := operation(server.client)
		if err != nil && strings.Contains(err.Error(), "SERVER_ERROR") {
			err = fmt.Errorf("%w: %w", errFull, err)
		}
		return err
	})
}

func (s *memcachedStore) close() error {
	var errs []error
	for _, server := range s.servers {
		server.reader.close()
		errs = append(errs, server.client.Close())
	}
	return errors.Join(errs...)
}

// itemOf rounds ttl up to whole seconds; the entry itself knows better.
func itemOf(key string, value []byte, ttl time.Duration) *memcache.Item {
	return &memcache.Item{Key: key, Value: value, Expiration: int32((ttl + time.Second - 1) / time.Second)}
}
