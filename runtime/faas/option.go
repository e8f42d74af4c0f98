package faas

import (
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Option describes a function beyond its message type. The options are the results
// of HTTP, Cached, Once and so on, and values of the types Retry and CachePolicy.
type Option interface{ FunctionOption() }

type settings struct {
	keys        []string
	exchange    string
	route       string
	status      int
	cache       *CachePolicy
	retry       *Retry // nil: the set's
	once        *contract.OncePolicy
	timeout     time.Duration
	concurrency int
	ordered     bool
	readOnly    bool
	idempotent  bool
	version     string
	session     bool
	also        []any // reactionTo[D]
	reactions   []contract.Reaction
}

type optionFunc func(*settings)

// FunctionOption implements Option.
func (optionFunc) FunctionOption() {}

// apply applies the options to s.
func (s *settings) apply(options []Option) error {
	for _, option := range options {
		switch o := option.(type) {
		case optionFunc:
			o(s)
		case Retry:
			s.retry = &o
		case CachePolicy:
			s.cache = cacheOption(o)
		default:
			return fmt.Errorf("%T is no option of package faas", option)
		}
	}
	return nil
}

// HTTP gives a request function an HTTP route, a method and a path as for
// net/http.ServeMux: "GET /profiles/{id}". Path and query parameters fill the
// fields of the message with the same JSON names; a JSON body fills the others.
func HTTP(route string) Option { return optionFunc(func(s *settings) { s.route = route }) }

// Status sets the HTTP status of a success, 200 to 299. The default is 200, or 204
// for a function that returns struct{}.
func Status(code int) Option { return optionFunc(func(s *settings) { s.status = code }) }

// Timeout limits one run, from 1 ms on; the default is 30 s. It is at most 25 min for
// event functions and for request functions with ReadOnly or Idempotent. The deadline of a caller may
// be earlier.
func Timeout(d time.Duration) Option { return optionFunc(func(s *settings) { s.timeout = d }) }

// Concurrency limits the concurrent runs in one worker, 1 to 10000. The default is
// 128 for a request function and 16 for an event function.
func Concurrency(n int) Option { return optionFunc(func(s *settings) { s.concurrency = n }) }

// Keys sets the routing keys and topic patterns, such as "order.#", that an event
// function reacts to, in place of the routing key of its message.
func Keys(keys ...string) Option {
	return optionFunc(func(s *settings) { s.keys = append([]string(nil), keys...) })
}

// Exchange binds an event function to another topic exchange than the events
// exchange of the namespace. The exchange is declared if it does not exist;
// otherwise it is used as it is.
func Exchange(name string) Option { return optionFunc(func(s *settings) { s.exchange = name }) }

// Ordered runs an event function on one event at a time across all workers, in the
// order in which the events were published. An event that fails delays the following
// ones until it succeeds or has used up its attempts, at most 20. The wait between
// attempts is at most 15 min, and ends early when the worker stops.
func Ordered() Option { return optionFunc(func(s *settings) { s.ordered = true }) }

// ReadOnly says that a request function changes nothing (a safe method in RFC
// 9110, section 9.2.1). A call of it whose worker is lost runs again on another
// worker. GET and HEAD routes imply it.
func ReadOnly() Option { return optionFunc(func(s *settings) { s.readOnly = true }) }

// Idempotent says that running a request function twice has the same effect as
// running it once, also if another call has run in between, and that it stops
// when its ctx ends. A call whose worker is lost before it has answered runs
// again on another worker, as attempt 2; the ctx of the lost run ends.
//
// PUT and DELETE routes do not imply it: each of them is idempotent by itself,
// but the delayed run of an older PUT undoes a newer one. Use it if the function
// itself refuses an older change, for instance by a version number. Calls of
// such a function are not batched.
func Idempotent() Option { return optionFunc(func(s *settings) { s.idempotent = true }) }

// Version sets the version of a function's results. Cached results of other versions
// are not used. The default is a hash of the types of the message and the reply.
func Version(v string) Option { return optionFunc(func(s *settings) { s.version = v }) }

// UsesSession lets a request function read and change the session of its HTTP client
// with Session. Its results are never cached.
func UsesSession() Option { return optionFunc(func(s *settings) { s.session = true }) }
