// Package storetest is the test suite that every store of an inbox must pass.
package storetest

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// timeout bounds each operation.
const timeout = time.Minute

// expiryDelay is how long after its time a key may still be taken. It is far longer
// than a store needs, because the machine may be busy.
const expiryDelay = 10 * time.Second

// Run tests the stores that open returns. open is called once for each test, and
// must arrange for the store to be closed.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"a key is leased, released and done": testStates,
		"leases and done keys expire":        testExpiry,
		"one of many claims succeeds":        testConcurrentClaims,
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

func testStates(t *testing.T, s store.Store) {
	ctx, key := within(t), newKey()
	claim := func(token string, want store.State) time.Duration {
		t.Helper()
		got, err := s.Claim(ctx, key, token, time.Hour)
		if err != nil || got.State != want {
			t.Fatalf("claim of %s: got %+v, %v; want %s", token, got, err, want)
		}
		return got.Left
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	claim("a", store.Mine)
	claim("a", store.Mine) // a renewal, or a repeated claim whose answer was lost
	if left := claim("b", store.Elsewhere); left <= 59*time.Minute || left > time.Hour {
		t.Errorf("got a lease of %v, want an hour", left)
	}
	must(s.Release(ctx, key, "b"))
	claim("b", store.Elsewhere)
	must(s.Release(ctx, key, "a"))
	must(s.Release(ctx, key, "a"))
	claim("b", store.Mine)
	must(s.Complete(ctx, key, time.Hour))
	must(s.Complete(ctx, key, time.Hour))
	claim("a", store.Done)
	claim("b", store.Done)
	must(s.Release(ctx, key, "b"))
	claim("b", store.Done)
}

func testExpiry(t *testing.T, s store.Store) {
	const short = 50 * time.Millisecond
	ctx, leased, done := within(t), newKey(), newKey()
	if _, err := s.Claim(ctx, leased, "a", short); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(ctx, done, short); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(short + expiryDelay)
	for name, key := range map[string]string{"leased": leased, "done": done} {
		for {
			claim, err := s.Claim(ctx, key, "b", time.Hour)
			if err != nil {
				t.Fatalf("claim: %v", err)
			}
			if claim.State == store.Mine {
				break
			}
			if time.Now().After(until) {
				t.Errorf("the key that was %s is still %s after %v", name, claim.State, short+expiryDelay)
				break
			}
			time.Sleep(10 * time.Millisecond) // the test waits for time to pass
		}
	}
}

func testConcurrentClaims(t *testing.T, s store.Store) {
	const claims = 32
	ctx, key := within(t), newKey()
	results := make(chan store.Claim, claims)
	for range claims {
		go func() {
			claim, err := s.Claim(ctx, key, rand.Text(), time.Hour)
			if err != nil {
				t.Errorf("claim: %v", err)
			}
			results <- claim
		}()
	}
	mine := 0
	for range claims {
		if claim := <-results; claim.State == store.Mine {
			mine++
		}
	}
	if mine != 1 {
		t.Errorf("%d of %d claims succeeded, want 1", mine, claims)
	}
}
