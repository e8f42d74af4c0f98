package ingress

import (
	"net/http"
	"time"

	"go.uber.org/zap"
)

// writeTimeout is how long a response may take from the request's arrival on;
// calls that may last longer and live tails put it off.
const writeTimeout = 90 * time.Second

// NewServer returns an http.Server for h with limits that a public port needs:
// 10 s for a request's header fields and 32 KiB in all (431 above), 120 s
// between requests. Its own complaints go to log at debug: they are about
// clients. Bodies and answers have their limits in the handler.
func NewServer(h http.Handler, log *zap.Logger) *http.Server {
	if log == nil {
		log = zap.NewNop()
	}
	complaints, err := zap.NewStdLogAt(log.Named("http"), zap.DebugLevel)
	if err != nil { // never: the level exists
		panic(err)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          complaints,
	}
}
