package message

import (
	"encoding/json"
	"iter"
)

// members yields the name and the raw value of each member of body, which must
// be a valid JSON object. It finds where values begin and end without decoding
// them.
func members(body []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		at := skipSpace(body, 0) + 1 // past the brace
		for {
			at = skipSpace(body, at)
			switch body[at] {
			case '}':
				return
			case ',':
				at++
				continue
			}
			end := skipValue(body, at)
			name := body[at:end]
			at = skipSpace(body, skipSpace(body, end)+1) // past the colon
			end = skipValue(body, at)
			if !yield(unquote(name), body[at:end]) {
				return
			}
			at = end
		}
	}
}

func unquote(raw []byte) string {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil { // cannot happen: it is valid JSON
		panic(err)
	}
	return s
}

func skipSpace(b []byte, at int) int {
	for b[at] == ' ' || b[at] == '\t' || b[at] == '\r' || b[at] == '\n' {
		at++
	}
	return at
}

// skipValue returns the end of the value that begins at at.
func skipValue(b []byte, at int) int {
	depth := 0
	for {
		switch b[at] {
		case '"':
			at = skipString(b, at)
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\t', '\r', '\n':
			at++
			continue
		default:
			at = skipScalar(b, at)
		}
		if depth == 0 {
			return at
		}
	}
}

func skipString(b []byte, at int) int {
	for at++; b[at] != '"'; at++ {
		if b[at] == '\\' {
			at++
		}
	}
	return at + 1
}

func skipScalar(b []byte, at int) int {
	for {
		switch b[at] {
		case ',', ':', '}', ']', ' ', '\t', '\r', '\n':
			return at
		}
		at++
	}
}
