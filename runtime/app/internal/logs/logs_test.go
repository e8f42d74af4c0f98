package logs

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestStackOfAPanicIsNoField(t *testing.T) {
	core, lines := observer.New(zapcore.ErrorLevel)
	Invocations(zap.New(core))(contract.Invocation{
		Function: "f", Outcome: contract.OutcomeFailed, Err: &contract.Error{Code: contract.CodePanic, Stack: []byte("goroutine 1")},
	})
	line := lines.All()[0]
	if _, field := line.ContextMap()["stack"]; field || line.Stack != "goroutine 1" {
		t.Errorf("got the stack %q and the fields %v, want it readable on a console", line.Stack, line.ContextMap())
	}
}

func TestWarningsAreWholeLines(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := os.Stderr
	os.Stderr = w
	log := New(&config.Config{LogLevel: "info"}, "json")
	os.Stderr = before
	log.Warn("careful")
	_ = log.Sync()
	w.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), `{"level":"warn"`) {
			t.Errorf("got the line %s, want nothing but the warning", lines.Text())
		}
	}
}
