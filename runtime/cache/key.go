package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// entrySum stands for a result of f: the function and its version, the tags
// that it is to have, who asks if the policy wants that told apart, and the
// canonical input. No two of these have the same sum.
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

// entryKey is where the result with that sum is kept: at most 110 bytes, none
// of them a space, whatever the input.
func entryKey(namespace string, sum *[sha256.Size]byte) string {
	return readable(namespace, ":r:", sum)
}

// leaseKey is where a process says that it makes the result with that sum under
// these generations.
func leaseKey(namespace string, sum *[sha256.Size]byte, generations [][]byte) string {
	b := append(make([]byte, 0, 256), sum[:]...)
	for _, g := range generations {
		b = append(b, g...)
	}
	all := sha256.Sum256(b)
	return readable(namespace, ":l:", &all)
}

// generationKey is where a tag's generation is kept. The tag is readable in it
// if its bytes are fit for a key.
func generationKey(namespace, tag string) string {
	if len(tag) <= 100 && plain(tag) {
		return namespace + ":t:" + tag
	}
	sum := sha256.Sum256([]byte(tag))
	return readable(namespace, ":h:", &sum)
}

// appendPart keeps neighbours apart: "ab"+"c" is not "a"+"bc".
func appendPart(b []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

func readable(namespace, kind string, sum *[sha256.Size]byte) string {
	var text [43]byte
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return namespace + kind + string(text[:])
}

// plain reports whether s is printable ASCII without spaces.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
