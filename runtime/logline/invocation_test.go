package logline

import (
	"errors"
	"maps"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A line has what matters of a run, and nothing of what there was not.
func TestInvocation(t *testing.T) {
	i := Invocation{Function: "f", Key: "k", ID: "1", Attempt: 2, Run: time.Second, Outcome: contract.OutcomeDone}
	want := map[string]any{"function": "f", "key": "k", "id": "1", "attempt": 2, "run": time.Second, "outcome": "done"}
	expect := func() {
		t.Helper()
		line := zapcore.NewMapObjectEncoder()
		if err := i.MarshalLogObject(line); err != nil || !maps.Equal(line.Fields, want) {
			t.Errorf("got %v, %v; want %v", line.Fields, err, want)
		}
	}
	expect()
	i.Outcome, i.After, i.Err, i.Trace.Parent = contract.OutcomeRetry, time.Minute, errors.New("why"), "00-01"
	want["outcome"], want["after"], want["error"], want["traceparent"] = string(contract.OutcomeRetry), time.Minute, "why", "00-01"
	expect()
}
