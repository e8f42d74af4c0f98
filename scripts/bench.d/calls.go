package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

// concurrency is how many requests are under way at once.
var concurrency = []int{1, 16, 64, 256}

// compareCalls: HTTP, a call over the broker, and back; nothing is cached. A
// "call put" may write, so that it is acknowledged before it runs.
func compareCalls(ctx context.Context, s settings, name string, t *table) error {
	broker, err := s.service("rabbitmq")
	if err != nil {
		return err
	}
	run := children{logs: filepath.Join(s.services, "log")}
	defer run.stop()

	thin, err := startThin(&run, s)
	if err != nil {
		return err
	}
	product, err := startRabbet(&run, s, "none")
	if err != nil {
		return err
	}
	method := http.MethodGet
	if name == "call put" {
		method = http.MethodPut
	}
	baseline, err := loaded(ctx, method, "http://"+thin.addr+"/echo/42", append([]process{broker}, thin.processes...)...)
	if err != nil {
		return err
	}
	rabbet, err := loaded(ctx, method, "http://"+product.addr+"/echo/42", append([]process{broker}, product.processes...)...)
	if err != nil {
		return err
	}
	return compare(ctx, s, comparison{name, concurrency, baseline, rabbet}, t)
}

// compareCached: HTTP and a result that the store has.
func compareCached(ctx context.Context, s settings, name string, t *table) error {
	storeName := strings.TrimPrefix(name, "cached ")
	storeURL := map[string]string{"redis": s.redis, "memcached": s.memcached}[storeName]
	store, err := s.service(storeName)
	if err != nil {
		return err
	}
	run := children{logs: filepath.Join(s.services, "log")}
	defer run.stop()

	baselineAddr, err := freeAddr()
	if err != nil {
		return err
	}
	front, err := run.start("baseline-cache", []string{"RABBET_CACHE_URL=" + storeURL, "RABBET_HTTP_ADDR=" + baselineAddr}, self(), "baseline-cache")
	if err != nil {
		return err
	}
	product, err := startRabbet(&run, s, storeURL)
	if err != nil {
		return err
	}
	baseline, err := loaded(ctx, http.MethodGet, "http://"+baselineAddr+"/cached/42", store, front)
	if err != nil {
		return err
	}
	rabbet, err := loaded(ctx, http.MethodGet, "http://"+product.addr+"/cached/42", store, product.processes[0])
	if err != nil {
		return err
	}
	return compare(ctx, s, comparison{name, concurrency, baseline, rabbet}, t)
}

// front is what takes requests at addr, and the processes that a request costs.
type front struct {
	addr      string
	processes []process
}

// startThin starts the thin baseline of calls.
func startThin(run *children, s settings) (front, error) {
	addr, err := freeAddr()
	if err != nil {
		return front{}, err
	}
	f := front{addr: addr}
	for _, name := range []string{"baseline-front", "baseline-worker"} {
		p, err := run.start(name, []string{"RABBET_BROKER_URL=" + s.amqp, "RABBET_HTTP_ADDR=" + addr}, self(), name)
		if err != nil {
			return front{}, err
		}
		f.processes = append(f.processes, p)
	}
	return f, nil
}

// startRabbet starts an ingress, the product's own, and a worker with the echoes.
func startRabbet(run *children, s settings, cacheURL string) (front, error) {
	f, err := startIngress(run, s, cacheURL, "ingress")
	if err != nil {
		return front{}, err
	}
	worker, err := run.start("worker", rabbetEnv(s, cacheURL), self(), "rabbet-worker")
	f.processes = append(f.processes, worker)
	return f, err
}

// startIngress starts one more ingress, with env on top.
func startIngress(run *children, s settings, cacheURL, name string, env ...string) (front, error) {
	addr, err := freeAddr()
	if err != nil {
		return front{}, err
	}
	p, err := run.start(name, append(append(rabbetEnv(s, cacheURL), "RABBET_HTTP_ADDR="+addr), env...), s.rabbet, "ingress")
	return front{addr: addr, processes: []process{p}}, err
}

func rabbetEnv(s settings, cacheURL string) []string {
	return []string{
		"RABBET_BROKER_URL=" + s.amqp, "RABBET_CACHE_URL=" + cacheURL, "RABBET_NAMESPACE=bench", "RABBET_ADMIN_ADDR=none",
	}
}

// loaded is the side behind url, once it answers as it should.
func loaded(ctx context.Context, method, url string, processes ...process) (side, error) {
	if err := echoes42(ctx, url); err != nil {
		return side{}, err
	}
	return side{
		run: func(ctx context.Context, connections int, d time.Duration) (load, error) {
			return wrk(ctx, method, url, connections, d)
		},
		processes: processes,
	}, nil
}

// echoes42 waits until url answers, as it should.
func echoes42(ctx context.Context, url string) error {
	body, err := answers(ctx, url)
	if err == nil && strings.TrimSpace(body) != `{"id":"42"}` {
		err = fmt.Errorf("%s answers %q", url, body)
	}
	return err
}
