package cache

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func newTestCodec(t testing.TB, secrets ...[]byte) *codec {
	t.Helper()
	c, err := newCodec(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newSecret() []byte {
	secret := make([]byte, keySize)
	rand.Read(secret)
	return secret
}

var large = []byte(`{"items":[` + strings.Repeat(`{"name":"Ada","email":"ada@example.org"},`, 1000) + `{}]}`)

func TestCodec(t *testing.T) {
	old, young := newSecret(), newSecret()
	generations := [][]byte{newGeneration(), newGeneration()}
	for name, body := range map[string][]byte{"small": []byte(`{"id":"42"}`), "large": large, "empty": {}} {
		e := entry{born: time.Now().Truncate(time.Millisecond), ttl: time.Minute, etag: etagOf(body), body: body}
		for _, c := range []struct {
			name            string
			writer, reader  *codec
			readable, clear bool
		}{
			{"in the clear", newTestCodec(t), newTestCodec(t), true, true},
			{"sealed", newTestCodec(t, old), newTestCodec(t, old), true, false},
			{"sealed with the old key", newTestCodec(t, old), newTestCodec(t, young, old), true, false},
			{"sealed with the new key too early", newTestCodec(t, young, old), newTestCodec(t, old), false, false},
			{"sealed with the new key, known for a while", newTestCodec(t, young, old), newTestCodec(t, old, young), true, false},
			{"sealed with a key that is gone", newTestCodec(t, old), newTestCodec(t, young), false, false},
			{"sealed, read by one that knows no key", newTestCodec(t, old), newTestCodec(t), false, false},
			{"in the clear, read by one that wants it sealed", newTestCodec(t), newTestCodec(t, old), false, true},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				b := c.writer.encode("key", &e, generations)
				if name == "small" && bytes.Contains(b, body) != c.clear {
					t.Errorf("the body can be read in what is stored: %v, want %v", !c.clear, c.clear)
				}
				if name == "large" && len(b) > len(body)/2 {
					t.Errorf("%d bytes became %d", len(body), len(b))
				}
				got, ok := c.reader.decode("key", b)
				if ok != c.readable {
					t.Fatalf("got readable %v, want %v", ok, c.readable)
				}
				if ok && (!bytes.Equal(got.body, e.body) || got.etag != e.etag || !got.born.Equal(e.born) || got.ttl != e.ttl || !got.agrees(generations)) {
					t.Errorf("got %+v", got)
				}
				if _, ok := c.reader.decode("another key", b); ok && !c.clear {
					t.Error("what was sealed for one key opens under another")
				}
			})
		}
	}
}

func TestKeysAreChecked(t *testing.T) {
	if _, err := Open("memory://", Config{Keys: [][]byte{newSecret(), make([]byte, 16)}}); err == nil || !strings.Contains(err.Error(), "key 2 has 16 bytes") {
		t.Errorf("got %v", err)
	}
}

// Whatever a store returns, nothing is served that was not stored; and what was
// stored stays what it was, or is nothing.
func FuzzDecode(f *testing.F) {
	plain, sealing := newTestCodec(f), newTestCodec(f, bytes.Repeat([]byte{7}, keySize))
	for _, body := range [][]byte{[]byte(`{"id":"42"}`), large} {
		e := entry{born: time.Now(), ttl: time.Minute, etag: etagOf(body), body: body}
		f.Add(plain.encode("key", &e, [][]byte{newGeneration()}))
		f.Add(sealing.encode("key", &e, nil))
	}
	f.Add([]byte{})
	f.Add([]byte{formatCompressed, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := plain.decode("key", b); ok {
			if again, ok := plain.decode("key", plain.encode("key", &e, split(e.generations))); !ok || !bytes.Equal(again.body, e.body) {
				t.Error("what was read cannot be written")
			}
		}
		sealing.decode("key", b)
	})
}

func split(generations []byte) (each [][]byte) {
	for len(generations) > 0 {
		each = append(each, generations[:generationSize])
		generations = generations[generationSize:]
	}
	return each
}

// One result with keys that change as they would in production: no call fails,
// and each process reads what it can.
func TestKeyRotation(t *testing.T) {
	stores(t, func(t *testing.T, r *Results) {
		old, young := newSecret(), newSecret()
		f := &function{pad: 10_000}
		for i, step := range []struct {
			keys [][]byte
			hit  bool
		}{
			{nil, false}, {[][]byte{old}, false}, {[][]byte{old}, true}, {[][]byte{young, old}, true}, {[][]byte{young}, false}, {nil, false},
		} {
			r.codec = newTestCodec(t, step.keys...)
			got := ask(t, r, f, descriptor, input, contract.CacheDirectives{})
			if got.Hit != step.hit || !strings.HasPrefix(string(got.Body), "v0 "+input) {
				t.Errorf("step %d: got hit %v, %.30s", i, got.Hit, got.Body)
			}
		}
		if stored, err := r.Inspect(t.Context(), descriptor, contract.Call{Body: []byte(input)}); err != nil || !stored.Valid() || stored.Size > 2_000 {
			t.Errorf("got %d bytes, %v; want them compressed", stored.Size, err)
		}
	})
}
