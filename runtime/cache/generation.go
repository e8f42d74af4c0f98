package cache

import (
	"cmp"
	"context"
	"errors"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// ensureGenerations adds a generation for each tag that has none. It returns
// false if the store fails.
func (c *call) ensureGenerations(ctx context.Context) bool {
	for i := 1; i < len(c.keys); i++ {
		if len(c.values[i]) == entry.GenerationSize {
			continue
		}
		var err error
		if c.values[i], err = c.results.addGeneration(ctx, c.keys[i], c.values[i] != nil); err != nil {
			c.results.counters.failure(err)
			return false
		}
	}
	return true
}

// maxAddTries is how often addGeneration tries.
const maxAddTries = 3

// addGeneration adds a generation under key, unless another process has just done
// so, and returns what is stored. If occupied, there is a value that is no
// generation, and it is deleted first: the loss of a generation is harmless.
// Each try has a value of its own, see store.Store.Add.
func (r *Results) addGeneration(ctx context.Context, key string, occupied bool) ([]byte, error) {
	for try := 1; ; try++ {
		if occupied {
			if err := r.store.Delete(ctx, key); err != nil {
				return nil, err
			}
		}
		stored, err := r.store.Add(ctx, key, entry.NewGeneration(), store.MaxTTL)
		if err == nil && len(stored) == entry.GenerationSize {
			return stored, nil
		}
		occupied = err == nil || errors.Is(err, store.ErrConflict)
		if try == maxAddTries || !occupied && !store.IsConnectionLost(err) {
			return nil, cmp.Or(err, store.ErrConflict)
		}
	}
}
