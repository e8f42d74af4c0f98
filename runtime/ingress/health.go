package ingress

import (
	"net/http"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Admin returns the handler of the admin port: /livez, and a /readyz that says
// what is wrong, which the public one keeps to itself.
func (i *Ingress) Admin() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, serve func(x *exchange)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			x := i.exchange(w, r)
			defer x.finish()
			serve(x)
		})
	}
	handle("GET /livez", func(x *exchange) { x.livez(nil) })
	handle("GET /readyz", func(x *exchange) { x.ready(true) })
	handle("/", func(x *exchange) { x.fail(refuse(http.StatusNotFound, "there is nothing at this path")) })
	return mux
}

// livez answers as long as the process can answer anything.
func (x *exchange) livez(*routes) { x.ok() }

// readyz answers 200 when requests can be served.
func (x *exchange) readyz(*routes) { x.ready(false) }

func (x *exchange) ready(open bool) {
	if x.ingress.draining.Load() {
		x.fail(notReady("this process is stopping"))
		return
	}
	if err := x.ingress.cfg.Broker.Health(); err != nil {
		p := notReady("the broker cannot be used at present")
		if p.cause = err; open {
			p.Detail = err.Error()
		}
		x.fail(p)
		return
	}
	x.ok()
}

func notReady(detail string) *problem {
	p := problemOf(&contract.Error{Code: contract.CodeUnavailable, Detail: detail, Executed: contract.ExecutedNo}, true)
	p.proxyStatus = ""
	return p
}

func (x *exchange) ok() {
	x.set("Content-Type", "application/json")
	x.write(http.StatusOK, []byte(`{"status":"ok"}`+"\n"))
}
