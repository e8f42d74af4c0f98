// Package entry is the format of what the results cache stores: a result of a
// function, or a failure that is kept in place of one, with the generations of
// its tags. It knows nothing of stores and of how long an entry may be served.
package entry

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// An Entry is a stored result or failure. As bytes, big endian:
//
//	 0  1  format, 2 (see Codec)
//	 1  4  CRC-32C of everything after it
//	 5  8  Born, Unix milliseconds
//	13  8  TTL, milliseconds
//	21  1  1 for a failure
//	22 22  ETag; zeros for a failure
//	44  1  number of tags, then 16 bytes for each generation
//	       Body; for a failure see EncodeFailure
type Entry struct {
	Born        time.Time     // when the function started to run
	TTL         time.Duration // for how long the result is fresh, from Born on
	Failure     bool          // Body is a failure
	ETag        string        // see ETag; empty for a failure
	Generations []byte        // of the tags, in their order, before the function ran
	Body        []byte
}

const (
	headerSize = 45
	etagSize   = 22
	maxSize    = 32 << 20 // bytes; no entry is that large
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns e with these generations, at most 255, as bytes.
func (e *Entry) encode(generations [][]byte) []byte {
	b := make([]byte, 0, headerSize+len(generations)*GenerationSize+len(e.Body))
	b = append(b, formatPlain, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Born.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(e.TTL.Milliseconds()))
	if e.Failure {
		b = append(b, 1)
		b = append(b, make([]byte, etagSize)...)
	} else {
		b = append(b, 0)
		b = append(b, e.ETag...)
	}
	b = append(b, byte(len(generations)))
	for _, g := range generations {
		b = append(b, g...)
	}
	b = append(b, e.Body...)
	binary.BigEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
	return b
}

// decode returns the entry in b, whose body is part of b. It returns false for
// anything that encode did not write.
func decode(b []byte) (e Entry, ok bool) {
	if len(b) < headerSize || b[0] != formatPlain || binary.BigEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return Entry{}, false
	}
	end := headerSize + int(b[44])*GenerationSize
	if len(b) < end {
		return Entry{}, false
	}
	e = Entry{
		Born:        time.UnixMilli(int64(binary.BigEndian.Uint64(b[5:]))),
		TTL:         time.Duration(binary.BigEndian.Uint64(b[13:])) * time.Millisecond,
		Failure:     b[21] == 1,
		Generations: b[headerSize:end],
		Body:        b[end:],
	}
	if !e.Failure {
		e.ETag = string(b[22 : 22+etagSize])
	}
	return e, true
}

// Agrees reports whether these are the generations that e was made under.
func (e *Entry) Agrees(generations [][]byte) bool {
	if len(e.Generations) != len(generations)*GenerationSize {
		return false
	}
	for i, g := range generations {
		if !e.AgreesOn(i, g) {
			return false
		}
	}
	return true
}

// AgreesOn reports whether tag i of e had that generation when e was made.
func (e *Entry) AgreesOn(i int, generation []byte) bool {
	from, to := i*GenerationSize, (i+1)*GenerationSize
	return to <= len(e.Generations) && bytes.Equal(generation, e.Generations[from:to])
}

// GenerationSize is the size of a generation in bytes.
const GenerationSize = 16

// NewGeneration returns a random generation for a tag.
func NewGeneration() []byte {
	g := make([]byte, GenerationSize)
	rand.Read(g) // never fails
	return g
}

// ETag returns the strong entity tag of a body: 22 bytes, quotes included.
func ETag(body []byte) string {
	sum := sha256.Sum256(body)
	var tag [etagSize]byte
	base64.RawURLEncoding.Encode(tag[1:], sum[:15])
	tag[0], tag[etagSize-1] = '"', '"'
	return string(tag[:])
}
