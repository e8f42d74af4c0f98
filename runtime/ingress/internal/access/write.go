package access

import (
	"net/http"
	"strconv"
)

// measuredByServer is the size in bytes up to which net/http adds Content-Length
// by itself. It documents "a few KB"; its buffer is 2,048 bytes.
const measuredByServer = 2000

// WriteResponse writes a response whose header fields are set, but for
// Content-Length. If the client left meanwhile, it notes that in the record. The
// response to a HEAD request has no body.
func WriteResponse(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if len(body) > measuredByServer || r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(body); err != nil {
		if record := RecordOf(r.Context()); record.Cause == nil {
			record.Gone, record.Cause = true, err
		}
	}
}
