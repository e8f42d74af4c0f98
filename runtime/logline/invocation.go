// Package logline is what a log line says of a run of a function. Who hosts
// functions writes it, and the runtime itself does not know of a log.
package logline

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Invocation is the fields of a line. With zap.Inline they cost less memory
// together than as a zap.Field each.
type Invocation contract.Invocation

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (i *Invocation) MarshalLogObject(line zapcore.ObjectEncoder) error {
	line.AddString("function", i.Function)
	line.AddString("key", i.Key)
	line.AddString("id", i.ID)
	line.AddInt("attempt", i.Attempt)
	line.AddDuration("run", i.Run)
	line.AddString("outcome", string(i.Outcome))
	if i.Trace.Parent != "" {
		line.AddString("traceparent", i.Trace.Parent)
	}
	if i.Outcome == contract.OutcomeRetry {
		line.AddDuration("after", i.After)
	}
	zap.Error(i.Err).AddTo(line) // nothing for nil
	return nil
}
