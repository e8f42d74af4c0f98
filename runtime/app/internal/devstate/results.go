package devstate

import (
	"context"
	"errors"
	"fmt"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Results are the cached results of functions, in this process or another.
type Results interface {
	Invalidate(ctx context.Context, tags ...string) error
	Inspect(ctx context.Context, f *contract.Descriptor, req contract.Call) (cache.Stored, error)
	Close() error
}

// RemoteResults are the results of the 'rabbet dev' that bus reaches.
func RemoteResults(bus faas.Bus) Results { return remoteResults{bus} }

type remoteResults struct{ bus faas.Bus }

func (r remoteResults) Invalidate(ctx context.Context, tags ...string) error {
	if _, err := faas.Call[struct{}](ctx, r.bus, dropResults{tags}); err != nil {
		return fmt.Errorf("invalidate %q: %w", tags, err)
	}
	return nil
}

func (r remoteResults) Inspect(ctx context.Context, f *contract.Descriptor, req contract.Call) (cache.Stored, error) {
	return faas.Call[cache.Stored](ctx, r.bus, showResult{f.Name, string(req.Body)})
}

func (remoteResults) Close() error { return nil }

// NoResults takes the place of Results where nothing is cached.
type NoResults struct{}

// Invalidate does nothing: there is no result.
func (NoResults) Invalidate(context.Context, ...string) error { return nil }

// Inspect fails with what to set.
func (NoResults) Inspect(context.Context, *contract.Descriptor, contract.Call) (cache.Stored, error) {
	return cache.Stored{}, errors.New("results are not cached: set " + config.Prefix + "CACHE_URL to cache them")
}

// Close does nothing.
func (NoResults) Close() error { return nil }
