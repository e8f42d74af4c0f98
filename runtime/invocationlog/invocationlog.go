// Package invocationlog logs the runs of functions, one line per run. Payloads are
// not logged. Brokers do not log runs themselves: they call an observer, which the
// program passes to them.
package invocationlog

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Observer returns an observer that logs each run with its Level. It is for
// memory.Config and rabbit.Config, and safe for concurrent use.
func Observer(log *zap.Logger) contract.Observer {
	return func(i contract.Invocation) { Write(log, Level(i), i) }
}

// Level returns the level of a run: error if an event became a dead letter or a
// call failed with an error that is not permanent, warn if an event will be
// retried, otherwise info.
func Level(i contract.Invocation) zapcore.Level {
	switch {
	case i.Outcome == contract.OutcomeDead, i.Outcome == contract.OutcomeFailed && !contract.AsError(i.Err).Permanent():
		return zapcore.ErrorLevel
	case i.Outcome == contract.OutcomeRetry:
		return zapcore.WarnLevel
	}
	return zapcore.InfoLevel
}

// Write logs a run. The stack of a panic becomes the stack of the line.
func Write(log *zap.Logger, level zapcore.Level, i contract.Invocation) {
	entry := log.Check(level, "invocation")
	if entry == nil {
		return
	}
	if e := contract.AsError(i.Err); e != nil && len(e.Stack) > 0 {
		entry.Stack = string(e.Stack)
	}
	f := fields(i) // allocated only for a line that is written
	entry.Write(zap.Inline(&f))
}

// fields are the fields of a line. Together they cost less memory than as one
// zap.Field each.
type fields contract.Invocation

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (f *fields) MarshalLogObject(line zapcore.ObjectEncoder) error {
	line.AddString("function", f.Function)
	line.AddString("key", f.Key)
	line.AddString("id", f.ID)
	line.AddInt("attempt", f.Attempt)
	line.AddDuration("run", f.Run)
	line.AddString("outcome", string(f.Outcome))
	if f.Trace.Parent != "" {
		line.AddString("traceparent", f.Trace.Parent)
	}
	if f.Outcome == contract.OutcomeRetry {
		line.AddDuration("after", f.After)
	}
	zap.Error(f.Err).AddTo(line) // adds nothing for nil
	return nil
}
