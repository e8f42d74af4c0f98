package ingress

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// Caller makes a call; a Broker is one.
type Caller interface {
	Call(ctx context.Context, r faas.Request) (faas.Reply, error)
}

// Results serves the results of functions that say faas.Cached, from a cache
// where it can and through next otherwise. A cache that is down is no error.
type Results interface {
	Call(ctx context.Context, next Caller, f *faas.Descriptor, r faas.Request, want Directives) (Result, error)
}

// Directives is what the client asks of the cache (RFC 9111, section 5.2.1).
type Directives struct {
	NoStore      bool          // do not store the result
	NoCache      bool          // run the function whatever is stored
	OnlyIfCached bool          // do not run it: an absent result is faas.ErrUnavailable, not executed
	MaxAge       time.Duration // a stored result may be no older; zero is any
	MinFresh     time.Duration // it must stay fresh for at least this long
	MaxStale     time.Duration // it may have been stale for as long, where the store still has it
}

// Result is an answer and how it came about.
type Result struct {
	faas.Reply
	Hit       bool          // it was stored; with an error, that was (see faas.CachePolicy.Negative)
	Stored    bool          // it is now
	Collapsed bool          // it was made for another request at the same time
	Forward   string        // why the function ran: "uri-miss", "stale", "request", "bypass", "miss" (RFC 9211)
	ETag      string        // strong, quoted; "" for none
	Age       time.Duration // since the function ran
	TTL       time.Duration // for how long it is still fresh; negative: it is stale
}

// callCached calls f through the cache.
func (x *exchange) callCached(f *function, status int, request faas.Request) {
	r := x.request
	want := directives(r.Header)
	if len(r.Header["Authorization"]) > 0 { // RFC 9111, section 3.5
		want.NoStore, want.NoCache = true, true
	}
	if want.OnlyIfCached && want.NoCache {
		x.fail(onlyIfCached())
		return
	}
	// A cache waits for others as well: for its store, or for the same call of
	// somebody who has more time. The request's own deadline ends that too.
	ctx, cancel := context.WithDeadline(r.Context(), request.Deadline)
	defer cancel()
	began := time.Now()
	x.sent = true
	result, err := x.ingress.cfg.Results.Call(ctx, x.ingress.cfg.Broker, &f.Descriptor, request, want)
	if err != nil {
		if want.OnlyIfCached {
			x.sent = false
			x.fail(onlyIfCached())
			return
		}
		x.fail(problemOf(err, f.Repeatable))
		return
	}
	x.describe(&result, want, time.Since(began))
	if status == http.StatusOK && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		switch precondition(r.Header, result.ETag) {
		case http.StatusNotModified:
			x.WriteHeader(http.StatusNotModified)
			return
		case http.StatusPreconditionFailed:
			p := refuse(http.StatusPreconditionFailed, "what is there now is not what If-Match names")
			p.Executed = faas.ExecutedYes
			x.fail(p)
			return
		}
	}
	x.reply(status, result.Body)
}

func onlyIfCached() *problem {
	return refuse(http.StatusGatewayTimeout, "only-if-cached: nothing is stored for this request")
}

// describe says how the result came about. Whoever stores it must ask again
// before using it: only the ingress hears of an invalidation.
func (x *exchange) describe(result *Result, want Directives, took time.Duration) {
	if result.ETag != "" {
		x.set("Etag", result.ETag)
	}
	if want.NoStore {
		x.set("Cache-Control", "no-store")
	} else {
		x.set("Cache-Control", "no-cache")
	}
	b := append(make([]byte, 0, 64), "Rabbet"...)
	if result.Hit {
		b = append(b, "; hit; ttl="...)
		b = strconv.AppendInt(b, int64(result.TTL/time.Second), 10)
		x.set("Age", strconv.FormatInt(int64(result.Age/time.Second), 10))
	} else {
		forward := result.Forward
		if forward == "" {
			forward = "miss"
		}
		b = append(append(b, "; fwd="...), forward...)
		if result.Stored {
			b = append(b, "; stored"...)
		}
		if result.Collapsed {
			b = append(b, "; collapsed"...)
		}
	}
	x.set("Cache-Status", string(b))
	if result.Hit {
		x.set("Server-Timing", string(appendMillis(append(make([]byte, 0, 24), "cache;dur="...), took)))
	} else {
		x.timing(took, result.Run)
	}
}

// directives reads Cache-Control. What it does not know it ignores.
func directives(h http.Header) (want Directives) {
	values := h["Cache-Control"]
	if len(values) == 0 {
		want.NoCache = len(h["Pragma"]) > 0 && strings.EqualFold(h["Pragma"][0], "no-cache")
		return want
	}
	for _, value := range values {
		for directive := range strings.SplitSeq(value, ",") {
			name, argument, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store":
				want.NoStore = true
			case "no-cache":
				want.NoCache = true
			case "only-if-cached":
				want.OnlyIfCached = true
			case "max-age":
				seconds, err := strconv.ParseUint(strings.Trim(argument, `"`), 10, 31)
				if err != nil || seconds == 0 { // what cannot be read is taken for stale
					want.NoCache = true
				} else {
					want.MaxAge = time.Duration(seconds) * time.Second
				}
			}
		}
	}
	return want
}

// precondition evaluates If-Match and If-None-Match (RFC 9110, section 13.2.2)
// and returns 304, 412, or 0 to go on.
func precondition(h http.Header, etag string) int {
	if match := h["If-Match"]; len(match) > 0 && !matches(match, etag, true) {
		return http.StatusPreconditionFailed
	}
	if match := h["If-None-Match"]; len(match) > 0 && matches(match, etag, false) {
		return http.StatusNotModified
	}
	return 0
}

// matches reports whether a list of entity tags contains etag. The strong
// comparison knows no weak tags; the weak one ignores the difference.
func matches(list []string, etag string, strong bool) bool {
	if strong && strings.HasPrefix(etag, "W/") {
		etag = ""
	}
	for _, value := range list {
		for value = strings.TrimLeft(value, " \t,"); value != ""; value = strings.TrimLeft(value, " \t,") {
			if value[0] == '*' {
				return true
			}
			weak := strings.HasPrefix(value, "W/")
			value = strings.TrimPrefix(value, "W/")
			if value == "" || value[0] != '"' {
				break // malformed: nothing after it can be trusted
			}
			end := strings.IndexByte(value[1:], '"')
			if end < 0 {
				break
			}
			tag := value[:end+2]
			value = value[end+2:]
			if etag != "" && !(weak && strong) && tag == strings.TrimPrefix(etag, "W/") {
				return true
			}
		}
	}
	return false
}
