package problem

import (
	"errors"
	"net/http"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
)

// Recover returns next with its panics logged and answered with a 500, if nothing
// has been written yet. It does not recover http.ErrAbortHandler.
func Recover(next http.Handler, log *zap.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			if err, ok := value.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(value)
			}
			record := access.RecordOf(r.Context())
			log.Error("the ingress panicked", zap.Any("panic", value), zap.String("id", record.ID), zap.ByteString("stack", debug.Stack()))
			if record.Status == 0 {
				p := New(http.StatusInternalServerError, "the ingress failed")
				p.Executed = contract.ExecutedUnknown
				Write(w, r, p)
			}
		}()
		next.ServeHTTP(w, r)
	})
}
