package ingress

import (
	"net/http"

	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/routing"
)

// newAdmin returns the handler of the admin address.
func (i *Ingress) newAdmin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) { writeOK(w, r) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { i.writeReadiness(w, r, true) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.New(http.StatusNotFound, "there is nothing at this path"))
	})
	return mux
}

// serveLivez answers as long as the process can answer at all.
func serveLivez(w http.ResponseWriter, r *http.Request, _ *routing.Table) { writeOK(w, r) }

// serveReadyz answers 200 when requests can be served.
func (i *Ingress) serveReadyz(w http.ResponseWriter, r *http.Request, _ *routing.Table) {
	i.writeReadiness(w, r, false)
}

// writeReadiness answers whether requests can be served; if detailed, with what is
// wrong with the broker, which may name addresses.
func (i *Ingress) writeReadiness(w http.ResponseWriter, r *http.Request, detailed bool) {
	if i.draining.Load() {
		problem.Write(w, r, problem.Unavailable(nil, "this process is stopping"))
		return
	}
	if err := i.cfg.Broker.Health(); err != nil {
		p := problem.Unavailable(err, "the broker cannot be used at present")
		if detailed {
			p.Detail = err.Error()
		}
		problem.Write(w, r, p)
		return
	}
	writeOK(w, r)
}

func writeOK(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, r, http.StatusOK, []byte(`{"status":"ok"}`+"\n"))
}
