package cache

import (
	"errors"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func TestEvaluate(t *testing.T) {
	const s = time.Second
	plain := contract.CachePolicy{TTL: 60 * s}
	lenient := contract.CachePolicy{TTL: 60 * s, StaleWhileRevalidate: 10 * s, StaleIfError: 100 * s, Negative: 5 * s}
	for name, tt := range map[string]struct {
		policy   contract.CachePolicy
		failure  bool
		ttl      time.Duration // 60 s by default
		age      time.Duration
		want     contract.CacheDirectives
		decision decision // but for its ttl
	}{
		"fresh":                             {policy: plain, age: 59 * s},
		"old":                               {policy: plain, age: 60 * s, decision: decision{forward: forwardStale}},
		"the policy's time is shorter now":  {policy: contract.CachePolicy{TTL: 10 * s}, age: 11 * s, decision: decision{forward: forwardStale}},
		"the policy's time is longer now":   {policy: plain, ttl: 10 * s, age: 11 * s, decision: decision{forward: forwardStale}},
		"no-cache":                          {policy: lenient, age: s, want: contract.CacheDirectives{NoCache: true}, decision: decision{forward: forwardRequest}},
		"young enough":                      {policy: plain, age: 5 * s, want: contract.CacheDirectives{MaxAge: 5 * s}},
		"not young enough":                  {policy: plain, age: 6 * s, want: contract.CacheDirectives{MaxAge: 5 * s}, decision: decision{forward: forwardRequest}},
		"fresh for long enough":             {policy: plain, age: 50 * s, want: contract.CacheDirectives{MinFresh: 10 * s}},
		"not fresh for long enough":         {policy: plain, age: 51 * s, want: contract.CacheDirectives{MinFresh: 10 * s}, decision: decision{forward: forwardRequest}},
		"stale, taken by this caller":       {policy: plain, age: 65 * s, want: contract.CacheDirectives{MaxStale: 6 * s}},
		"too stale for this caller":         {policy: plain, age: 66 * s, want: contract.CacheDirectives{MaxStale: 6 * s}, decision: decision{forward: forwardStale}},
		"while it is revalidated":           {policy: lenient, age: 69 * s, decision: decision{revalidate: true, ifError: true}},
		"while a new one may not be stored": {policy: lenient, age: 69 * s, want: contract.CacheDirectives{NoStore: true}, decision: decision{ifError: true}},
		"if there is an error":              {policy: lenient, age: 70 * s, decision: decision{forward: forwardStale, ifError: true}},
		"too old for anything":              {policy: lenient, age: 160 * s, decision: decision{forward: forwardStale}},
		"max-age takes nothing stale":       {policy: lenient, age: 61 * s, want: contract.CacheDirectives{MaxAge: 100 * s}, decision: decision{forward: forwardStale}},
		"max-age with max-stale does":       {policy: lenient, age: 75 * s, want: contract.CacheDirectives{MaxAge: 100 * s, MaxStale: 20 * s}, decision: decision{ifError: true}},
		"min-fresh takes nothing stale":     {policy: lenient, age: 61 * s, want: contract.CacheDirectives{MinFresh: s}, decision: decision{forward: forwardStale}},
		"a failure, young":                  {policy: lenient, failure: true, age: 4 * s},
		"a failure is never served stale":   {policy: lenient, failure: true, age: 5 * s, decision: decision{forward: forwardStale}},
		"failures are not kept any more":    {policy: plain, failure: true, age: 0, decision: decision{forward: forwardStale}},
		"a failure, for a caller of stale":  {policy: lenient, failure: true, age: 6 * s, want: contract.CacheDirectives{MaxStale: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.ttl == 0 {
				tt.ttl = 60 * s
			}
			got := evaluate(&tt.policy, tt.failure, tt.ttl, tt.age, tt.want)
			if got.ttl = 0; got != tt.decision {
				t.Errorf("got %+v, want %+v", got, tt.decision)
			}
		})
	}
}

// older makes what is stored for input older, behind the cache's back.
func older(t *testing.T, r *Results, d *contract.Descriptor, body string, by time.Duration) {
	t.Helper()
	c := call{results: r, function: d, request: contract.Call{Body: []byte(body)}}
	if !c.identify() || !c.locate() {
		t.Fatal("the input has no key")
	}
	if err := r.store.Get(t.Context(), c.keys, c.values); err != nil {
		t.Fatal(err)
	}
	e, ok := r.codec.Decode(c.keys[0], c.values[0])
	if !ok {
		t.Fatal("nothing is stored")
	}
	e.Born = e.Born.Add(-by)
	if err := r.store.Set(t.Context(), c.keys[0], r.codec.Encode(c.keys[0], &e, c.values[1:]), time.Hour); err != nil {
		t.Fatal(err)
	}
}

// with returns the descriptor with another policy.
func with(change func(*contract.CachePolicy)) *contract.Descriptor {
	d, p := *descriptor, *descriptor.Cache
	change(&p)
	d.Cache = &p
	return &d
}

func TestStaleWhileRevalidate(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		d := with(func(p *contract.CachePolicy) { p.StaleWhileRevalidate = time.Minute })
		f := &function{}
		ask(t, r, f, d, input, contract.CacheDirectives{})
		r.wait() // until its lease is released
		older(t, r, d, input, 90*time.Second)
		f.version.Add(1)
		f.started, f.release = make(chan struct{}, 10), make(chan struct{})
		for range 20 { // none of them waits for the run in the background
			if got := ask(t, r, f, d, input, contract.CacheDirectives{}); !got.Hit || got.TTL >= 0 || string(got.Body) != "v0 "+input {
				t.Fatalf("got %+v, %s; want the stale result", got, got.Body)
			}
		}
		<-f.started
		if len(f.started) != 0 {
			t.Error("more than one run in the background")
		}
		close(f.release)
		r.wait()
		if got := ask(t, r, f, d, input, contract.CacheDirectives{}); !got.Hit || got.TTL <= 0 || string(got.Body) != "v1 "+input {
			t.Errorf("after the run: got %+v, %s; want a fresh result", got, got.Body)
		}

		older(t, r, d, input, 90*time.Second)
		f.version.Add(1)
		f.release = nil
		if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, r, f, d, input, contract.CacheDirectives{}); got.Hit || string(got.Body) != "v2 "+input {
			t.Errorf("stale and invalidated: got %+v, %s", got, got.Body)
		}
	})
}

func TestStaleIfError(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		d := with(func(p *contract.CachePolicy) { p.StaleIfError = time.Minute })
		ask(t, r, &function{}, d, input, contract.CacheDirectives{})
		older(t, r, d, input, 90*time.Second)
		call := func(err error, want contract.CacheDirectives) (contract.CacheResult, error) {
			return r.Call(t.Context(), &function{fail: err}, d, contract.Call{Body: []byte(input)}, want)
		}
		for _, down := range []error{errors.New("broken"), contract.ErrUnroutable, contract.ErrUnavailable, contract.ErrLost, contract.Expired(contract.ExecutedUnknown)} {
			if got, err := call(down, contract.CacheDirectives{}); err != nil || !got.Hit || got.Forward != forwardStale || got.TTL >= 0 || string(got.Body) != "v0 "+input {
				t.Errorf("%v: got %+v, %v; want the stale result", down, got, err)
			}
		}
		if _, err := call(faas.NotFound("gone"), contract.CacheDirectives{}); !errors.Is(err, contract.ErrNotFound) {
			t.Errorf("an answer that is an error: got %v", err)
		}
		for name, want := range map[string]contract.CacheDirectives{"no-cache": {NoCache: true}, "only-if-cached": {OnlyIfCached: true}, "max-age": {MaxAge: time.Hour}} {
			if got, err := call(errors.New("broken"), want); err == nil {
				t.Errorf("%s: got %+v, want the error", name, got)
			}
		}
		if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		if got, err := call(errors.New("broken"), contract.CacheDirectives{}); err == nil {
			t.Errorf("stale and invalidated: got %+v, %s", got, got.Body)
		}
	})
}

func TestKeptFailure(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		d := with(func(p *contract.CachePolicy) { p.Negative = 30 * time.Second })
		call := func(f *function) (contract.CacheResult, error) {
			return r.Call(t.Context(), f, d, contract.Call{Body: []byte(input)}, contract.CacheDirectives{})
		}
		broken := &function{fail: errors.New("broken")}
		for range 2 {
			if got, err := call(broken); err == nil || got.Stored {
				t.Errorf("an error that is no answer: got %+v, %v", got, err)
			}
		}
		if n := broken.calls.Load(); n != 2 {
			t.Errorf("it ran %d times for 2 calls", n)
		}

		missing := &function{fail: &contract.Error{Code: contract.CodeNotFound, Detail: "no thing 42", Fields: []contract.FieldError{{Pointer: "/id", Detail: "unknown"}}, Cause: errors.New("secret")}}
		if got, err := call(missing); !errors.Is(err, contract.ErrNotFound) || !got.Stored || got.Hit || got.TTL != 30*time.Second {
			t.Errorf("first: got %+v, %v", got, err)
		}
		got, err := call(missing)
		e := contract.AsError(err)
		if !got.Hit || got.TTL <= 0 || got.TTL > 30*time.Second || e.Code != contract.CodeNotFound || e.Detail != "no thing 42" ||
			len(e.Fields) != 1 || e.Fields[0].Pointer != "/id" || e.Executed != contract.ExecutedNo || e.Cause != nil {
			t.Errorf("second: got %+v, %+v", got, e)
		}
		if n := missing.calls.Load(); n != 1 {
			t.Errorf("it ran %d times for 2 calls", n)
		}

		older(t, r, d, input, 31*time.Second)
		if _, err := call(missing); !errors.Is(err, contract.ErrNotFound) || missing.calls.Load() != 2 {
			t.Errorf("when it is old: got %v after %d runs", err, missing.calls.Load())
		}
		if err := r.Invalidate(t.Context(), "thing:42"); err != nil {
			t.Fatal(err)
		}
		if got, err := call(&function{}); err != nil || got.Hit {
			t.Errorf("when it has been invalidated: got %+v, %v", got, err)
		}
		if got, err := call(missing); err != nil || !got.Hit {
			t.Errorf("the result took its place: got %+v, %v", got, err)
		}
	})
}

func TestMaxSize(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		for body, room := range map[string]int{`{"id":"41"}`: 0, `{"id":"42"}`: -1} {
			d := with(func(p *contract.CachePolicy) { p.MaxSize = len("v0 "+body) + room })
			if got := ask(t, r, &function{}, d, body, contract.CacheDirectives{}); got.Stored != (room == 0) {
				t.Errorf("%d bytes with a limit of %d: got stored %v", len(got.Body), d.Cache.MaxSize, got.Stored)
			}
		}
	})
}

func TestIdentity(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		private := with(func(p *contract.CachePolicy) { p.Identity = []string{"Authorization"} })
		call := func(d *contract.Descriptor, identity string) contract.CacheResult {
			got, err := r.Call(t.Context(), &function{}, d, contract.Call{Body: []byte(input), Identity: identity}, contract.CacheDirectives{})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		for _, identity := range []string{"ada", "bob"} {
			if got := call(private, identity); got.Hit || !got.Stored {
				t.Errorf("%s, first: got %+v", identity, got)
			}
			if got := call(private, identity); !got.Hit {
				t.Errorf("%s, second: got %+v", identity, got)
			}
		}
		for range 2 {
			if got := call(private, ""); got.Hit || got.Stored || got.Forward != forwardBypass {
				t.Errorf("no identity: got %+v, want a bypass", got)
			}
		}
		if got := call(descriptor, ""); got.Hit {
			t.Error("a result of one caller was served to all")
		}
		if got := call(descriptor, "ada"); !got.Hit {
			t.Error("results are kept apart though the policy names no identity")
		}
		if got := call(private, "eve"); got.Hit {
			t.Error("a result of all callers was served as the one of a caller")
		}
	})
}
