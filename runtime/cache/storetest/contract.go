package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// newKey returns a key that no other test uses.
func newKey() string { return "storetest:" + rand.Text() }

// get returns what s has under keys.
func get(t *testing.T, s store.Store, keys ...string) [][]byte {
	t.Helper()
	values := make([][]byte, len(keys))
	for i := range values {
		values[i] = []byte("left over") // must not survive
	}
	if err := s.Get(t.Context(), keys, values); err != nil {
		t.Fatalf("Get: %v", err)
	}
	return values
}

func set(t *testing.T, s store.Store, key, value string, ttl time.Duration) {
	t.Helper()
	if err := s.Set(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatalf("Set: %v", err)
	}
}

func testGetSetDelete(t *testing.T, h Harness) {
	s := h.Open(t)
	one, two, none := newKey(), newKey(), newKey()
	set(t, s, one, "first", time.Minute)
	set(t, s, one, "1", time.Minute)
	set(t, s, two, "2", store.MaxTTL)
	values := get(t, s, one, none, two)
	if string(values[0]) != "1" || values[1] != nil || string(values[2]) != "2" {
		t.Errorf("got %q, want 1, nothing and 2", values)
	}
	for name, remove := range map[string]func(context.Context, string) error{"Delete": s.Delete, "Invalidate": s.Invalidate} {
		set(t, s, one, "1", time.Minute)
		for range 2 { // the second time, nothing is there
			if err := remove(t.Context(), one); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if values := get(t, s, one, two); values[0] != nil || string(values[1]) != "2" {
				t.Errorf("after %s: got %q, want nothing and 2", name, values)
			}
		}
	}
}

func testKeys(t *testing.T, h Harness) {
	s := h.Open(t)
	var printable strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		printable.WriteByte(c)
	}
	var keys []string
	for _, key := range []string{newKey() + printable.String(), newKey() + "{a}", newKey() + "{a}b", newKey() + "%s*?[]", newKey()} {
		keys = append(keys, key, key+strings.Repeat("x", 250-len(key)))
	}
	for _, key := range keys {
		set(t, s, key, "value of "+key, time.Minute)
	}
	for i, v := range get(t, s, keys...) {
		if string(v) != "value of "+keys[i] {
			t.Errorf("%q: got %q", keys[i], v)
		}
	}
}

// testLargeValues: a value is stored intact, or refused. Up to 900 KiB it is
// stored.
func testLargeValues(t *testing.T, h Harness) {
	s := h.Open(t)
	for _, size := range []int{1, 4 << 10, 64 << 10, 900 << 10, 5 << 20} {
		value := make([]byte, size)
		rand.Read(value)
		key := newKey()
		if err := s.Set(t.Context(), key, value, time.Minute); err != nil {
			if size <= 900<<10 {
				t.Errorf("%d bytes: %v", size, err)
			}
			continue
		}
		if got := get(t, s, key)[0]; !bytes.Equal(got, value) && (got != nil || size <= 900<<10) {
			t.Errorf("%d bytes: got %d other bytes", size, len(got))
		}
	}
}

func testExpiry(t *testing.T, h Harness) {
	s := h.Open(t)
	short, long, added := newKey(), newKey(), newKey()
	set(t, s, short, "x", time.Second)
	set(t, s, long, "x", store.MaxTTL)
	if _, err := s.Add(t.Context(), added, []byte("x"), time.Second); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		values := get(t, s, short, long, added)
		if string(values[1]) != "x" {
			t.Fatalf("a value with the longest ttl: got %q", values[1])
		}
		if values[0] == nil && values[2] == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("10 s after a ttl of 1 s: got %q", values)
		}
	}
}

func testAdd(t *testing.T, h Harness) {
	s := h.Open(t)
	key := newKey()
	add := func(value, want string) {
		t.Helper()
		if got, err := s.Add(t.Context(), key, []byte(value), time.Minute); err != nil || string(got) != want {
			t.Errorf("Add of %s: got %q, %v; want %s", value, got, err, want)
		}
		if got := get(t, s, key)[0]; string(got) != want {
			t.Errorf("after Add of %s: got %q, want %s", value, got, want)
		}
	}
	add("1", "1")
	add("2", "1")
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	add("3", "3")
	set(t, s, key, "4", time.Minute)
	add("5", "4")
}

// testConcurrentAdd: all that add see the value of the same one.
func testConcurrentAdd(t *testing.T, h Harness) {
	s := h.Open(t)
	for range 20 {
		key := newKey()
		var all sync.WaitGroup
		var mu sync.Mutex
		seen := map[string]int{}
		for i := range 16 {
			all.Go(func() {
				got, err := s.Add(t.Context(), key, fmt.Append(nil, i), time.Minute)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[string(got)]++
			})
		}
		all.Wait()
		if stored := string(get(t, s, key)[0]); len(seen) != 1 || seen[stored] != 16 {
			t.Errorf("16 that add at once: got %v with %q stored", seen, stored)
		}
	}
}

// testConcurrentUse: a read that starts after a write has ended sees it or a later
// one, and every value is the one of its key.
func testConcurrentUse(t *testing.T, h Harness) {
	s := h.Open(t)
	const clients, rounds = 16, 100
	shared := newKey()
	set(t, s, shared, shared, time.Minute)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			own := newKey()
			for i := range rounds {
				want := fmt.Sprintf("%s %d", own, i)
				if err := s.Set(t.Context(), own, []byte(want), time.Minute); err != nil {
					t.Errorf("Set: %v", err)
					return
				}
				values := make([][]byte, 2)
				if err := s.Get(t.Context(), []string{own, shared}, values); err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				if string(values[0]) != want || string(values[1]) != shared {
					t.Errorf("got %q, want %q and %q", values, want, shared)
				}
			}
		})
	}
	all.Wait()
}

// testEndedContext: a ctx that has ended makes no operation hang, and the store
// works for the next caller.
func testEndedContext(t *testing.T, h Harness) {
	s := h.Open(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		promptly(t, 10*time.Second, "with an ended context", func() { operations(ended, s, newKey()) })
	}
	for name, err := range operations(t.Context(), s, newKey()) {
		if err != nil {
			t.Errorf("%s after operations with an ended context: %v", name, err)
		}
	}
}

// DownTimeout is the timeout of the store that Harness.OpenDown opens.
const DownTimeout = 50 * time.Millisecond

// testDown: each operation on a server that does not answer fails, and soon
// without being tried.
func testDown(t *testing.T, h Harness) {
	if h.OpenDown == nil {
		t.Skip("the store has no server")
	}
	s := h.OpenDown(t)
	key := newKey()
	promptly(t, 30*time.Second, "of a server that is down", func() {
		for range 5 {
			for name, err := range operations(t.Context(), s, key) {
				if err == nil {
					t.Errorf("%s: got no error", name)
				}
			}
		}
	})
	promptly(t, 5*time.Second, "of a server that is known to be down", func() {
		for range 200 {
			if err := s.Get(t.Context(), []string{key}, make([][]byte, 1)); err == nil {
				t.Error("got no error")
			}
		}
	})
	if err := s.Invalidate(t.Context(), key); err == nil || errors.Is(err, store.ErrCircuitOpen) {
		t.Errorf("Invalidate: got %v, want that it was tried and failed", err)
	}
}

// operations runs each operation on s once, and returns their errors.
func operations(ctx context.Context, s store.Store, key string) map[string]error {
	_, added := s.Add(ctx, key, []byte("x"), time.Minute)
	return map[string]error{
		"Add": added, "Set": s.Set(ctx, key, []byte("x"), time.Minute), "Get": s.Get(ctx, []string{key}, make([][]byte, 1)),
		"Delete": s.Delete(ctx, key), "Invalidate": s.Invalidate(ctx, key),
	}
}

func promptly(t *testing.T, limit time.Duration, what string, fn func()) {
	t.Helper()
	started := time.Now()
	fn()
	if took := time.Since(started); took > limit {
		t.Errorf("operations %s took %v, want at most %v", what, took, limit)
	}
}
