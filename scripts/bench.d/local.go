package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/cache/memcached"
	"github.com/rabbet-fn/rabbet/runtime/cache/redis"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

// baselineMap answers each request from a map that does not change.
func baselineMap(ctx context.Context) error {
	value, err := json.Marshal(echo{ID: "42"})
	if err != nil {
		return err
	}
	values := map[string][]byte{"42": value}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cached/{id}", func(w http.ResponseWriter, r *http.Request) {
		body, ok := values[r.PathValue("id")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	return serve(ctx, mux)
}

// compareLocal: HTTP and a result that the ingress has in its own memory.
func compareLocal(ctx context.Context, s settings, name string, t *table) error {
	run := children{logs: filepath.Join(s.services, "log")}
	defer run.stop()
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	handler, err := run.start("baseline-map", []string{"RABBET_HTTP_ADDR=" + addr}, self(), "baseline-map")
	if err != nil {
		return err
	}
	product, err := startIngress(&run, s, s.redis, "ingress", "RABBET_CACHE_LOCAL=64")
	if err != nil {
		return err
	}
	if _, err := run.start("worker", rabbetEnv(s, s.redis), self(), "rabbet-worker"); err != nil {
		return err
	}
	baseline, err := loaded(ctx, http.MethodGet, "http://"+addr+"/cached/42", handler)
	if err != nil {
		return err
	}
	rabbet, err := loaded(ctx, http.MethodGet, "http://"+product.addr+"/cached/42", product.processes...)
	if err != nil {
		return err
	}
	return compare(ctx, s, comparison{name, concurrency, baseline, rabbet}, t)
}

// measureInvalidation: how long an invalidation takes, and how long until every
// ingress serves what is new: two of them, whose in-process levels have what is
// old, and a worker that invalidates, each with a connection of its own.
func measureInvalidation(ctx context.Context, s settings, name string, _ *table) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\treturns p50\tp99\tmost\tvisible everywhere p50\tp99\tmost\n", name)
	for store, url := range map[string]string{"redis": s.redis, "memcached": s.memcached} {
		returned, visible, err := invalidations(ctx, s, url, 1000)
		if err != nil {
			return fmt.Errorf("%s: %w", store, err)
		}
		fmt.Fprint(w, store)
		for _, l := range []latencies{returned, visible} {
			for _, share := range []float64{0.5, 0.99, 1} {
				fmt.Fprintf(w, "\t%v", l.at(share).Round(10*time.Microsecond))
			}
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// thing is a function whose result changes.
type thing struct{ version atomic.Int64 }

func (t *thing) Call(context.Context, contract.Call) (contract.Reply, error) {
	return contract.Reply{Body: strconv.AppendInt(nil, t.version.Load(), 10)}, nil
}

// stores are those that several processes share.
var stores = store.Schemes{"redis": redis.Open, "memcached": memcached.Open}

// invalidations invalidates a result n times.
func invalidations(ctx context.Context, s settings, url string, n int) (returned, visible latencies, err error) {
	var all [3]*cache.Results // the last is the worker's
	for i := range all {
		broker, err := rabbit.Open(rabbit.Config{URL: s.amqp, Namespace: "bench"})
		if err != nil {
			return nil, nil, err
		}
		defer broker.Close()
		if err := broker.Ready(ctx); err != nil {
			return nil, nil, err
		}
		cfg := cache.Config{Namespace: "bench-" + strconv.Itoa(os.Getpid()), Broadcast: broker}
		if i < 2 {
			cfg.Local = 1 << 20
		}
		s, err := stores.Open(url, store.Options{})
		if err != nil {
			return nil, nil, err
		}
		if all[i], err = cache.New(s, cfg); err != nil {
			return nil, nil, err
		}
		defer all[i].Close()
	}
	f := &thing{}
	d := &contract.Descriptor{
		Name: "bench-thing", Kind: contract.KindRequest, Keys: []string{"bench.thing"}, Version: "1",
		Cache: &contract.CachePolicy{TTL: time.Hour, Tags: []string{"thing:{id}"}},
	}
	sees := func(r *cache.Results) (int64, error) {
		result, err := r.Call(ctx, f, d, contract.Call{Body: []byte(`{"id":"42"}`)}, contract.CacheDirectives{})
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(string(result.Body), 10, 64)
	}
	for range n {
		for _, r := range all[:2] { // both have it in process
			before, deadline := r.Stats().Local, time.Now().Add(10*time.Second)
			for r.Stats().Local == before {
				if _, err := sees(r); err != nil {
					return nil, nil, err
				}
				if time.Now().After(deadline) {
					return nil, nil, errors.New("the in-process level stays off: broadcasts are not received")
				}
			}
		}
		version, began := f.version.Add(1), time.Now()
		if err := all[2].Invalidate(ctx, "thing:42"); err != nil {
			return nil, nil, err
		}
		returned = append(returned, time.Since(began))
		for _, r := range all[:2] {
			for seen := int64(-1); seen != version; {
				if seen, err = sees(r); err != nil {
					return nil, nil, err
				}
			}
		}
		visible = append(visible, time.Since(began))
	}
	slices.Sort(returned)
	slices.Sort(visible)
	return returned, visible, nil
}
