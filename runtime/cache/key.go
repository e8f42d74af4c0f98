package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// entrySum identifies a result of f: by the function and its version, the tags
// that its entry has, the identity of the caller if the policy keeps results
// apart by that, and the canonical input. No two of them have the same sum.
func entrySum(f *contract.Descriptor, identity string, input []byte) [sha256.Size]byte {
	b := make([]byte, 0, 512)
	b = appendPart(b, f.Name)
	b = appendPart(b, f.Version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Cache.Tags)))
	for _, template := range f.Cache.Tags {
		b = appendPart(b, template)
	}
	if len(f.Cache.Identity) > 0 {
		b = append(b, 'i')
		b = appendPart(b, identity)
	} else {
		b = append(b, '-')
	}
	return sha256.Sum256(append(b, input...))
}

// entryKey returns the key of the result with that sum. Like all keys, it is at
// most 170 bytes of printable ASCII without spaces, whatever the input.
func entryKey(namespace string, sum *[sha256.Size]byte) string {
	return hashed(namespace, ":r:", sum)
}

// leaseKey returns the key of the lease to fill the entry with that sum under
// these generations.
func leaseKey(namespace string, sum *[sha256.Size]byte, generations [][]byte) string {
	b := append(make([]byte, 0, 256), sum[:]...)
	for _, g := range generations {
		b = append(b, g...)
	}
	all := sha256.Sum256(b)
	return hashed(namespace, ":l:", &all)
}

// maxReadableTag is how long a tag may be to stand in its key, in bytes.
const maxReadableTag = 100

// generationKey returns the key of the generation of a tag. The tag is readable
// in it if it is short printable ASCII.
func generationKey(namespace, tag string) string {
	if len(tag) <= maxReadableTag && isPrintable(tag) {
		return namespace + ":t:" + tag
	}
	sum := sha256.Sum256([]byte(tag))
	return hashed(namespace, ":h:", &sum)
}

// appendPart appends part with its length, so that "ab" and "c" differ from "a"
// and "bc".
func appendPart(b []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

// hashed returns a key that ends with sum.
func hashed(namespace, kind string, sum *[sha256.Size]byte) string {
	var text [43]byte
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return namespace + kind + string(text[:])
}

// isPrintable reports whether s is printable ASCII without spaces.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
