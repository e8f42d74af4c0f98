package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/database/databasetest"
)

// A worker waits for its database when it starts, and survives its loss: it says
// so, its calls are told to come again, and all is well once it is back.
func TestDatabaseComesAndGoes(t *testing.T) {
	amqp, database := service(t, "RABBET_TEST_AMQP_URL"), databasetest.Postgres(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	way := newProxy(t, u.Host)
	way.close()
	u.Host = way.address
	env := []string{
		"RABBET_BROKER_URL=" + amqp, "RABBET_NAMESPACE=test-" + contract.NewID()[:10],
		"RABBET_FUNCTIONS=get-profile,update-profile", "RABBET_DATABASE_URL=" + u.String(),
	}
	worker, front := newPart(t, "worker", env...), newPart(t, "ingress", env...)
	worker.begin()
	front.start()
	unready := func(p *part, why string) {
		t.Helper()
		await(t, "not ready: "+why, func() bool {
			return strings.Contains(ask(t, http.MethodGet, "http://"+p.admin+"/readyz", ""), why)
		})
	}
	save := func(answer string) bool {
		return strings.Contains(ask(t, http.MethodPut, "http://"+front.http+"/profiles/9", `{"name":"Nine","email":"nine@example.com"}`), answer)
	}
	waits := func(p *part) {
		t.Helper()
		await(t, "the log says what is in the way", func() bool { return strings.Contains(p.log.String(), "is out of reach") })
		unready(p, "the database is not open")
	}
	waits(worker)
	impatient := newPart(t, "worker", env...)
	impatient.begin()
	waits(impatient)
	impatient.stop() // without a complaint

	way.open()
	worker.awaitReady()
	await(t, "a profile is saved", func() bool { return save(`"id":"9"`) })
	way.close()
	if !save(`"status":503`) {
		t.Error("without the database a call does not get a 503")
	}
	unready(worker, "is out of reach")
	way.open()
	await(t, "a profile is saved again", func() bool { return save(`"id":"9"`) })
	worker.awaitReady()
	worker.stop()
}
