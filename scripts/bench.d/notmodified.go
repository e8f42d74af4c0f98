package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// compareNotModified: a result that the store has, for a client that has it
// already, against sending it again.
func compareNotModified(ctx context.Context, s settings, name string, t *table) error {
	store, err := s.service("redis")
	if err != nil {
		return err
	}
	run := children{logs: filepath.Join(s.services, "log")}
	defer run.stop()

	product, err := startRabbet(&run, s, s.redis)
	if err != nil {
		return err
	}
	url := "http://" + product.addr + "/cached/42"
	hit, err := loaded(ctx, http.MethodGet, url, store, product.processes[0])
	if err != nil {
		return err
	}
	condition, err := conditionOf(ctx, url)
	if err != nil {
		return err
	}
	notModified := side{
		run: func(ctx context.Context, connections int, d time.Duration) (load, error) {
			return wrk(ctx, http.MethodGet, url, connections, d, condition)
		},
		processes: hit.processes,
	}
	return compare(ctx, s, comparison{name, concurrency, hit, notModified}, t)
}

// conditionOf is the header field that makes of the response at url a 304.
func conditionOf(ctx context.Context, url string) (string, error) {
	etag := ""
	for _, want := range []int{http.StatusOK, http.StatusNotModified} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return "", err
		}
		response.Body.Close()
		if etag = response.Header.Get("Etag"); response.StatusCode != want || etag == "" {
			return "", fmt.Errorf("%s answers %s with ETag %q, want a %d with one", url, response.Status, etag, want)
		}
	}
	return "If-None-Match: " + etag, nil
}
