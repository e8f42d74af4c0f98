package cache

import (
	"context"
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
		{"redis://me:secret@localhost:port", "is not valid"},
		{"redis://me:se%zzcret@localhost", "is not valid"},
		{"redis://me:secret@a:1,b:2", "redis+cluster"},
		{"redis://me:secret@localhost/zero", "database"},
		{"redis+sentinel://me:secret@a:1,b:2", "master_name"},
		{"memcached://", "addresses and nothing else"},
		{"memcached://me:secret@a", "addresses and nothing else"},
	} {
		_, err := openResults(tt.url, 0, Config{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q): got %v, want it to say %q", tt.url, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) shows the password: %v", tt.url, err)
		}
	}
	if _, err := openResults("memory://", 0, Config{Namespace: "a b"}); err == nil {
		t.Error("a namespace with a space: got nil, want an error")
	}
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
	call() // the directory does not know yet that it is cached
	dir.Update(contract.Announcement{Worker: "w", Functions: []contract.Descriptor{*descriptor}}, time.Now())
	call()
	call()
	if n := f.calls.Load(); n != 3 {
		t.Errorf("the function ran %d times, want 3", n)
	}
}

func BenchmarkHit(b *testing.B) {
	r, err := openResults("memory://", 0, Config{})
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
