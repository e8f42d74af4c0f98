package cache

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"time"
	"unsafe"
)

// A generation is a random value that a tag keeps until it is invalidated.
// Losing one is harmless, so its lifetime only has to make that rare.
const (
	generationSize = 16
	generationTTL  = 30 * 24 * time.Hour // the longest that Memcached counts from now
)

func newGeneration() []byte {
	g := make([]byte, generationSize)
	rand.Read(g) // never fails
	return g
}

// entry is a stored result. As bytes, big endian:
//
//	 0  1  format, 1
//	 1  4  CRC-32C of everything after it
//	 5  8  when the function began to run, Unix milliseconds
//	13  8  how long it may be served, milliseconds
//	21 22  entity tag
//	43  1  number of tags, then 16 bytes for each generation
//	       body
type entry struct {
	born        time.Time
	ttl         time.Duration
	etag        string
	generations []byte
	body        []byte
}

const (
	entryFormat = 1
	entryHeader = 44
	etagSize    = 22
	maxStored   = 32 << 20 // bytes; no entry is that large
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes e as made under these generations.
func (e *entry) encode(generations [][]byte) []byte {
	b := make([]byte, 0, entryHeader+len(generations)*generationSize+len(e.body))
	b = append(b, entryFormat, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(e.born.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(e.ttl.Milliseconds()))
	b = append(b, e.etag...)
	b = append(b, byte(len(generations)))
	for _, g := range generations {
		b = append(b, g...)
	}
	b = append(b, e.body...)
	binary.BigEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
	return b
}

// decode reads an entry, whose body is part of b. It returns false for
// anything that encode did not write.
func decode(b []byte) (e entry, ok bool) {
	if len(b) < entryHeader || b[0] != entryFormat || binary.BigEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return entry{}, false
	}
	end := entryHeader + int(b[43])*generationSize
	if len(b) < end {
		return entry{}, false
	}
	return entry{
		born:        time.UnixMilli(int64(binary.BigEndian.Uint64(b[5:]))),
		ttl:         time.Duration(binary.BigEndian.Uint64(b[13:])) * time.Millisecond,
		etag:        unsafe.String(&b[21], etagSize), // nobody changes b
		generations: b[entryHeader:end],
		body:        b[end:],
	}, true
}

// agrees reports whether the tags still have the generations that e was made under.
func (e *entry) agrees(generations [][]byte) bool {
	if len(e.generations) != len(generations)*generationSize {
		return false
	}
	for i, g := range generations {
		if !bytes.Equal(g, e.generations[i*generationSize:(i+1)*generationSize]) {
			return false
		}
	}
	return true
}

// etagOf is the strong entity tag of a body: 22 bytes, quotes included.
func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	var tag [etagSize]byte
	base64.RawURLEncoding.Encode(tag[1:], sum[:15])
	tag[0], tag[etagSize-1] = '"', '"'
	return string(tag[:])
}
