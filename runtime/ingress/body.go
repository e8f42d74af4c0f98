package ingress

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// body reads and checks the JSON body of a call; nil if there is none.
func (x *exchange) body(input *shape) ([]byte, *problem) {
	r := x.request
	if r.ContentLength == 0 {
		return nil, nil
	}
	bodiless := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !bodiless {
		if p := wantJSON(r); p != nil {
			return nil, p
		}
	}
	body, p := x.read()
	if p != nil || len(body) == 0 { // some chunked bodies are empty
		return nil, p
	}
	if bodiless {
		return nil, refuse(http.StatusBadRequest, "a %s request has no body: put its input into path and query", r.Method)
	}
	if p := malformed(body); p != nil {
		return nil, p
	}
	if input.object && !startsObject(body) {
		return nil, unfit(contract.FieldError{Detail: "want an object"})
	}
	return body, nil
}

// malformed is the problem of a body that is not JSON; nil if it is.
func malformed(body []byte) *problem {
	if utf8.Valid(body) && json.Valid(body) {
		return nil
	}
	p := refuse(http.StatusBadRequest, "the body is not JSON")
	var v any
	if err := json.Unmarshal(body, &v); err == nil { // who decodes it would put U+FFFD where it is not UTF-8
		p = refuse(http.StatusBadRequest, "the body is not UTF-8, which JSON has to be (RFC 8259, section 8.1)")
	} else if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		p = refuse(http.StatusBadRequest, "the body is not JSON: %v (at byte %d)", s, s.Offset)
	}
	p.Type = typeOf(contract.CodeMalformed)
	return p
}

// wantJSON refuses a body whose type is not JSON.
func wantJSON(r *http.Request) *problem {
	if p := plainEncoding(r); p != nil {
		return p
	}
	contentType := r.Header.Get("Content-Type")
	if isJSON(contentType) || unlabelled(r, contentType) {
		return nil
	}
	return refuse(http.StatusUnsupportedMediaType, "the body is %q: send JSON, with Content-Type: application/json", limited(contentType))
}

func plainEncoding(r *http.Request) *problem {
	if c := strings.Join(r.Header["Content-Encoding"], ", "); c != "" && !strings.EqualFold(c, "identity") {
		return refuse(http.StatusUnsupportedMediaType, "the body is encoded as %q: send it as it is", limited(c))
	}
	return nil
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// unlabelled reports whether the client did not say what it sends: no content
// type, or the one that curl -d puts there by itself. From a browser neither
// is taken for JSON: it lets any page send both without asking first.
func unlabelled(r *http.Request, contentType string) bool {
	if r.Header["Origin"] != nil || r.Header["Sec-Fetch-Site"] != nil {
		return false
	}
	return contentType == "" || contentType == "application/x-www-form-urlencoded"
}

// read returns the whole body. Nobody else gets its memory: a broker may keep
// it for longer than the request lasts.
func (x *exchange) read() ([]byte, *problem) {
	r, limit := x.request, x.ingress.cfg.MaxBody
	if r.ContentLength > limit {
		return nil, x.tooLarge()
	}
	const trusted = 64 << 10 // bytes to set aside on the client's word
	var body []byte
	var err error
	if n := r.ContentLength; n >= 0 && n <= trusted {
		body = make([]byte, n)
		_, err = io.ReadFull(r.Body, body)
	} else {
		var b bytes.Buffer
		_, err = b.ReadFrom(http.MaxBytesReader(x.ResponseWriter, r.Body, limit))
		body = b.Bytes()
	}
	if err == nil {
		return body, nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, x.tooLarge()
	}
	x.set("Connection", "close")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, refuse(http.StatusRequestTimeout, "the request did not arrive within %v", readTimeout)
	}
	p := refuse(http.StatusBadRequest, "the body cannot be read")
	p.cause = err
	return nil, p
}

func (x *exchange) tooLarge() *problem {
	x.set("Connection", "close") // rather than read what is left of it
	return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", x.ingress.cfg.MaxBody)
}
