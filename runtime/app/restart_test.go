package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// balancer is what stands in front of several ingresses: it takes those in
// turn that say that they are ready, and another one when a connection is
// refused.
type balancer struct {
	client *http.Client
	parts  []*part
	ready  []atomic.Bool
	next   atomic.Int64
}

func newBalancer(t *testing.T, ingresses ...*part) *balancer {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	b := &balancer{
		client: &http.Client{Transport: transport, Timeout: 60 * time.Second},
		parts:  ingresses, ready: make([]atomic.Bool, len(ingresses)),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var checks sync.WaitGroup
	for i, p := range ingresses {
		b.ready[i].Store(true)
		checks.Go(func() {
			for ctx.Err() == nil {
				b.ready[i].Store(p.isReady())
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		checks.Wait()
		transport.CloseIdleConnections()
	})
	return b
}

func (b *balancer) do(method, path, body string) (status int, answer string, err error) {
	turn := int(b.next.Add(1))
	for try := range 10 * len(b.parts) {
		i := (turn + try) % len(b.parts)
		if !b.ready[i].Load() && try < 2*len(b.parts) {
			continue
		}
		r, _ := http.NewRequest(method, "http://"+b.parts[i].http+path, strings.NewReader(body))
		var response *http.Response
		if response, err = b.client.Do(r); err != nil {
			if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
				continue
			}
			return 0, "", err
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		return response.StatusCode, string(content), err
	}
	return 0, "", err
}

// deadLetters is how many dead letters of the function there are.
func deadLetters(t *testing.T, url, queue string) int {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

// tallied is the environment of a test with processes, with an empty tally.
func tallied(t *testing.T) (env []string, file, url, namespace string) {
	url = service(t, "RABBET_TEST_AMQP_URL")
	namespace = "test-" + contract.NewID()[:10]
	file = filepath.Join(t.TempDir(), "tally")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"RABBET_BROKER_URL=" + url, "RABBET_NAMESPACE=" + namespace, "RABBET_FUNCTIONS=tally,tally-get,tally-post",
		"RABBET_DATABASE_URL=sqlite://" + filepath.Join(t.TempDir(), "test.db"), tallyFile + "=" + file,
	}, file, url, namespace
}

// Workers and ingresses are replaced one by one under load: no request fails,
// no event is processed twice, and none becomes a dead letter.
func TestRollingRestart(t *testing.T) {
	env, file, url, namespace := tallied(t)
	workers := []*part{newPart(t, "worker", env...), newPart(t, "worker", env...)}
	ingresses := []*part{newPart(t, "ingress", env...), newPart(t, "ingress", env...)}
	all := append(append([]*part{}, workers...), ingresses...)
	startAll(all...)
	front := newBalancer(t, ingresses...)
	var gets, posts, accepted atomic.Int64
	over := make(chan struct{})
	var load sync.WaitGroup
	each := func(request func(n int64)) {
		load.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					request(rand.Int64())
				}
			}
		})
	}
	for range 6 {
		each(func(n int64) {
			gets.Add(1)
			if status, answer, err := front.do("GET", fmt.Sprintf("/tally/%d", n), ""); status != 200 || answer != fmt.Sprintf("%q", fmt.Sprint(n)) {
				t.Errorf("GET: %d %s %v", status, answer, err)
			}
		})
		each(func(n int64) {
			posts.Add(1)
			if status, answer, err := front.do("POST", "/tally", fmt.Sprintf(`{"n":"%d"}`, n)); status != 200 || answer != fmt.Sprintf("%q", fmt.Sprint(n)) {
				t.Errorf("POST: %d %s %v", status, answer, err)
			}
		})
		each(func(int64) {
			n := accepted.Add(1)
			if status, answer, err := front.do("POST", "/events/tally.it", fmt.Sprintf(`{"n":"%d"}`, n)); status != 202 {
				t.Errorf("event: %d %s %v", status, answer, err)
			}
		})
	}
	for _, p := range all {
		time.Sleep(200 * time.Millisecond)
		p.stop()
		p.start()
	}
	time.Sleep(200 * time.Millisecond)
	close(over)
	load.Wait()
	for _, p := range append(append([]*part{}, ingresses...), workers...) {
		p.stop() // the last worker leaves the rest of the events in their queue, if any
	}
	workers[0].start()
	total := accepted.Load()
	waitTally(t, file, int(total))
	workers[0].stop()
	for n, times := range readTally(t, file) {
		if times != 1 {
			t.Errorf("event %s was processed %d times", n, times)
		}
	}
	if dead := deadLetters(t, url, namespace+".dead.tally"); dead != 0 {
		t.Errorf("%d dead letters, want 0", dead)
	}
	t.Logf("while 2 workers and 2 ingresses were replaced: %d GET, %d POST, %d events, each processed once; 0 failures, 0 dead letters", gets.Load(), posts.Load(), total)
}

// waitTally waits until n different lines are in the file.
func waitTally(t *testing.T, file string, n int) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		have := len(readTally(t, file))
		if have >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events were processed: %d are lost", have, n, n-have)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// An ingress is killed again and again under load: what it has answered 202 to
// is processed.
func TestKilledIngressLosesNothingAccepted(t *testing.T) {
	const events, kills = 10_000, 4
	env, file, _, _ := tallied(t)
	worker := newPart(t, "worker", env...)
	ingresses := []*part{newPart(t, "ingress", env...), newPart(t, "ingress", env...)}
	startAll(append(ingresses, worker)...)
	front := newBalancer(t, ingresses...)
	var mu sync.Mutex
	accepted, tried := map[string]bool{}, 0
	reached := make(chan int, events) // each count once
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	for range 16 {
		load.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				tried++
				n := fmt.Sprint(tried)
				mu.Unlock()
				status, _, err := front.do("POST", "/events/tally.it", `{"n":"`+n+`"}`)
				switch {
				case status == 202:
					mu.Lock()
					if accepted[n] = true; len(accepted) <= events {
						reached <- len(accepted)
					}
					mu.Unlock()
				case err == nil && status != 503 && status != 504:
					t.Errorf("event %s: got the status %d", n, status)
				}
			}
		})
	}
	kill := 0
	for count := range reached {
		if count == events*(kill+1)/(kills+1) && kill < kills {
			time.Sleep(rand.N(200 * time.Millisecond))
			ingresses[kill%2].kill()
			ingresses[kill%2].start()
			kill++
		}
		if count == events {
			break
		}
	}
	cancel()
	load.Wait()
	deadline := time.Now().Add(60 * time.Second)
	for {
		done, missing, twice := readTally(t, file), 0, 0
		for n := range accepted {
			if done[n] == 0 {
				missing++
			}
		}
		for _, times := range done {
			twice += times - 1
		}
		if missing == 0 {
			t.Logf("kill -9 of an ingress, %d times: accepted %d of %d, processed %d, duplicates %d", kill, len(accepted), tried, len(done), twice)
			if twice > 0 || len(done) > tried {
				t.Errorf("got %d duplicates and %d events of %d, want none twice: the workers lived", twice, len(done), tried)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d accepted events are lost", missing, len(accepted))
		}
		time.Sleep(50 * time.Millisecond)
	}
}
