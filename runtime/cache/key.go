package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// entryKey is where the result of f for a canonical input is kept: at most 110
// bytes, none of them a space, whatever the input.
func entryKey(namespace string, f *faas.Descriptor, input []byte) string {
	b := make([]byte, 0, 512)
	b = appendPart(b, f.Name)
	b = appendPart(b, f.Version)
	b = append(b, input...)
	return hashed(namespace, ":r:", b)
}

// generationKey is where a tag's generation is kept. The tag is readable in it
// if its bytes are fit for a key.
func generationKey(namespace, tag string) string {
	if len(tag) <= 100 && plain(tag) {
		return namespace + ":t:" + tag
	}
	return hashed(namespace, ":h:", []byte(tag))
}

// appendPart keeps neighbours apart: "ab"+"c" is not "a"+"bc".
func appendPart(b []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

func hashed(namespace, kind string, b []byte) string {
	sum := sha256.Sum256(b)
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
