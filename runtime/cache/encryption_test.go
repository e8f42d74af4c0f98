package cache

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/entry"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func newSecret() []byte {
	secret := make([]byte, entry.KeySize)
	rand.Read(secret)
	return secret
}

func newTestCodec(t testing.TB, secrets ...[]byte) *entry.Codec {
	t.Helper()
	c, err := entry.NewCodec(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKeysAreChecked(t *testing.T) {
	if _, err := openResults("memory://", 0, Config{Keys: [][]byte{newSecret(), make([]byte, 16)}}); err == nil || !strings.Contains(err.Error(), "key 2 has 16 bytes") {
		t.Errorf("got %v", err)
	}
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
