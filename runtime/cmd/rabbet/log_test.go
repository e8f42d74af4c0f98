package main

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestStackOfAPanicIsNoField(t *testing.T) {
	core, lines := observer.New(zapcore.ErrorLevel)
	logInvocations(zap.New(core))(contract.Invocation{
		Function: "f", Outcome: contract.OutcomeFailed, Err: &contract.Error{Code: contract.CodePanic, Stack: []byte("goroutine 1")},
	})
	line := lines.All()[0]
	if _, field := line.ContextMap()["stack"]; field || line.Stack != "goroutine 1" {
		t.Errorf("got the stack %q and the fields %v, want it readable on a console", line.Stack, line.ContextMap())
	}
}
