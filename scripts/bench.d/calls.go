package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// concurrency is how many requests are under way at once.
var concurrency = []int{1, 16, 64, 256}

// compareCalls: HTTP, a call over the broker, and back; nothing is cached.
func compareCalls(ctx context.Context, s settings, name string, t *table) error {
	broker, err := s.service("rabbitmq")
	if err != nil {
		return err
	}
	run := children{logs: filepath.Join(s.services, "log")}
	defer run.stop()

	baselineAddr, err := freeAddr()
	if err != nil {
		return err
	}
	env := []string{"RABBET_BROKER_URL=" + s.amqp, "RABBET_HTTP_ADDR=" + baselineAddr}
	worker, err := run.start("baseline-worker", env, self(), "baseline-worker")
	if err != nil {
		return err
	}
	front, err := run.start("baseline-front", env, self(), "baseline-front")
	if err != nil {
		return err
	}
	rabbetAddr, rabbetProcesses, err := startRabbet(&run, s, "none")
	if err != nil {
		return err
	}
	baseline, err := loaded(ctx, "http://"+baselineAddr+"/echo/42", broker, front, worker)
	if err != nil {
		return err
	}
	rabbet, err := loaded(ctx, "http://"+rabbetAddr+"/echo/42", append([]process{broker}, rabbetProcesses...)...)
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
	rabbetAddr, rabbetProcesses, err := startRabbet(&run, s, storeURL)
	if err != nil {
		return err
	}
	baseline, err := loaded(ctx, "http://"+baselineAddr+"/cached/42", store, front)
	if err != nil {
		return err
	}
	rabbet, err := loaded(ctx, "http://"+rabbetAddr+"/cached/42", store, rabbetProcesses[0])
	if err != nil {
		return err
	}
	return compare(ctx, s, comparison{name, concurrency, baseline, rabbet}, t)
}

// startRabbet starts an ingress, the product's own, and a worker with the echoes.
func startRabbet(run *children, s settings, cacheURL string) (addr string, processes []process, err error) {
	addr, err = freeAddr()
	if err != nil {
		return "", nil, err
	}
	env := []string{
		"RABBET_BROKER_URL=" + s.amqp, "RABBET_CACHE_URL=" + cacheURL, "RABBET_NAMESPACE=bench",
		"RABBET_HTTP_ADDR=" + addr, "RABBET_ADMIN_ADDR=none",
	}
	worker, err := run.start("worker", env, self(), "rabbet-worker")
	if err != nil {
		return "", nil, err
	}
	ingress, err := run.start("ingress", env, s.rabbet, "ingress")
	return addr, []process{ingress, worker}, err
}

// loaded is the side behind url, once it answers as it should.
func loaded(ctx context.Context, url string, processes ...process) (side, error) {
	body, err := answers(ctx, url)
	if err != nil {
		return side{}, err
	}
	if strings.TrimSpace(body) != `{"id":"42"}` {
		return side{}, fmt.Errorf("%s answers %q", url, body)
	}
	return side{
		run: func(ctx context.Context, connections int, d time.Duration) (load, error) {
			return wrk(ctx, url, connections, d)
		},
		processes: processes,
	}, nil
}
