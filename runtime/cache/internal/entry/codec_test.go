package entry

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"time"
)

func newTestCodec(t testing.TB, secrets ...[]byte) *Codec {
	t.Helper()
	c, err := NewCodec(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newSecret() []byte {
	secret := make([]byte, KeySize)
	rand.Read(secret)
	return secret
}

var large = []byte(`{"items":[` + strings.Repeat(`{"name":"Ada","email":"ada@example.org"},`, 1000) + `{}]}`)

func TestCodec(t *testing.T) {
	old, young := newSecret(), newSecret()
	generations := [][]byte{NewGeneration(), NewGeneration()}
	for name, body := range map[string][]byte{"small": []byte(`{"id":"42"}`), "large": large, "empty": {}} {
		e := Entry{Born: time.Now().Truncate(time.Millisecond), TTL: time.Minute, ETag: ETag(body), Body: body}
		for _, c := range []struct {
			name            string
			writer, reader  *Codec
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
				b := c.writer.Encode("key", &e, generations)
				if name == "small" && bytes.Contains(b, body) != c.clear {
					t.Errorf("the body can be read in what is stored: %v, want %v", !c.clear, c.clear)
				}
				if name == "large" && len(b) > len(body)/2 {
					t.Errorf("%d bytes became %d", len(body), len(b))
				}
				got, ok := c.reader.Decode("key", b)
				if ok != c.readable {
					t.Fatalf("got readable %v, want %v", ok, c.readable)
				}
				if ok && (!bytes.Equal(got.Body, e.Body) || got.ETag != e.ETag || !got.Born.Equal(e.Born) || got.TTL != e.TTL || !got.Agrees(generations)) {
					t.Errorf("got %+v", got)
				}
				if _, ok := c.reader.Decode("another key", b); ok && !c.clear {
					t.Error("what was sealed for one key opens under another")
				}
			})
		}
	}
}

// Whatever a store returns, nothing is served that was not stored; and what was
// stored stays what it was, or is nothing.
func FuzzDecode(f *testing.F) {
	plain, sealing := newTestCodec(f), newTestCodec(f, bytes.Repeat([]byte{7}, KeySize))
	for _, body := range [][]byte{[]byte(`{"id":"42"}`), large} {
		e := Entry{Born: time.Now(), TTL: time.Minute, ETag: ETag(body), Body: body}
		f.Add(plain.Encode("key", &e, [][]byte{NewGeneration()}))
		f.Add(sealing.Encode("key", &e, nil))
	}
	f.Add([]byte{})
	f.Add([]byte{formatCompressed, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := plain.Decode("key", b); ok {
			if again, ok := plain.Decode("key", plain.Encode("key", &e, split(e.Generations))); !ok || !bytes.Equal(again.Body, e.Body) {
				t.Error("what was read cannot be written")
			}
		}
		sealing.Decode("key", b)
	})
}

func split(generations []byte) (each [][]byte) {
	for len(generations) > 0 {
		each = append(each, generations[:GenerationSize])
		generations = generations[GenerationSize:]
	}
	return each
}
