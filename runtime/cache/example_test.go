package cache_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/cache/memcached"
	"github.com/rabbet-fn/rabbet/runtime/cache/memory"
	"github.com/rabbet-fn/rabbet/runtime/cache/redis"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// profiles is a function behind a broker. It counts its runs.
type profiles struct{ runs int }

func (p *profiles) Call(_ context.Context, r contract.Call) (contract.Reply, error) {
	p.runs++
	return contract.Reply{Body: fmt.Appendf(nil, `{"run":%d}`, p.runs)}, nil
}

// descriptor is what a worker announces about the function: faas.Cached says how
// long its results are fresh, and which tags they have.
var descriptor = &contract.Descriptor{
	Name: "get-profile", Kind: contract.KindRequest, Keys: []string{"profile.get"},
	Cache: &contract.CachePolicy{TTL: 5 * time.Minute, Tags: []string{"profile:{id}"}},
}

// openResults opens results that are stored in this process.
func openResults() *cache.Results {
	s, err := memory.Open("memory://", store.Options{})
	if err != nil {
		panic(err)
	}
	results, err := cache.New(s, cache.Config{})
	if err != nil {
		panic(err)
	}
	return results
}

func ExampleResults_Call() {
	results, function := openResults(), &profiles{}
	defer results.Close()
	for range 2 {
		request := contract.Call{Key: "profile.get", Body: []byte(`{"id":"42"}`)}
		result, err := results.Call(context.Background(), function, descriptor, request, contract.CacheDirectives{})
		fmt.Println(string(result.Body), "hit:", result.Hit, err)
	}
	// Output:
	// {"run":1} hit: false <nil>
	// {"run":1} hit: true <nil>
}

func ExampleResults_Invalidate() {
	ctx, results, function := context.Background(), openResults(), &profiles{}
	defer results.Close()
	request := contract.Call{Key: "profile.get", Body: []byte(`{"id":"42"}`)}
	show := func() {
		result, err := results.Call(ctx, function, descriptor, request, contract.CacheDirectives{})
		fmt.Println(string(result.Body), "hit:", result.Hit, err)
	}
	show()
	if err := results.Invalidate(ctx, "profile:42"); err != nil {
		fmt.Println("try again:", err)
	}
	show()
	// Output:
	// {"run":1} hit: false <nil>
	// {"run":2} hit: false <nil>
}

func ExampleResults_Inspect() {
	ctx, results, function := context.Background(), openResults(), &profiles{}
	defer results.Close()
	request := contract.Call{Key: "profile.get", Body: []byte(`{"id":"42"}`)}
	if _, err := results.Call(ctx, function, descriptor, request, contract.CacheDirectives{}); err != nil {
		fmt.Println(err)
	}
	_ = results.Invalidate(ctx, "profile:42")
	stored, err := results.Inspect(ctx, descriptor, request)
	fmt.Println("found:", stored.Found, "valid:", stored.Valid(), "tags:", stored.Tags, err)
	// Output:
	// found: true valid: false tags: [{profile:42 false}] <nil>
}

func ExampleResults_Stats() {
	results, function := openResults(), &profiles{}
	defer results.Close()
	for range 3 {
		request := contract.Call{Key: "profile.get", Body: []byte(`{"id":"42"}`)}
		if _, err := results.Call(context.Background(), function, descriptor, request, contract.CacheDirectives{}); err != nil {
			fmt.Println(err)
		}
	}
	s := results.Stats()
	fmt.Println(s.Hits, "hits,", s.Misses, "miss")
	// Output:
	// 2 hits, 1 miss
}

// A program lists the stores that it knows by the scheme of their URLs. A store
// of your own is one more line.
func Example_stores() {
	stores := store.Schemes{
		"memory":    memory.Open,
		"redis":     redis.Open,
		"memcached": memcached.Open,
	}
	s, err := stores.Open("memory://?size=16", store.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	results, err := cache.New(s, cache.Config{Namespace: "shop"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer results.Close()

	_, err = stores.Open("sqlite://cache.db", store.Options{})
	fmt.Println(err)
	// Output:
	// cache URL with scheme "sqlite": choose one of memcached, memory, redis
}
