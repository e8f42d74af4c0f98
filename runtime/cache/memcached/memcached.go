// Package memcached is a store of the results cache on one or more Memcached
// servers, among which it distributes the keys. It knows commands and servers, and
// nothing of what the values mean.
package memcached

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

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// cluster is one or more Memcached servers. A server that fails takes only its
// own keys along: they do not move to another server, which would return older
// values when the failed one is back.
type cluster struct{ nodes []*node }

// node is one server. Its client knows no other.
type node struct {
	*server.Server
	client *memcache.Client
}

// maxIdle is how many idle connections to a server are kept. The default of the
// client, 2, makes it dial for almost every call under load.
const maxIdle = 64

// Open opens a store on the servers at url, memcached://a:11211,b,c. All
// processes must name the same servers in the same order.
//
// The client does not take a ctx: its own timeout bounds an operation.
func Open(url string, o store.Options) (store.Store, error) {
	o = o.WithDefaults()
	c := &cluster{}
	for address := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(url, "memcached://"), "/"), ",") {
		if address == "" || strings.ContainsAny(address, "/@?") {
			return nil, errors.New("memcached:// takes addresses and nothing else: write memcached://host:11211 or memcached://a,b,c")
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), "11211")
		}
		n, err := newNode(address, o.Timeout, o.Log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: check the host names", url, err)
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

func newNode(address string, timeout time.Duration, log *zap.Logger) (*node, error) {
	var selector memcache.ServerList
	if err := selector.SetServers(address); err != nil {
		return nil, err
	}
	n := &node{client: memcache.NewFromSelector(&selector)}
	n.client.Timeout, n.client.MaxIdleConns = timeout, maxIdle
	n.Server = server.New(address, log, n.fetch)
	return n, nil
}

func (c *cluster) Get(ctx context.Context, keys []string, values [][]byte) error {
	if len(c.nodes) == 1 {
		return c.nodes[0].Get(ctx, keys, values)
	}
	return server.GetFromAll(ctx, keys, values, func(key string) (*server.Server, error) { return c.node(key).Server, nil })
}

func (c *cluster) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	n := c.node(key)
	return n.Do(ctx, func() error {
		return n.retry(func() error { return n.client.Set(item(key, value, ttl)) })
	})
}

func (c *cluster) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (stored []byte, err error) {
	n := c.node(key)
	err = n.Do(ctx, func() error {
		stored, err = n.add(item(key, value, ttl))
		return err
	})
	return stored, err
}

func (c *cluster) Delete(ctx context.Context, key string) error {
	n := c.node(key)
	return n.Do(ctx, func() error { return n.delete(key) })
}

func (c *cluster) Invalidate(ctx context.Context, key string) error {
	n := c.node(key)
	return n.DoAlways(ctx, func() error { return n.delete(key) })
}

func (c *cluster) Shared() bool { return true }

func (c *cluster) Close() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.client.Close())
	}
	return errors.Join(errs...)
}

// node returns the server of key, by the hash that most clients use.
func (c *cluster) node(key string) *node {
	return c.nodes[crc32.ChecksumIEEE([]byte(key))%uint32(len(c.nodes))]
}

// fetch reads keys with one get command.
func (n *node) fetch(keys []string, values [][]byte) error {
	return n.retry(func() error {
		items, err := n.client.GetMulti(keys)
		if err != nil {
			return err
		}
		for i, key := range keys {
			values[i] = nil
			if it, ok := items[key]; ok {
				values[i] = it.Value
			}
		}
		return nil
	})
}

// add adds it once, and returns what is stored then.
func (n *node) add(it *memcache.Item) ([]byte, error) {
	err := n.check(n.client.Add(it))
	if err == nil {
		return it.Value, nil
	}
	if !errors.Is(err, memcache.ErrNotStored) {
		return nil, err
	}
	stored, err := n.client.Get(it.Key)
	if errors.Is(err, memcache.ErrCacheMiss) {
		return nil, fmt.Errorf("%w: %w", store.ErrConflict, err)
	}
	if err != nil {
		return nil, n.check(err)
	}
	return stored.Value, nil
}

func (n *node) delete(key string) error {
	err := n.retry(func() error { return n.client.Delete(key) })
	if errors.Is(err, memcache.ErrCacheMiss) {
		return nil
	}
	return err
}

func (n *node) retry(operation func() error) error {
	return server.Retry(func() error { return n.check(operation()) })
}

// check closes all idle connections after one was lost: the others are lost too
// after a restart of the server. It recognizes a server that is full.
func (n *node) check(err error) error {
	switch {
	case err == nil:
		return nil
	case store.IsConnectionLost(err):
		_ = n.client.Close() // the client may still be used, and dials again
	case strings.Contains(err.Error(), "SERVER_ERROR"):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// item rounds ttl up to whole seconds, because a ttl of 0 is none.
func item(key string, value []byte, ttl time.Duration) *memcache.Item {
	return &memcache.Item{Key: key, Value: value, Expiration: int32((ttl + time.Second - 1) / time.Second)}
}
