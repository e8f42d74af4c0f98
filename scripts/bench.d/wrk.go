package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

var (
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkP99      = regexp.MustCompile(`99%\s+([0-9.]+)(us|ms|s|m)`)
	wrkBad      = regexp.MustCompile(`(?m)^\s*(Non-2xx.*|Socket errors.*)$`)
)

// wrk loads url over so many connections for d, with header fields as given.
func wrk(ctx context.Context, method, url string, connections int, d time.Duration, fields ...string) (load, error) {
	args := []string{"--latency", "-t1", "-c" + strconv.Itoa(connections), "-d" + strconv.Itoa(int(d.Seconds()))}
	if method != http.MethodGet {
		script, err := methodScript(method)
		if err != nil {
			return load{}, err
		}
		defer os.Remove(script)
		args = append(args, "-s", script)
	}
	for _, field := range fields {
		args = append(args, "-H", field)
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, url)...).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if bad := wrkBad.FindSubmatch(out); bad != nil {
		return load{}, fmt.Errorf("wrk %s over %d connections: %s", url, connections, bad[1])
	}
	rate, requests, p99 := wrkRate.FindSubmatch(out), wrkRequests.FindSubmatch(out), wrkP99.FindSubmatch(out)
	if rate == nil || requests == nil || p99 == nil {
		return load{}, fmt.Errorf("wrk printed something new: %s", out)
	}
	var l load
	if l.rate, err = strconv.ParseFloat(string(rate[1]), 64); err != nil {
		return l, err
	}
	if l.count, err = strconv.Atoi(string(requests[1])); err != nil {
		return l, err
	}
	l.p99, err = time.ParseDuration(string(p99[1]) + string(p99[2]))
	return l, err
}

// methodScript writes the file by which wrk learns of another method than GET.
func methodScript(method string) (path string, err error) {
	f, err := os.CreateTemp("", "wrk-*.lua")
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(f, "wrk.method = %q\n", method)
	return f.Name(), errors.Join(err, f.Close())
}
