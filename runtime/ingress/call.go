package ingress

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// callByName serves POST /functions/{name}.
func (x *exchange) callByName(t *routes) {
	name := x.request.PathValue("name")
	f, known := t.functions[name]
	switch {
	case !known:
		x.unknown(t, "there is no function %q; /openapi.json lists what there is", limited(name))
	case f.Kind == contract.KindEvent:
		x.function = f
		x.fail(refuse(http.StatusNotFound, "%s reacts to events and cannot be called: publish one with POST /events/{routing key}; it listens to %s",
			f.Name, strings.Join(f.Keys, ", ")))
	default:
		x.call(f, nil)
	}
}

// call makes a message of the request, calls f with it and writes the answer.
// params are the names of the path's parameters.
func (x *exchange) call(f *function, params []string) {
	x.function = f
	r := x.request
	if len(f.Workers) == 0 && !f.cached {
		x.fail(problemOf(errNoWorker, f.Idempotent))
		return
	}
	status := f.successStatus()
	if status != http.StatusNoContent && !accepts(r.Header, "application", "json") {
		x.fail(refuse(http.StatusNotAcceptable, "the answer is application/json, which Accept excludes"))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !f.cached {
		if p := f.unguarded(r.Header); p != nil {
			x.fail(p)
			return
		}
	}
	patience, p := timeout(r.Header, f.Timeout)
	if p != nil {
		x.fail(p)
		return
	}
	if p := x.ingress.enter(); p != nil {
		x.fail(p)
		return
	}
	defer x.ingress.leave()
	body, p := x.message(f, params)
	if p != nil {
		x.fail(p)
		return
	}
	x.await(patience)
	began := x.start
	if r.ContentLength != 0 {
		began = time.Now() // the body took its time
	}
	request := contract.Call{
		Key: f.Keys[0], Function: f.Name, ID: x.id, Deadline: began.Add(patience),
		Body: body, Correlation: x.correlation(), Trace: traceOf(r.Header),
	}
	if f.Session {
		x.callInSession(f, status, request)
		return
	}
	if f.cached {
		x.callCached(f, status, request, began)
		return
	}
	x.sent = true
	reply, err := x.ingress.cfg.Broker.Call(x.context(), request)
	if err != nil {
		x.fail(problemOf(err, f.Idempotent))
		return
	}
	x.timing(time.Since(began), reply.Run)
	x.reply(status, reply.Body)
}

var errNoWorker = &contract.Error{
	Code: contract.CodeUnroutable, Detail: "the function is known, but no worker hosts it now", Executed: contract.ExecutedNo,
}

// successStatus is the status of a success: the route's, also by name.
func (f *function) successStatus() int {
	if f.Route != nil && f.Route.Status != 0 {
		return f.Route.Status
	}
	return http.StatusOK
}

// await gives the answer of a slow function the time to be written: the
// server's WriteTimeout counts from the request's arrival.
func (x *exchange) await(patience time.Duration) {
	if patience > writeTimeout/2 {
		// Not every ResponseWriter has deadlines; a connection has.
		_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(time.Now().Add(patience + writeTimeout))
	}
}

// timing says where the time went: run is the function's, queue all the rest
// between ingress and function.
func (x *exchange) timing(total, run time.Duration) {
	b := make([]byte, 0, 48)
	b = appendMillis(append(b, "queue;dur="...), max(0, total-run))
	b = appendMillis(append(b, ", run;dur="...), run)
	x.set("Server-Timing", string(b))
}

func appendMillis(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Microseconds())/1000, 'f', -1, 64)
}

// reply writes a success.
func (x *exchange) reply(status int, body []byte) {
	if status == http.StatusNoContent {
		x.WriteHeader(status)
		return
	}
	x.set("Content-Type", "application/json")
	x.write(status, body)
}
