package functions

import (
	"context"

	"github.com/rabbet-fn/rabbet/events"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func init() {
	faas.OnEvent(&All, "invalidate-cache", invalidateCache[events.ProfileUpdated])
	// faas.Also(invalidateCache[events.OrderPlaced]) for another event
}

// change is an event that makes cached results stale.
type change interface {
	faas.Message
	// CacheTags returns their tags: those of faas.Cached, with their fields filled in.
	CacheTags() []string
}

// invalidateCache invalidates the cached results that a change made stale. It is tried
// again until the cache has confirmed it.
func invalidateCache[E change](ctx context.Context, d *Deps, in E) error {
	return d.Results.Invalidate(ctx, in.CacheTags()...)
}
