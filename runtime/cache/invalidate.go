package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// invalidation is what is broadcast after an invalidation.
type invalidation struct {
	Keys []string `json:"keys"` // of the generations
}

// Invalidate makes sure that no result with one of the tags is served any more
// after it has returned nil; from the in-process levels of other processes, not
// later than LocalBound after that. If it returns an error, the store may not
// have taken the invalidation, and it must be tried again.
func (r *Results) Invalidate(ctx context.Context, tags ...string) error {
	var failed error
	keys := make([]string, len(tags))
	for i, tag := range tags {
		keys[i] = generationKey(r.namespace, tag)
		if err := r.store.Invalidate(ctx, keys[i]); err != nil {
			r.counters.failure(err)
			failed = errors.Join(failed, fmt.Errorf("invalidate %q: the results cache did not take it: %w", tag, err))
		}
	}
	// The store comes first, because a process that receives the broadcast reads
	// it. After an error, too: the store may have taken the invalidation.
	if r.local != nil {
		r.local.invalidate(keys)
	}
	r.broadcast.send(ctx, topicInvalidate, invalidation{keys})
	r.counters.invalidated.Add(uint64(len(tags)))
	return failed
}

// listenForInvalidations invalidates in the in-process level what other processes
// invalidate.
func (r *Results) listenForInvalidations() {
	r.broadcast.listen(topicInvalidate, func(body []byte) {
		var i invalidation
		if json.Unmarshal(body, &i) == nil {
			r.local.invalidate(i.Keys)
		}
	})
}
