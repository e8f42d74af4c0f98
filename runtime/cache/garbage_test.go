package cache

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/redis/go-redis/v9"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
)

// The first byte of an entry, see entry.Codec.
const (
	formatOlder      = 1
	formatPlain      = 2
	formatCompressed = 3
	formatYounger    = 5
)

// callFor is a call that knows its keys, and what the store has under them.
func callFor(t *testing.T, r *Results, d *contract.Descriptor, body string) *call {
	t.Helper()
	c := &call{results: r, function: d, request: contract.Call{Body: []byte(body)}}
	if !c.identify() || !c.locate() {
		t.Fatalf("%s has no key", body)
	}
	if err := r.store.Get(t.Context(), c.keys, c.values); err != nil {
		t.Fatal(err)
	}
	return c
}

// corruptions are functions that each corrupt what is stored under key; good is
// what should be stored.
func corruptions(t *testing.T, r *Results, url, key string, good []byte) map[string]func() error {
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	older, younger := bytes.Clone(good), bytes.Clone(good)
	older[0], younger[0] = formatOlder, formatYounger
	corrupt := map[string]func() error{}
	for name, value := range map[string][]byte{
		"empty": {}, "one byte": {formatPlain}, "text": []byte("hello"), "a number": []byte("42"), "cut off": good[:len(good)-1], "cut in half": good[:len(good)/2],
		"one bit flipped": flipped, "of an older version": older, "of a younger version": younger, "too much of it": append(bytes.Clone(good), 0),
		"all ones": bytes.Repeat([]byte{0xff}, 1000), "compressed rubbish": {formatCompressed, 0xff, 0xff, 0xff, 0xff, 0x0f},
	} {
		corrupt[name] = func() error { return r.store.Set(t.Context(), key, value, time.Hour) }
	}
	switch {
	case strings.HasPrefix(url, "redis"):
		client := redisClient(t, url)
		for _, command := range [][]any{
			{"RPUSH", key, good}, {"HSET", key, "field", good}, {"SADD", key, good}, {"ZADD", key, 1, good}, {"XADD", key, "*", "field", good},
			{"SETBIT", key, 8000, 1}, {"PFADD", key, good}, {"INCR", key},
		} {
			corrupt[fmt.Sprint(command[0])] = func() error {
				if err := client.Del(t.Context(), key).Err(); err != nil {
					return err
				}
				return client.Do(t.Context(), command...).Err()
			}
		}
	case strings.HasPrefix(url, "memcached"):
		client := memcachedClient(t, url, key)
		corrupt["flags of another client"] = func() error {
			return client.Set(&memcache.Item{Key: key, Value: []byte("a:1:{i:0;i:1;}"), Flags: 1<<32 - 1})
		}
		corrupt["a counter"] = func() error {
			if err := client.Set(&memcache.Item{Key: key, Value: []byte("9")}); err != nil {
				return err
			}
			_, err := client.Increment(key, 1)
			return err
		}
	}
	return corrupt
}

// redisClient is a client for what the store at url stores.
func redisClient(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	o, err := redisurl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewUniversalClient(o)
	t.Cleanup(func() { client.Close() })
	return client
}

// memcachedAddress is the server of the store at url that has key.
func memcachedAddress(url, key string) string {
	addresses := strings.Split(strings.TrimPrefix(url, "memcached://"), ",")
	return addresses[crc32.ChecksumIEEE([]byte(key))%uint32(len(addresses))]
}

// memcachedClient is a client for the server of the store at url that has key.
func memcachedClient(t *testing.T, url, key string) *memcache.Client {
	client := memcache.New(memcachedAddress(url, key))
	t.Cleanup(func() { client.Close() })
	return client
}

// Whatever is stored in place of an entry or of a generation: every call is
// answered correctly, the cache stays in use, and the value is replaced.
func TestGarbage(t *testing.T) {
	storesByURL(t, func(t *testing.T, url string) {
		r := open(t, url)
		f, version := &function{}, 0
		check := func(what string, corrupt func() error) {
			t.Helper()
			version++
			f.version.Store(int32(version))
			if err := corrupt(); err != nil {
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
			for name, corrupt := range corruptions(t, r, url, c.keys[i], good[i]) {
				check(what+name, corrupt)
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

// The same for a lease: what is stored in its place delays no call, and does not
// open the circuit breaker.
func TestGarbageForALease(t *testing.T) {
	url := servertest.Redis(t)
	r, f := open(t, url), &function{}
	ask(t, r, f, descriptor, input, contract.CacheDirectives{})
	r.wait() // its own lease is gone
	c := callFor(t, r, descriptor, input)
	lease := leaseKey(r.namespace, &c.sum, c.values[1:])
	if err := redisClient(t, url).RPush(t.Context(), lease, "x").Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 * server.BreakerFailures {
		evict(t, r, c.keys[0])
		if got := ask(t, r, f, descriptor, input, contract.CacheDirectives{}); got.Hit || !got.Stored {
			t.Errorf("got %+v, want a run", got)
		}
	}
}
