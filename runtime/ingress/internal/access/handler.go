package access

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
)

// StatusClientGone stands in the log for a client that left before it got a
// response. NGINX uses the same code. It is never sent.
const StatusClientGone = 499

// Config configures a Handler. All fields are required.
type Config struct {
	Log *zap.Logger
	// Client returns the address of the client of a request.
	Client func(*http.Request) string
	// BeforeHeader is called with the header fields of each response just before
	// they are written.
	BeforeHeader func(http.Header)
}

// Handler returns next with a Record and an id for each request, and a log entry
// after it: at warn for a 5xx, at info for a client that left, else at debug,
// because the worker that ran the function and the proxy in front log it too. A
// request whose handler panics is not logged.
func Handler(next http.Handler, cfg Config) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := &responseWriter{ResponseWriter: w, beforeHeader: cfg.BeforeHeader}
		record := &rw.record
		record.ID, record.Start = header.CallID(r.Header), time.Now()
		w.Header()["X-Request-Id"] = []string{record.ID}
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, record))
		next.ServeHTTP(rw, r)
		record.log(r, cfg)
	})
}

func (record *Record) log(r *http.Request, cfg Config) {
	status, level := record.Status, zapcore.DebugLevel
	if record.Gone {
		status, level = StatusClientGone, zapcore.InfoLevel
	} else if status >= http.StatusInternalServerError {
		level = zapcore.WarnLevel
	}
	entry := cfg.Log.Check(level, "request")
	if entry == nil {
		return
	}
	entry.Write(
		zap.String("method", r.Method),
		zap.String("path", Clip(r.URL.Path)),
		zap.Int("status", status),
		zap.Duration("took", time.Since(record.Start)),
		zap.String("function", record.Function),
		zap.String("id", record.ID),
		zap.String("client", cfg.Client(r)),
		zap.Error(record.Cause),
	)
}

// responseWriter notes the status in the record.
type responseWriter struct {
	http.ResponseWriter
	beforeHeader func(http.Header)
	record       Record
}

// WriteHeader writes the header fields and notes the status.
func (w *responseWriter) WriteHeader(status int) {
	if status >= http.StatusOK && w.record.Status == 0 { // informational responses precede others
		w.record.Status = status
		w.beforeHeader(w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(b []byte) (int, error) {
	if w.record.Status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
