// Package logs makes the logger of a process. It knows the format of a
// line, and nothing of what is logged except the invocations of functions.
package logs

import (
	"cmp"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/invocationlog"
)

// New returns the logger that c asks for; format is "json" or "console", for a c
// that names none. The logger writes to standard error. JSON lines are buffered for
// up to 250 ms, so that lines which come close together share a system call;
// warnings and errors are written at once.
func New(c *config.Config, format string) *zap.Logger {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		level = zapcore.InfoLevel // config.Read has refused it
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
	plain := zapcore.AddSync(struct{ io.Writer }{os.Stderr}) // without Sync, which fails on a pipe or a terminal
	sink := &zapcore.BufferedWriteSyncer{WS: plain, FlushInterval: logDelay, Size: logBuffer}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoding), sink, level)
	return zap.New(zapcore.RegisterHooks(core, func(e zapcore.Entry) error {
		if e.Level < zapcore.WarnLevel {
			return nil
		}
		return sink.Sync()
	}))
}

// How long a line below warn may be buffered, and how many bytes may be. Calls
// that log while the buffer is written wait for that: with this delay fewer than
// one in a hundred does, and with this size for microseconds.
const (
	logDelay  = 250 * time.Millisecond
	logBuffer = 16 << 10
)

// Invocations returns an observer that writes one line for each run of a function.
// Runs of the functions of 'rabbet dev' itself are logged at debug.
func Invocations(log *zap.Logger) contract.Observer {
	return func(i contract.Invocation) {
		level := invocationlog.Level(i)
		if level == zapcore.InfoLevel && strings.HasPrefix(i.Key, config.DevKeys) {
			level = zapcore.DebugLevel
		}
		invocationlog.Write(log, level, i)
	}
}
