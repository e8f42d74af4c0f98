package cache

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Broker returns a broker that makes calls through r, for the calls between
// functions: dir says which functions are cached. Everything else is left to next.
func (r *Results) Broker(next contract.Broker, dir *contract.Directory) contract.Broker {
	return &broker{Broker: next, results: r, directory: dir}
}

type broker struct {
	contract.Broker
	results   *Results
	directory *contract.Directory
}

func (b *broker) Call(ctx context.Context, req contract.Call) (contract.Reply, error) {
	name := req.Function
	if name == "" {
		name = req.Key
	}
	f, ok := b.directory.Find(name)
	if !ok || !f.Has(req.Key) {
		return b.Broker.Call(ctx, req)
	}
	result, err := b.results.Call(ctx, b.Broker, &f.Descriptor, req, contract.CacheDirectives{})
	return result.Reply, err
}
