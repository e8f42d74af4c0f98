package app_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/app"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// command runs rabbet with the arguments in a process of its own.
func command(t *testing.T, env []string, arguments ...string) (out, notes string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0], arguments...)
	cmd.Env = append(append(os.Environ(), asCommand+"=1"), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), code
}

func TestTopologyExport(t *testing.T) {
	env := []string{"RABBET_BROKER_URL=amqp://localhost/shop", "RABBET_NAMESPACE=ns", "RABBET_FUNCTIONS=get-profile,send-email"}
	out, notes, code := command(t, env, "topology", "export")
	var definitions struct {
		Exchanges, Queues []struct{ Name, VHost string }
		Bindings          []struct {
			Source, Destination string
			Key                 string `json:"routing_key"`
		}
	}
	if err := json.Unmarshal([]byte(out), &definitions); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v:\n%s%s", code, err, out, notes)
	}
	var queues, bindings []string
	for _, q := range definitions.Queues {
		if q.VHost != "shop" {
			t.Errorf("queue %s: virtual host %q, want that of the URL", q.Name, q.VHost)
		}
		if !strings.Contains(q.Name, ".delay.") {
			queues = append(queues, q.Name)
		}
	}
	slices.Sort(queues)
	if want := []string{"ns.dead-functions", "ns.dead.send-email", "ns.due", "ns.event.send-email", "ns.expired", "ns.request.get-profile"}; !slices.Equal(queues, want) {
		t.Errorf("queues: got %v, want %v", queues, want)
	}
	for _, b := range definitions.Bindings {
		bindings = append(bindings, b.Source+" "+b.Key+" "+b.Destination)
	}
	for _, want := range []string{"ns.requests profile.get ns.request.get-profile", "ns.events email.requested ns.event.send-email", "ns.dead send-email ns.dead.send-email"} {
		if !slices.Contains(bindings, want) {
			t.Errorf("bindings: got %v, want %q among them", bindings, want)
		}
	}
	for name, env := range map[string][]string{
		"a function that is none": {"RABBET_BROKER_URL=amqp://localhost/", "RABBET_FUNCTIONS=typo"},
		"no RabbitMQ":             {"RABBET_BROKER_URL=memory://"},
	} {
		if _, notes, code := command(t, env, "topology", "diff"); code != app.ExitUsage {
			t.Errorf("%s: got exit code %d and %q, want %d", name, code, notes, app.ExitUsage)
		}
	}
}

func TestTopologyDiffAndApply(t *testing.T) {
	env := []string{"RABBET_BROKER_URL=" + service(t, "RABBET_TEST_AMQP_URL"), "RABBET_NAMESPACE=test-" + contract.NewID()[:10]}
	managed := append(env[:2:2], "RABBET_MANAGEMENT_URL="+service(t, "RABBET_TEST_AMQP_MANAGEMENT_URL"))
	for _, step := range []struct {
		env  []string
		verb string
		code int
		want string
	}{
		{env, "diff", app.ExitFailed, "missing  queue"},
		{managed, "diff", app.ExitFailed, "missing  binding"},
		{env, "apply", 0, "declared queue"},
		{env, "apply", 0, "nothing was missing"},
		{env, "diff", 0, "no difference"},
		{managed, "diff", 0, "no difference"},
	} {
		if out, notes, code := command(t, step.env, "topology", step.verb); code != step.code || !strings.Contains(out, step.want) {
			t.Errorf("%s: got exit code %d and\n%s%s\nwant %d and %q", step.verb, code, out, notes, step.code, step.want)
		}
	}
}
