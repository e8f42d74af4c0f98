package cache

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"time"
	"unsafe"

	"github.com/rabbet-fn/rabbet/runtime/contract"
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

// entry is a stored result, or a failure that is kept in place of one. As
// bytes, big endian:
//
//	 0  1  format, 2 (see codec)
//	 1  4  CRC-32C of everything after it
//	 5  8  when the function began to run, Unix milliseconds
//	13  8  for how long it is fresh, milliseconds
//	21  1  1 for a failure
//	22 22  entity tag; zeros for a failure
//	44  1  number of tags, then 16 bytes for each generation
//	       body; of a failure a keptFailure as JSON
type entry struct {
	born        time.Time
	ttl         time.Duration
	failure     bool
	etag        string
	generations []byte
	body        []byte
}

const (
	entryHeader = 45
	etagSize    = 22
	maxStored   = 32 << 20 // bytes; no entry is that large
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes e as made under these generations.
func (e *entry) encode(generations [][]byte) []byte {
	b := make([]byte, 0, entryHeader+len(generations)*generationSize+len(e.body))
	b = append(b, formatPlain, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(e.born.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(e.ttl.Milliseconds()))
	if e.failure {
		b = append(b, 1)
		b = append(b, make([]byte, etagSize)...)
	} else {
		b = append(b, 0)
		b = append(b, e.etag...)
	}
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
	if len(b) < entryHeader || b[0] != formatPlain || binary.BigEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return entry{}, false
	}
	end := entryHeader + int(b[44])*generationSize
	if len(b) < end {
		return entry{}, false
	}
	e = entry{
		born:        time.UnixMilli(int64(binary.BigEndian.Uint64(b[5:]))),
		ttl:         time.Duration(binary.BigEndian.Uint64(b[13:])) * time.Millisecond,
		failure:     b[21] == 1,
		generations: b[entryHeader:end],
		body:        b[end:],
	}
	if !e.failure {
		e.etag = unsafe.String(&b[22], etagSize) // nobody changes b
	}
	return e, true
}

// agrees reports whether the tags still have the generations that e was made under.
func (e *entry) agrees(generations [][]byte) bool {
	if len(e.generations) != len(generations)*generationSize {
		return false
	}
	for i, g := range generations {
		if !e.agreesOn(i, g) {
			return false
		}
	}
	return true
}

// agreesOn reports whether e was made when its tag i had that generation.
func (e *entry) agreesOn(i int, generation []byte) bool {
	from, to := i*generationSize, (i+1)*generationSize
	return to <= len(e.generations) && bytes.Equal(generation, e.generations[from:to])
}

// etagOf is the strong entity tag of a body: 22 bytes, quotes included.
func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	var tag [etagSize]byte
	base64.RawURLEncoding.Encode(tag[1:], sum[:15])
	tag[0], tag[etagSize-1] = '"', '"'
	return string(tag[:])
}

// keptFailure is what of a failure travels: what a caller may know.
type keptFailure struct {
	Code   contract.Code         `json:"code"`
	Detail string                `json:"detail,omitempty"`
	Fields []contract.FieldError `json:"fields,omitempty"`
}

func failureBody(e *contract.Error) []byte {
	body, _ := json.Marshal(keptFailure{e.Code, e.Detail, e.Fields}) // strings can always be written
	return body
}

// failureOf returns the error that body holds: nothing ran for whoever gets it.
func failureOf(body []byte) *contract.Error {
	var kept keptFailure
	if ok := json.Unmarshal(body, &kept) == nil; !ok || kept.Code == "" {
		return nil
	}
	return &contract.Error{Code: kept.Code, Detail: kept.Detail, Fields: kept.Fields, Executed: contract.ExecutedNo}
}
