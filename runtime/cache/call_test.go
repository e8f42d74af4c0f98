package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/servertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A panic of the caller's own code in a run that several calls wait for is an
// error for all of them.
func TestPanickingRun(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		release := make(chan struct{})
		next := brokerFunc(func(context.Context, contract.Call) (contract.Reply, error) {
			<-release
			panic("out of luck")
		})
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() { // ends with the call
				_, err := r.Call(t.Context(), next, descriptor, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
				errs <- err
			}()
		}
		servertest.Eventually(t, "both wait", func() bool { return waiting(r) == cap(errs) })
		close(release)
		for range cap(errs) {
			err := <-errs
			if failure := contract.AsError(err); failure == nil || failure.Code != contract.CodeInternal || !strings.Contains(fmt.Sprint(failure.Cause), "out of luck") {
				t.Errorf("got %v, want the panic", err)
			}
		}
	})
}
