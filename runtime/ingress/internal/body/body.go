// Package body reads the bodies of requests within a limit, and checks that
// they are what they should be. It does not know what they are for.
package body

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/access"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

// ReadJSON reads the JSON body of a call, of at most limit bytes; nil if there
// is none.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem.Problem) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	bodiless := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !bodiless {
		if p := checkJSONType(r.Header); p != nil {
			return nil, p
		}
	}
	b, p := Read(w, r, limit)
	if p != nil || len(b) == 0 { // a chunked body may be empty
		return nil, p
	}
	if bodiless {
		return nil, problem.New(http.StatusBadRequest, "a %s request has no body: put its input into path and query", r.Method)
	}
	if p := CheckJSON(b); p != nil {
		return nil, p
	}
	return b, nil
}

// checkJSONType refuses a body whose type is not JSON.
func checkJSONType(h http.Header) *problem.Problem {
	if p := CheckEncoding(h); p != nil {
		return p
	}
	contentType := h.Get("Content-Type")
	if header.IsJSON(contentType) || header.IsUnlabelled(h) {
		return nil
	}
	return problem.New(http.StatusUnsupportedMediaType, "the body is %q: send JSON, with Content-Type: application/json", access.Clip(contentType))
}

// CheckEncoding refuses a body with a content coding, such as gzip.
func CheckEncoding(h http.Header) *problem.Problem {
	if c := strings.Join(h["Content-Encoding"], ", "); c != "" && !strings.EqualFold(c, "identity") {
		return problem.New(http.StatusUnsupportedMediaType, "the body is encoded as %q: send it without an encoding", access.Clip(c))
	}
	return nil
}

// CheckJSON refuses a body that is not JSON in UTF-8 (RFC 8259, section 8.1).
func CheckJSON(b []byte) *problem.Problem {
	if IsJSON(b) {
		return nil
	}
	var v any
	err := json.Unmarshal(b, &v)
	if err == nil { // a decoder would replace what is not UTF-8 by U+FFFD
		return problem.Malformed(nil, "the body is not UTF-8, which JSON must be (RFC 8259, section 8.1)")
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return problem.Malformed(nil, "the body is not JSON: %v (at byte %d)", s, s.Offset)
	}
	return problem.Malformed(nil, "the body is not JSON")
}

// IsJSON reports whether b is JSON in UTF-8.
func IsJSON(b []byte) bool { return utf8.Valid(b) && json.Valid(b) }

// Read reads a body of at most limit bytes. The caller owns its memory: a broker
// may keep it for longer than the request lasts.
func Read(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem.Problem) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	b, err := read(w, r, limit)
	if err == nil {
		return b, nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, tooLarge(limit)
	}
	p := problem.New(http.StatusBadRequest, "the body cannot be read")
	p.Cause = err
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p = problem.New(http.StatusRequestTimeout, "the request did not arrive in time")
	}
	p.SetHeader("Connection", "close")
	return nil, p
}

func read(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	const maxTrusted = 64 << 10 // bytes to allocate because the client announces them
	if n := r.ContentLength; n >= 0 && n <= maxTrusted {
		b := make([]byte, n)
		_, err := io.ReadFull(r.Body, b)
		return b, err
	}
	var b bytes.Buffer
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	return b.Bytes(), err
}

// tooLarge closes the connection, because the rest of the body is not read.
func tooLarge(limit int64) *problem.Problem {
	p := problem.New(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", limit)
	p.SetHeader("Connection", "close")
	return p
}
