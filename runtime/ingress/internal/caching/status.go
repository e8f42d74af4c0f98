package caching

import (
	"strconv"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Status returns the Cache-Status of a result (RFC 9211). negative says that it
// is an error.
func Status(result *contract.CacheResult, negative bool) string {
	b := append(make([]byte, 0, 64), "Rabbet"...)
	ttl := int64(result.TTL / time.Second)
	if result.TTL < 0 {
		ttl = min(ttl, -1) // also in its first second
	}
	switch {
	case result.Hit && result.Forward != "": // the function ran and failed, see contract.CachePolicy.StaleIfError
		b = append(append(append(b, "; fwd="...), result.Forward...), "; ttl="...)
		b = append(strconv.AppendInt(b, ttl, 10), "; detail=stale-if-error"...)
	case result.Hit:
		b = strconv.AppendInt(append(b, "; hit; ttl="...), ttl, 10)
	default:
		forward := result.Forward
		if forward == "" {
			forward = "miss"
		}
		b = append(append(b, "; fwd="...), forward...)
		if result.Stored {
			b = append(b, "; stored"...)
		}
		if result.Collapsed {
			b = append(b, "; collapsed"...)
		}
	}
	if negative && (result.Hit || result.Stored) {
		b = append(b, "; detail=negative"...)
	}
	return string(b)
}

// Seconds returns the full seconds of d as text.
func Seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
