// Package storetest is the test suite that every store of the results cache must
// pass: what store.Store promises, and that results stay coherent on it. It knows
// no particular store: the store's own test opens it.
package storetest

import (
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// A Harness opens the store under test. Each test uses keys of its own, so that
// the server may be shared with other tests.
type Harness struct {
	// Open returns a store on a server that works. It must be closed when t ends.
	// Two shared stores (see store.Store.Shared) have the same contents.
	Open func(t *testing.T) store.Store

	// OpenDown returns a store with a timeout of DownTimeout whose server does not
	// answer. It is nil for a store without a server.
	OpenDown func(t *testing.T) store.Store
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"get, set and delete":      testGetSetDelete,
		"keys":                     testKeys,
		"large values":             testLargeValues,
		"expiry":                   testExpiry,
		"add":                      testAdd,
		"add from many":            testConcurrentAdd,
		"concurrent use":           testConcurrentUse,
		"ended context":            testEndedContext,
		"server that is down":      testDown,
		"hit":                      testHit,
		"invalidation during fill": testInvalidationDuringFill,
		"evicted generation":       testEvictedGeneration,
		"evictions at random":      testRandomEvictions,
		"lease":                    testLease,
	} {
		t.Run(name, func(t *testing.T) { test(t, h) })
	}
}
