package cache

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"", "no scheme"},
		{"localhost:6379", "no scheme"},
		{"http://localhost", `scheme "http"`},
		{"memory://?size=0", "memory://?size=256"},
		{"memory://64", "memory://?size=256"},
		{"redis://me:secret@localhost:port", "cannot be read"},
		{"redis://me:se%zzcret@localhost", "cannot be read"},
		{"redis://me:secret@a:1,b:2", "redis+cluster"},
		{"redis://me:secret@localhost/zero", "database"},
		{"redis+sentinel://me:secret@a:1,b:2", "master_name"},
		{"memcached://", "addresses and nothing else"},
		{"memcached://me:secret@a", "addresses and nothing else"},
	} {
		_, err := Open(tt.url, Config{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q): got %v, want it to say %q", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) shows the password: %v", tt.url, err)
		}
	}
	if _, err := Open("memory://", Config{Namespace: "a b"}); err == nil {
		t.Error("a namespace with a space: got nil, want an error")
	}
}

func spelled(body string) (spelling, bool) {
	var in spelling
	ok := in.read([]byte(body))
	return in, ok
}

func TestSpellings(t *testing.T) {
	for _, same := range [][]string{
		{`{"id":"42","n":1}`, ` { "n" : 1 , "id" : "\u0034\u0032" } `, "{\n\"id\":\"42\",\"n\":1}\n"},
		{`{}`, ``, ` { } `},
		{`{"a":[1,{"b":2,"c":null}],"z":"<"}`, `{"z":"\u003c","a":[1, {"c":null,"b":2}]}`},
	} {
		want, ok := spelled(same[0])
		if !ok {
			t.Fatalf("%s: refused", same[0])
		}
		for _, s := range same {
			if got, ok := spelled(s); !ok || entrySum(descriptor, "", got.text) != entrySum(descriptor, "", want.text) {
				t.Errorf("%q: got another key than %q", s, same[0])
			}
		}
	}
	for _, different := range [][2]string{
		{`{"n":1}`, `{"n":1.0}`}, {`{"n":1}`, `{"n":"1"}`}, {`{"n":"a"}`, `{"n":"A"}`}, {`{"n":10000000000000000001}`, `{"n":10000000000000000002}`},
		{`{"a":"b,c"}`, `{"a":"b","c":""}`}, {`{"a":[1,2]}`, `{"a":[2,1]}`},
	} {
		a, okA := spelled(different[0])
		b, okB := spelled(different[1])
		if !okA || !okB || string(a.text) == string(b.text) {
			t.Errorf("%s and %s: got the same key", different[0], different[1])
		}
	}
}

// What takes time by the square of its size is for small inputs only.
func TestSpellingsOfHostileInputs(t *testing.T) {
	var wide strings.Builder
	for i := range 5_000 {
		fmt.Fprintf(&wide, `,"k%04d":0`, i)
	}
	body := "{" + wide.String()[1:] + "}"
	if new(spelling).scan([]byte(body)) {
		t.Error("each of 5,000 members was compared with all the others")
	}
	if got, ok := spelled(body); !ok || string(got.text) != body || len(got.members) != 5_000 {
		t.Errorf("got %d members, %v, want all 5,000 in their order", len(got.members), ok)
	}
	for depth, want := range map[int]bool{maxDepth: true, maxDepth + 1: false} {
		if _, ok := spelled(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)); ok != want {
			t.Errorf("%d objects in each other: cached %v, want %v", depth, ok, want)
		}
	}
}

// The short way must agree with the long one on everything it takes.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{}`, input, `{"a":1,"b":true}`, `{"a":"<"}`, `{"a":-0}`, `{"a":01}`, `{"a":"x"`, `{"a":}`, `{"a":1,}`, `{,}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		quick := new(spelling)
		if !quick.scan(body) {
			return
		}
		slow, ok := spelled(" " + string(body)) // the space takes it the long way
		if !ok || string(slow.text) != string(body) {
			t.Errorf("%q is taken as it stands, want it refused or as %v", body, slow)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	offer(t, 30_000)
}

// BenchmarkMemoryIsBounded offers ten million keys. It takes half a minute.
func BenchmarkMemoryIsBounded(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(offer(b, 10_000_000))/(1<<20), "MiB")
	}
}

// offer sets n distinct keys of a store that is bounded at 4 MiB, and returns
// how much of the heap it took at the most.
func offer(t testing.TB, n int) (peak uint64) {
	m, err := openMemory("?size=4")
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	value := strings.Repeat("x", 100)
	for i := range n {
		if err := m.set(t.Context(), generationKey("n", strconv.Itoa(i)), []byte(value), time.Hour); err != nil {
			t.Fatal(err)
		}
		if i%(n/20) == n/20-1 {
			peak = max(peak, heap()-before)
		}
	}
	if peak > 6<<20 {
		t.Errorf("%d MiB of heap for %d keys offered, want at most the limit of 4 MiB and a little", peak>>20, n)
	}
	m.items.CleanUp()
	if kept := m.items.EstimatedSize(); kept < 8_000 || m.items.WeightedSize() > 4<<20 {
		t.Errorf("%d keys of %d bytes kept", kept, m.items.WeightedSize())
	}
	if err := m.set(t.Context(), "giant", make([]byte, 5<<20), time.Hour); err != nil {
		t.Errorf("an item above the limit: %v", err)
	}
	if m.items.CleanUp(); m.items.WeightedSize() > 4<<20 {
		t.Errorf("%d bytes after an item above the limit", m.items.WeightedSize())
	}
	return peak
}

type brokerFunc func(context.Context, contract.Call) (contract.Reply, error)

func (f brokerFunc) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	return f(ctx, r)
}
func (brokerFunc) Publish(context.Context, contract.Event) error { return contract.ErrUnroutable }

func TestBroker(t *testing.T) {
	f := &function{}
	var dir contract.Directory
	r := open(t, "memory://")
	b := r.Broker(brokerFunc(f.Call), &dir)
	call := func() {
		t.Helper()
		if reply, err := b.Call(t.Context(), contract.Call{Key: "thing.get", Body: []byte(input)}); err != nil || string(reply.Body) != "v0 "+input {
			t.Fatalf("got %s, %v", reply.Body, err)
		}
	}
	call()
	call() // nobody knows yet that it is cached
	dir.Update(contract.Announcement{Worker: "w", Functions: []contract.Descriptor{*descriptor}}, time.Now())
	call()
	call()
	if n := f.calls.Load(); n != 3 {
		t.Errorf("the function ran %d times, want 3", n)
	}
}

func BenchmarkHit(b *testing.B) {
	r, err := Open("memory://", Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	f, request := &function{}, contract.Call{Body: []byte(input)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Call(b.Context(), f, descriptor, request, contract.CacheDirectives{}); err != nil {
			b.Fatal(err)
		}
	}
}
