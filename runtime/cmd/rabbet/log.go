package main

import (
	"cmp"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// newLog returns the logger that c asks for. It writes to standard error.
func newLog(c *config, format string) *zap.Logger {
	zc := zap.NewProductionConfig()
	zc.Level = zap.NewAtomicLevelAt(zapcore.InfoLevel)
	if level, err := zapcore.ParseLevel(c.LogLevel); err == nil {
		zc.Level.SetLevel(level)
	}
	zc.Sampling = nil // a line that is missing is a lie
	zc.DisableCaller, zc.DisableStacktrace = true, true
	zc.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	zc.EncoderConfig.EncodeDuration = zapcore.SecondsDurationEncoder
	if zc.Encoding = cmp.Or(c.LogFormat, format); zc.Encoding == "console" {
		zc.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		zc.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
		zc.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	}
	log, err := zc.Build()
	if err != nil {
		return zap.NewNop() // not possible: the encodings and the output are fixed
	}
	return log
}

// logInvocations writes one line for each run of a function.
func logInvocations(log *zap.Logger) faas.Observer {
	return func(i faas.Invocation) {
		level := zapcore.InfoLevel
		if i.Outcome == faas.Dead || i.Outcome == faas.Failed && !faas.AsError(i.Err).Permanent() {
			level = zapcore.ErrorLevel
		} else if i.Outcome == faas.Again {
			level = zapcore.WarnLevel
		} else if strings.HasPrefix(i.Key, devKeys) {
			level = zapcore.DebugLevel
		}
		entry := log.Check(level, "invocation")
		if entry == nil {
			return
		}
		fields := make([]zap.Field, 0, 10)
		fields = append(fields,
			zap.String("function", i.Function), zap.String("key", i.Key), zap.String("id", i.ID),
			zap.Int("attempt", i.Attempt), zap.Duration("run", i.Run), zap.String("outcome", string(i.Outcome)))
		if i.Trace.Parent != "" {
			fields = append(fields, zap.String("traceparent", i.Trace.Parent))
		}
		if i.Outcome == faas.Again {
			fields = append(fields, zap.Duration("after", i.After))
		}
		if i.Err != nil {
			fields = append(fields, zap.NamedError("error", i.Err))
			if e := faas.AsError(i.Err); len(e.Stack) > 0 {
				fields = append(fields, zap.ByteString("stack", e.Stack))
			}
		}
		entry.Write(fields...)
	}
}
