package cache

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// codec turns an entry into what the store gets, and back. Its first byte says
// what it is:
//
//	2  the entry as it stands, see entry
//	3  compressed: an S2 block of the above
//	4  sealed: 4 bytes that name the key, 12 of nonce, and one of the above
//	   under AES-256-GCM
//
// S2 makes JSON half as large, where zstd makes it a quarter; but a hit pays
// for reading it, and S2 is read five times as fast or more.
type codec struct {
	keys []sealKey // the first one seals; none: nothing is sealed, nor opened
}

const (
	formatPlain      = 2
	formatCompressed = 3
	formatSealed     = 4

	compressFrom = 4 << 10 // bytes of an entry; less would not save the network a packet

	keySize    = 32
	keyIDSize  = 4
	sealHeader = 1 + keyIDSize
)

// sealKey is a secret that entries are sealed with.
type sealKey struct {
	id     [keyIDSize]byte
	secret []byte
}

func newCodec(secrets [][]byte) (*codec, error) {
	c := &codec{}
	for i, secret := range secrets {
		if len(secret) != keySize {
			return nil, fmt.Errorf("cache key %d has %d bytes, want %d", i+1, len(secret), keySize)
		}
		k := sealKey{secret: bytes.Clone(secret)}
		sum := sha256.Sum256(append([]byte("rabbet cache key id "), secret...))
		copy(k.id[:], sum[:])
		c.keys = append(c.keys, k)
	}
	return c, nil
}

// encode returns what is to be stored under key for e, made under these generations.
func (c *codec) encode(key string, e *entry, generations [][]byte) []byte {
	b := e.encode(generations)
	if len(b) >= compressFrom {
		if small := s2.Encode(nil, b); len(small) < len(b)*9/10 {
			b = append(append(make([]byte, 0, 1+len(small)), formatCompressed), small...)
		}
	}
	if len(c.keys) == 0 {
		return b
	}
	k := &c.keys[0]
	sealed := append(make([]byte, 0, sealHeader+12+len(b)+16), formatSealed)
	sealed = append(sealed, k.id[:]...)
	return k.aead(key).Seal(sealed, nil, b, sealed)
}

// decode reads what is stored under key. It returns false for anything that
// encode did not write there, with one of its keys.
func (c *codec) decode(key string, b []byte) (entry, bool) {
	if len(c.keys) > 0 {
		var ok bool
		if b, ok = c.open(key, b); !ok {
			return entry{}, false
		}
	}
	if len(b) > 0 && b[0] == formatCompressed {
		size, err := s2.DecodedLen(b[1:])
		if err != nil || size > maxStored {
			return entry{}, false
		}
		if b, err = s2.Decode(nil, b[1:]); err != nil {
			return entry{}, false
		}
	}
	return decode(b)
}

func (c *codec) open(key string, b []byte) ([]byte, bool) {
	if len(b) < sealHeader || b[0] != formatSealed {
		return nil, false
	}
	for i := range c.keys {
		if k := &c.keys[i]; bytes.Equal(k.id[:], b[1:sealHeader]) {
			plain, err := k.aead(key).Open(nil, nil, b[sealHeader:], b[:sealHeader])
			return plain, err == nil
		}
	}
	return nil, false
}

// aead seals what is stored under key, with a secret of its own: nothing that
// was sealed for another key opens, and random nonces never run short.
func (k *sealKey) aead(key string) cipher.AEAD {
	secret := must(hkdf.Expand(sha256.New, k.secret, "rabbet cache entry "+key, keySize))
	return must(cipher.NewGCMWithRandomNonce(must(aes.NewCipher(secret))))
}

// must is for what cannot fail with sizes that are right.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
