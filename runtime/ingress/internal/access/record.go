// Package access keeps what the ingress notes of a request while it serves it,
// and writes the access log. It does not know what the request asks for.
package access

import (
	"context"
	"time"
)

// Record is what is noted of one request. The goroutine that serves the request
// owns it.
type Record struct {
	ID       string    // of the call; echoed in X-Request-Id
	Start    time.Time // when the header fields had arrived
	Function string    // name, once it is known
	Status   int       // of the response; 0 before it is written
	Gone     bool      // the client left before it got the response
	Cause    error     // why the request failed, for the log
}

type recordKey struct{}

// RecordOf returns the record of the request that ctx belongs to. Outside of
// Handler it returns an empty one.
func RecordOf(ctx context.Context) *Record {
	if r, ok := ctx.Value(recordKey{}).(*Record); ok {
		return r
	}
	return &Record{}
}

// Clip shortens text from a client, so that log lines and responses do not grow
// with what it sends.
func Clip(s string) string {
	const limit = 256 // bytes
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
