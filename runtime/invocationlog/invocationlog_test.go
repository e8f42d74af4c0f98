package invocationlog

import (
	"errors"
	"maps"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A line has a field only if the invocation has a value for it.
func TestFields(t *testing.T) {
	i := fields{Function: "f", Key: "k", ID: "1", Attempt: 2, Run: time.Second, Outcome: contract.OutcomeDone}
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

func TestLevel(t *testing.T) {
	for _, c := range []struct {
		outcome contract.Outcome
		err     error
		want    zapcore.Level
	}{
		{contract.OutcomeDone, nil, zapcore.InfoLevel},
		{contract.OutcomeFailed, contract.ErrNotFound, zapcore.InfoLevel},
		{contract.OutcomeFailed, errors.New("broken"), zapcore.ErrorLevel},
		{contract.OutcomeRetry, errors.New("broken"), zapcore.WarnLevel},
		{contract.OutcomeDead, contract.ErrInvalid, zapcore.ErrorLevel},
	} {
		if got := Level(contract.Invocation{Outcome: c.outcome, Err: c.err}); got != c.want {
			t.Errorf("%s with %v: got %v, want %v", c.outcome, c.err, got, c.want)
		}
	}
}
