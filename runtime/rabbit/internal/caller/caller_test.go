package caller

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// Pending calls are bounded in number and in bytes. A further one fails at once,
// was not executed, and may be tried again soon.
func TestPendingCallsAreBounded(t *testing.T) {
	for name, fill := range map[string]func(*Caller){
		"calls": func(c *Caller) {
			for i := range maxPending {
				c.pending[string(rune(i))+"filler"] = nil
			}
		},
		"bytes": func(c *Caller) { c.bytes = maxPendingBytes },
	} {
		t.Run(name, func(t *testing.T) {
			c := New(Config{Publish: connection.New(connection.Config{Log: zap.NewNop()}, "publish")})
			s := &session{caller: c}
			p := &pendingCall{size: 1}
			if e := c.refusal(s, p); e != nil {
				t.Fatalf("got %v without pending calls, want none", e)
			}
			fill(c)
			c.session = s
			began := time.Now()
			_, err := c.Call(t.Context(), contract.Call{Key: "key", Body: []byte("{}")})
			e, _ := errors.AsType[*contract.Error](err)
			if e == nil || e.Code != contract.CodeUnavailable || e.Executed != contract.ExecutedNo || e.After <= 0 {
				t.Errorf("got %v, want unavailable, not executed, with After", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v, want it at once", took)
			}
		})
	}
}
