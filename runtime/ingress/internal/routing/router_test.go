package routing

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestRunUpdatesWithoutRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var directory contract.Directory
		r := NewRouter(Config{
			Directory: func() *contract.Directory { return &directory },
			Call:      func(*Function) http.Handler { return http.NotFoundHandler() },
			Log:       zap.NewNop(),
		})
		go r.Run(t.Context()) // the bubble ends with it
		synctest.Wait()
		directory.Update(contract.Announcement{Worker: "w1", Started: time.Now(), Functions: []contract.Descriptor{{
			Name: "late", Kind: contract.KindRequest, Keys: []string{"late"}, Route: &contract.Route{Method: "GET", Path: "/x/{id}"},
		}}}, time.Now())
		synctest.Wait()
		if !r.current.Load().Routed("late") {
			t.Error("the route is not there")
		}
	})
}
