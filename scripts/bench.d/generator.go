package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// generator loads one address from so many connections, each with one request
// at a time, and writes down how long each took. It exists beside wrk because
// wrk knows neither a fixed rate nor two kinds of request.
type generator struct {
	addr        string
	connections int
	// path is that of a connection's n-th request; latencies are kept by class.
	path func(connection, n int) (path, class string)
	// rate is in requests per second over all connections; 0 is as fast as the
	// answers come. With a rate, a request that has to wait for its turn has
	// begun when its turn was: a server that stalls cannot hide it.
	rate float64
}

// latencies are sorted.
type latencies []time.Duration

// at is the latency that a share of requests kept below.
func (l latencies) at(share float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(int(float64(len(l))*share), len(l)-1)]
}

// run loads for d and returns the latencies by class.
func (g generator) run(ctx context.Context, d time.Duration) (map[string]latencies, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		all    = map[string]latencies{}
		failed []error
		start  = time.Now()
	)
	for i := range g.connections {
		wg.Go(func() {
			mine, err := g.connection(ctx, i, start, start.Add(d))
			mu.Lock()
			defer mu.Unlock()
			for class, l := range mine {
				all[class] = append(all[class], l...)
			}
			if err != nil {
				failed = append(failed, err)
			}
		})
	}
	wg.Wait()
	for _, l := range all {
		slices.Sort(l)
	}
	return all, errors.Join(failed...)
}

// connection makes the requests of one connection until end.
func (g generator) connection(ctx context.Context, i int, start, end time.Time) (map[string]latencies, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	reader := bufio.NewReader(conn)
	mine := map[string]latencies{}
	for n := 0; ; n++ {
		began := time.Now()
		if g.rate > 0 {
			turn := float64(n*g.connections+i) / g.rate
			began = start.Add(time.Duration(turn * float64(time.Second)))
			time.Sleep(time.Until(began))
		}
		if !began.Before(end) || ctx.Err() != nil {
			return mine, ctx.Err()
		}
		path, class := g.path(i, n)
		if err := exchange(conn, reader, g.addr, path); err != nil {
			return mine, fmt.Errorf("%s: %w", path, err)
		}
		mine[class] = append(mine[class], time.Since(began))
	}
}

// exchange makes one request and reads its answer.
func exchange(conn net.Conn, reader *bufio.Reader, host, path string) error {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host); err != nil {
		return err
	}
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", response.Status)
	}
	return nil
}
