package functions

import (
	"context"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func init() {
	faas.OnEvent(&All, "invalidate-cache", invalidateCache)
}

// invalidateCache drops the cached results that a change made stale, whoever
// made the change. It is tried again until the cache has taken it.
func invalidateCache(ctx context.Context, d *Deps, in events.ProfileUpdated) error {
	return d.Results.Invalidate(ctx, "profile:"+in.ID)
}
