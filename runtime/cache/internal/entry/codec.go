package entry

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// A Codec turns an entry into the value that is stored, and back. The first byte
// of a value is its format:
//
//	2  the entry, see Entry
//	3  compressed: an S2 block of the above
//	4  encrypted: 4 bytes that name the key, 12 of nonce, and one of the above
//	   under AES-256-GCM
//
// S2 halves JSON, zstd would quarter it. But every hit pays for decompression,
// and S2 decompresses at least five times as fast.
type Codec struct {
	keys []encryptionKey // the first one encrypts; none: nothing is encrypted or decrypted
}

const (
	formatPlain      = 2
	formatCompressed = 3
	formatEncrypted  = 4

	minCompressed = 4 << 10 // bytes of an entry; compressing less would not save a packet

	// KeySize is the size of a secret in bytes.
	KeySize = 32

	keyIDSize       = 4
	nonceSize       = 12
	tagSize         = 16
	encryptedHeader = 1 + keyIDSize
)

type encryptionKey struct {
	id     [keyIDSize]byte
	secret []byte
}

// NewCodec returns a codec that encrypts with the first secret and decrypts with
// all of them. Without secrets, values are readable. A secret has KeySize random
// bytes.
func NewCodec(secrets [][]byte) (*Codec, error) {
	c := &Codec{}
	for i, secret := range secrets {
		if len(secret) != KeySize {
			return nil, fmt.Errorf("cache key %d has %d bytes, want %d", i+1, len(secret), KeySize)
		}
		k := encryptionKey{secret: bytes.Clone(secret)}
		sum := sha256.Sum256(append([]byte("rabbet cache key id "), secret...))
		copy(k.id[:], sum[:])
		c.keys = append(c.keys, k)
	}
	return c, nil
}

// Encode returns the value to store under key for e, which was made under these
// generations.
func (c *Codec) Encode(key string, e *Entry, generations [][]byte) []byte {
	b := e.encode(generations)
	if len(b) >= minCompressed {
		if small := s2.Encode(nil, b); len(small) < len(b)*9/10 {
			b = append(append(make([]byte, 0, 1+len(small)), formatCompressed), small...)
		}
	}
	if len(c.keys) == 0 {
		return b
	}
	k := &c.keys[0]
	encrypted := append(make([]byte, 0, encryptedHeader+nonceSize+len(b)+tagSize), formatEncrypted)
	encrypted = append(encrypted, k.id[:]...)
	return k.aead(key).Seal(encrypted, nil, b, encrypted)
}

// Decode returns the entry in the value that is stored under key. It returns
// false for anything that Encode did not return for this key and one of the
// secrets. The entry may refer to b.
func (c *Codec) Decode(key string, b []byte) (Entry, bool) {
	if len(c.keys) > 0 {
		var ok bool
		if b, ok = c.decrypt(key, b); !ok {
			return Entry{}, false
		}
	}
	if len(b) > 0 && b[0] == formatCompressed {
		size, err := s2.DecodedLen(b[1:])
		if err != nil || size > maxSize {
			return Entry{}, false
		}
		if b, err = s2.Decode(nil, b[1:]); err != nil {
			return Entry{}, false
		}
	}
	return decode(b)
}

func (c *Codec) decrypt(key string, b []byte) ([]byte, bool) {
	if len(b) < encryptedHeader || b[0] != formatEncrypted {
		return nil, false
	}
	for i := range c.keys {
		if k := &c.keys[i]; bytes.Equal(k.id[:], b[1:encryptedHeader]) {
			plain, err := k.aead(key).Open(nil, nil, b[encryptedHeader:], b[:encryptedHeader])
			return plain, err == nil
		}
	}
	return nil, false
}

// aead encrypts what is stored under key, with a key derived for it alone. A
// value that is moved to another key does not decrypt, and the number of random
// nonces for one derived key stays small.
func (k *encryptionKey) aead(key string) cipher.AEAD {
	secret := must(hkdf.Expand(sha256.New, k.secret, "rabbet cache entry "+key, KeySize))
	return must(cipher.NewGCMWithRandomNonce(must(aes.NewCipher(secret))))
}

// must is for what cannot fail with keys of the right size.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
