package redis

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// single is a topology of one server, or of a master that sentinels name.
type single struct{ only *node }

func newSingle(client *redis.Client, o store.Options) *single {
	n := &node{client: client, timeout: o.Timeout, onMoved: func(context.Context) {}}
	n.Server = server.New("redis", o.Log, n.fetch)
	return &single{n}
}

func (s *single) get(ctx context.Context, keys []string, values [][]byte) error {
	return s.only.Get(ctx, keys, values)
}

func (s *single) node(context.Context, string) (*node, error) { return s.only, nil }

// fetch reads keys with one MGET. The timeouts of the client bound it.
func (n *node) fetch(keys []string, values [][]byte) error {
	return server.Retry(func() error {
		found, err := n.client.MGet(context.Background(), keys...).Result()
		if err != nil {
			return err
		}
		if len(found) != len(keys) {
			return fmt.Errorf("redis returned %d values for %d keys", len(found), len(keys))
		}
		for i, v := range found {
			values[i] = nil
			if text, ok := v.(string); ok {
				values[i] = []byte(text)
			}
		}
		return nil
	})
}
