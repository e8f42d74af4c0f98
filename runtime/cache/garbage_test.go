package cache

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callFor is a call that knows its keys, and what the store has under them.
func callFor(t *testing.T, r *Results, d *contract.Descriptor, body string) *call {
	t.Helper()
	c := &call{results: r, function: d, request: contract.Call{Body: []byte(body)}}
	if !c.address() || !c.locate() {
		t.Fatalf("%s has no key", body)
	}
	if err := r.store.get(t.Context(), c.keys, c.values); err != nil {
		t.Fatal(err)
	}
	return c
}

// spoiled are the ways in which what stands under key may be spoiled, behind
// the cache's back; good is what should be there.
func spoiled(t *testing.T, r *Results, key string, good []byte) map[string]func() error {
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	older, younger := bytes.Clone(good), bytes.Clone(good)
	older[0], younger[0] = 1, formatSealed+1
	ways := map[string]func() error{}
	for name, value := range map[string][]byte{
		"empty": {}, "one byte": {formatPlain}, "text": []byte("hello"), "a number": []byte("42"), "cut off": good[:len(good)-1], "cut in half": good[:len(good)/2],
		"one bit flipped": flipped, "of an older version": older, "of a younger version": younger, "too much of it": append(bytes.Clone(good), 0),
		"all ones": bytes.Repeat([]byte{0xff}, 1000), "compressed rubbish": {formatCompressed, 0xff, 0xff, 0xff, 0xff, 0x0f},
	} {
		ways[name] = func() error { return r.store.set(t.Context(), key, value, time.Hour) }
	}
	switch s := r.store.(type) {
	case *redisStore:
		for _, command := range [][]any{
			{"RPUSH", key, good}, {"HSET", key, "field", good}, {"SADD", key, good}, {"ZADD", key, 1, good}, {"XADD", key, "*", "field", good},
			{"SETBIT", key, 8000, 1}, {"PFADD", key, good}, {"INCR", key},
		} {
			ways[fmt.Sprint(command[0])] = func() error {
				if err := s.client.Del(t.Context(), key).Err(); err != nil {
					return err
				}
				return s.client.Do(t.Context(), command...).Err()
			}
		}
	case *memcachedStore:
		ways["flags of another client"] = func() error {
			return s.server(key).client.Set(&memcache.Item{Key: key, Value: []byte("a:1:{i:0;i:1;}"), Flags: 1<<32 - 1})
		}
		ways["a counter"] = func() error {
			if err := s.server(key).client.Set(&memcache.Item{Key: key, Value: []byte("9")}); err != nil {
				return err
			}
			_, err := s.server(key).client.Increment(key, 1)
			return err
		}
	}
	return ways
}

// Whatever stands in the place of an entry or of a tag's generation: every call
// is answered right, the cache stays in use, and what is spoiled is made anew.
func TestGarbage(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		f, version := &function{}, 0
		check := func(what string, spoil func() error) {
			t.Helper()
			version++
			f.version.Store(int32(version))
			if err := spoil(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			want := "v" + strconv.Itoa(version) + " " + input
			for _, hit := range []bool{false, true} {
				if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit != hit || got.Forward == forwardBypass || string(got.Body) != want {
					t.Errorf("%s: got %+v, %.40s; want hit %v, %s", what, got, got.Body, hit, want)
				}
			}
		}
		ask(t, r, f, descriptor, input, contract.CacheDirectives{})
		c := callFor(t, r, descriptor, input)
		good := [][]byte{bytes.Clone(c.values[0]), bytes.Clone(c.values[1])}
		for i, what := range []string{"an entry: ", "a generation: "} {
			for name, spoil := range spoiled(t, r, c.keys[i], good[i]) {
				check(what+name, spoil)
				if t.Failed() { // the next one would begin with what this one left
					return
				}
			}
		}
		if s := r.Stats(); s.Errors > 0 || s.Bypasses > 0 {
			t.Errorf("got %+v, want nothing that was asked in vain", s)
		}
	})
}

// The same for a lease: what is none holds nobody up, and is no reason to leave
// the server alone.
func TestGarbageForALease(t *testing.T) {
	r, f := open(t, service(t, "RABBET_TEST_REDIS_URL")), &function{}
	ask(t, r, f, descriptor, input, contract.CacheDirectives{})
	r.flights.running.Wait() // its own lease is gone
	c := callFor(t, r, descriptor, input)
	lease := leaseKey(r.namespace, &c.sum, c.values[1:])
	if err := r.store.(*redisStore).client.RPush(t.Context(), lease, "x").Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 * guardFailures {
		evict(t, r, c.keys[0])
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit || !got.Stored {
			t.Errorf("got %+v, want a run", got)
		}
	}
}
