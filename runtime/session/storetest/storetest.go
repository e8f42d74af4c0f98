// Package storetest is the test suite that every store of sessions must pass.
package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

// timeout bounds each operation.
const timeout = time.Minute

// expiryDelay is how long after its time a record may still be there. It is far longer
// than a store needs, because the machine may be busy.
const expiryDelay = 10 * time.Second

// Run tests the stores that open returns. open is called once for each test, and
// must arrange for the store to be closed.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"a record changes only from its old value": testSwap,
		"a record is deleted":                      testDelete,
		"a record expires":                         testExpiry,
		"one of many changes succeeds":             testConcurrentSwaps,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// newKey returns a key that no other test uses.
func newKey() string { return "storetest:" + rand.Text() }

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// wantRecord checks the record; nil: there must be none.
func wantRecord(t *testing.T, s store.Store, key string, want []byte) {
	t.Helper()
	got, err := s.Find(within(t), key, time.Hour)
	if err != nil || (got == nil) != (want == nil) || string(got) != string(want) {
		t.Errorf("got the record %q, %v; want %q", got, err, want)
	}
}

// swap checks whether a swap succeeds.
func swap(t *testing.T, s store.Store, key string, old, value []byte, ttl time.Duration, want bool) {
	t.Helper()
	got, err := s.Swap(within(t), key, old, value, ttl)
	if err != nil || got != want {
		t.Errorf("swap of %q by %q: got %v, %v; want %v", old, value, got, err, want)
	}
}

func testSwap(t *testing.T, s store.Store) {
	key, one, two := newKey(), []byte("one\x00\xff"), []byte("two")
	wantRecord(t, s, key, nil)
	swap(t, s, key, one, two, time.Hour, false)
	wantRecord(t, s, key, nil)
	swap(t, s, key, nil, one, time.Hour, true)
	swap(t, s, key, nil, two, time.Hour, false)
	swap(t, s, key, two, two, time.Hour, false)
	wantRecord(t, s, key, one)
	swap(t, s, key, one, two, time.Hour, true)
	wantRecord(t, s, key, two)
}

func testDelete(t *testing.T, s store.Store) {
	ctx, key, one := within(t), newKey(), []byte("one")
	deleteIf := func(old []byte, want bool) {
		t.Helper()
		if got, err := s.DeleteIf(ctx, key, old); err != nil || got != want {
			t.Errorf("delete if %q: got %v, %v; want %v", old, got, err, want)
		}
	}
	deleteIf(one, false)
	swap(t, s, key, nil, one, time.Hour, true)
	deleteIf([]byte("two"), false)
	wantRecord(t, s, key, one)
	deleteIf(one, true)
	wantRecord(t, s, key, nil)
	swap(t, s, key, nil, one, time.Hour, true)
	for range 2 { // the second time there is none
		if err := s.Delete(ctx, key); err != nil {
			t.Errorf("delete: %v", err)
		}
		wantRecord(t, s, key, nil)
	}
}

func testExpiry(t *testing.T, s store.Store) {
	const short = 100 * time.Millisecond
	ctx, one := within(t), []byte("one")
	stored, found, changed, ended := newKey(), newKey(), newKey(), newKey()
	swap(t, s, stored, nil, one, short, true)
	swap(t, s, found, nil, one, time.Hour, true)
	if _, err := s.Find(ctx, found, short); err != nil {
		t.Fatal(err)
	}
	swap(t, s, changed, nil, one, time.Hour, true)
	swap(t, s, changed, one, []byte("two"), short, true)
	swap(t, s, ended, nil, one, -time.Second, true) // it has expired already
	until := time.Now().Add(short + expiryDelay)
	for name, key := range map[string]string{"stored": stored, "found": found, "changed": changed, "stored with a negative ttl": ended} {
		for {
			swapped, err := s.Swap(ctx, key, nil, []byte("three"), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if swapped {
				break
			}
			if time.Now().After(until) {
				t.Errorf("the record that was %s has not expired after %v", name, short+expiryDelay)
				break
			}
			time.Sleep(10 * time.Millisecond) // the test waits for time to pass
		}
	}
	kept := newKey()
	swap(t, s, kept, nil, one, short, true)
	wantRecord(t, s, kept, one) // it now expires after an hour
	time.Sleep(2 * short)
	wantRecord(t, s, kept, one)
}

func testConcurrentSwaps(t *testing.T, s store.Store) {
	const swaps = 32
	ctx, key := within(t), newKey()
	results := make(chan bool, swaps)
	for i := range swaps {
		go func() {
			swapped, err := s.Swap(ctx, key, nil, fmt.Appendf(nil, "%d", i), time.Hour)
			if err != nil {
				t.Errorf("swap: %v", err)
			}
			results <- swapped
		}()
	}
	succeeded := 0
	for range swaps {
		if <-results {
			succeeded++
		}
	}
	if succeeded != 1 {
		t.Errorf("%d of %d swaps succeeded, want 1", succeeded, swaps)
	}
}
