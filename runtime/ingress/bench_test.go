package ingress

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// sink is a ResponseWriter that costs nothing, so that the allocations counted
// are the ingress's own.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}

// quietBroker is a fakeBroker that remembers nothing.
type quietBroker struct{ *fakeBroker }

func (quietBroker) Call(_ context.Context, r contract.Call) (contract.Reply, error) {
	return contract.Reply{Body: r.Body, Run: time.Millisecond}, nil
}

func benchmark(b *testing.B, h http.Handler, target string, fields ...string) {
	r := httptest.NewRequest("GET", target, nil)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Set(name, value)
	}
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

func BenchmarkCall(b *testing.B) {
	benchmark(b, New(Config{Broker: quietBroker{newBroker()}}), "/profiles/42")
}

func BenchmarkHit(b *testing.B) { benchmark(b, hits(), "/cached/42") }

// A 304 costs no more than the hit that it saves.
func BenchmarkNotModified(b *testing.B) {
	benchmark(b, hits(), "/cached/42", `If-None-Match: "EjRWeJq83v8SNFZ4mrze"`)
}

// hits is an ingress that finds everything in its cache.
func hits() http.Handler {
	broker, _ := cached(nil)
	hit := &fakeResults{result: &contract.CacheResult{Reply: contract.Reply{Body: []byte(`{"id":"42"}`)}, Hit: true, ETag: `"EjRWeJq83v8SNFZ4mrze"`, TTL: time.Minute}}
	return New(Config{Broker: broker, Results: hit})
}
