package main

import (
	"cmp"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/logline"
)

// newLog returns the logger that c asks for. It writes to standard error: as
// JSON within logDelay, so that lines which come close together share a system
// call, from warn up at once.
func newLog(c *config, format string) *zap.Logger {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		level = zapcore.InfoLevel // readConfig has refused it
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.StacktraceKey = "stack"
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.SecondsDurationEncoder
	if cmp.Or(c.LogFormat, format) == "console" {
		encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoding.EncodeDuration = zapcore.StringDurationEncoder
		return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(encoding), zapcore.Lock(os.Stderr), level))
	}
	plain := zapcore.AddSync(struct{ io.Writer }{os.Stderr}) // written is enough: a pipe or a terminal cannot be synced
	sink := &zapcore.BufferedWriteSyncer{WS: plain, FlushInterval: logDelay, Size: logBuffer}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoding), sink, level)
	return zap.New(zapcore.RegisterHooks(core, func(e zapcore.Entry) error {
		if e.Level < zapcore.WarnLevel {
			return nil
		}
		return sink.Sync()
	}))
}

// How long a line may wait for others, a warning and what is worse not at all,
// and how many bytes of them may. The calls of that moment wait while they are
// written: with a longer delay, less than one of a hundred does; with a small
// buffer, for microseconds.
const (
	logDelay  = 250 * time.Millisecond
	logBuffer = 16 << 10
)

// logInvocations writes one line for each run of a function.
func logInvocations(log *zap.Logger) contract.Observer {
	return func(i contract.Invocation) {
		level := zapcore.InfoLevel
		if i.Outcome == contract.OutcomeDead || i.Outcome == contract.OutcomeFailed && !contract.AsError(i.Err).Permanent() {
			level = zapcore.ErrorLevel
		} else if i.Outcome == contract.OutcomeRetry {
			level = zapcore.WarnLevel
		} else if strings.HasPrefix(i.Key, devKeys) {
			level = zapcore.DebugLevel
		}
		entry := log.Check(level, "invocation")
		if entry == nil {
			return
		}
		if e := contract.AsError(i.Err); e != nil && len(e.Stack) > 0 {
			entry.Stack = string(e.Stack) // which is readable on a console
		}
		line := logline.Invocation(i) // allocated for who is written only
		entry.Write(zap.Inline(&line))
	}
}
