package results

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/cache"
)

// A cache in the memory of this process would be one that no other can invalidate.
func TestOwnCacheIsRefused(t *testing.T) {
	for _, url := range []string{"memory://", "memory://?size=8"} {
		if r, err := open(&config.Config{BrokerURL: "amqp://127.0.0.1:1/", CacheURL: url}, nil); err == nil {
			t.Errorf("rabbet cache with %s: got %v", url, r)
		}
	}
}

func TestPrintStored(t *testing.T) {
	tags := func(agrees bool) []cache.StoredTag { return []cache.StoredTag{{Tag: "thing:\x1b[2J", Agrees: agrees}} }
	found := cache.Stored{Key: "k", Found: true, Size: 5, Tags: tags(true), Born: time.Now(), TTL: time.Minute, ETag: `"e"`, Body: []byte(`"a"`)}
	changed := func(change func(*cache.Stored)) cache.Stored {
		s := found
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		stored cache.Stored
		want   string
	}{
		"nothing":     {cache.Stored{Key: "k", Tags: tags(false)}, "key     k\nstored  nothing\ntag     thing:\\u001b[2J\n"},
		"unreadable":  {cache.Stored{Key: "k", Size: 5, Tags: tags(false)}, "stored  5 bytes that cannot be read here; the next call replaces them\ntag     thing:\\u001b[2J\n"},
		"fresh":       {found, "stored  5 bytes, 0s old, fresh for 1m0s\ntag     thing:\\u001b[2J  agrees\netag    \"e\"\n\n\"a\"\n"},
		"stale":       {changed(func(s *cache.Stored) { s.TTL = -time.Minute }), "stored  5 bytes, 0s old, stale since 1m0s\n"},
		"invalidated": {changed(func(s *cache.Stored) { s.Tags = tags(false) }), "invalidated: the next call replaces them\ntag     thing:\\u001b[2J  invalidated since\n"},
		"a failure":   {changed(func(s *cache.Stored) { s.Failure, s.ETag = "not-found", "" }), "failure  not-found\n"},
	} {
		var out bytes.Buffer
		if err := printStored(&out, &tt.stored); err != nil || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: got %q, %v; want %q in it", name, out.String(), err, tt.want)
		}
	}
}

func TestPrintStats(t *testing.T) {
	var out bytes.Buffer
	err := printStats(&out, []cache.Stats{
		{Process: "a", Hits: 2, Misses: 1, Read: 1023, Written: 1<<20 + 1<<19},
		{Process: "b", Hits: 9, Local: 7, LocalSize: 64 << 20, LocalBytes: 1 << 10, LocalOn: true},
		{Process: "c", LocalSize: 64 << 20},
	})
	lines := strings.Split(out.String(), "\n")
	if err != nil || len(lines) != 5 {
		t.Fatalf("got %q, %v", out.String(), err)
	}
	for i, want := range []string{
		"PROCESS HITS RATE STALE MISSES COLLAPSED BYPASSES FILLS INVALIDATED ERRORS READ WRITTEN HITS IN PROCESS KEPT IN PROCESS",
		"a 2 67% 0 1 0 0 0 0 0 1023 B 1.5 MiB - -",
		"b 9 100% 0 0 0 0 0 0 0 0 B 0 B 7 1.0 KiB of 64.0 MiB",
		"c 0 - 0 0 0 0 0 0 0 0 B 0 B 0 0 B of 64.0 MiB, off: broadcasts are not received",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d: got %q, want %q", i+1, got, want)
		}
	}
}
