package rabbit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// newTopology is a topology of a request and an event function in a namespace
// of the test's own.
func newTopology(t *testing.T) (Config, Topology, []contract.Function) {
	t.Helper()
	cfg := Config{URL: brokerURL(t), Namespace: "test-" + contract.NewID(), Grace: 5 * time.Second}
	removeAfter(t, cfg.Namespace)
	echo := contract.Function{
		Descriptor: contract.Descriptor{Name: "echo", Kind: contract.KindRequest, Keys: []string{"echo.it"}, Timeout: 10 * time.Second, Concurrency: 4, Version: "1"},
		Handle:     func(_ context.Context, e *contract.Event) ([]byte, error) { return e.Body, nil },
	}
	fail := onEvent("fail", "fail.it", func(context.Context, *contract.Event) error { return errors.New("always") })
	fail.Retry = contract.Retry{Max: 2, First: 100 * time.Millisecond}
	fns := []contract.Function{echo, fail}
	whole, err := TopologyOf(cfg.Namespace, []contract.Descriptor{echo.Descriptor, fail.Descriptor})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, whole, fns
}

func apply(t *testing.T, whole Topology, cfg Config) (made []string) {
	t.Helper()
	if err := whole.Apply(within(t, 60*time.Second), cfg, func(what string) { made = append(made, what) }); err != nil {
		t.Fatal(err)
	}
	return made
}

// diff compares by the management API if that is asked for, and by AMQP.
func diff(t *testing.T, whole Topology, cfg Config, byManagement bool) (list, unchecked []string) {
	t.Helper()
	management := ""
	if byManagement {
		management = fromEnvironment(t, "RABBET_TEST_AMQP_MANAGEMENT_URL")
	}
	differences, unchecked, err := whole.Diff(within(t, 60*time.Second), cfg, management)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		list = append(list, d.String())
	}
	return list, unchecked
}

func TestApplyAndDiff(t *testing.T) {
	cfg, whole, _ := newTopology(t)
	n := whole.plan.Names
	all := len(whole.plan.Exchanges) + len(whole.plan.Queues)
	for byManagement, missing := range map[bool]int{false: all, true: all + len(whole.plan.Bindings)} {
		if list, _ := diff(t, whole, cfg, byManagement); len(list) != missing {
			t.Errorf("by management %v, before: got %d differences, want all %d missing: %s", byManagement, len(list), missing, strings.Join(list, "\n"))
		}
	}
	if made := apply(t, whole, cfg); len(made) != all {
		t.Errorf("made %d exchanges and queues, want %d: %s", len(made), all, made)
	}
	for _, byManagement := range []bool{false, true} {
		list, unchecked := diff(t, whole, cfg, byManagement)
		if len(list) > 0 || byManagement == (len(unchecked) > 0) {
			t.Errorf("by management %v, after: got %q, unchecked %q; want no difference, and bindings unchecked by AMQP", byManagement, list, unchecked)
		}
	}
	if made := apply(t, whole, cfg); len(made) > 0 {
		t.Errorf("applied again: made %s, want nothing", made)
	}

	// Drift of every sort.
	ch := foreignChannel(t)
	steps := []error{
		ch.ExchangeDelete(n.Expired(), false, false),
		ch.ExchangeDeclare(n.Expired(), amqp.ExchangeTopic, true, false, false, false, nil),
		ch.ExchangeDelete(n.System(), false, false),
		ch.ExchangeDeclare(n.System(), amqp.ExchangeTopic, true, false, false, false, amqp.Table{topology.ArgumentAlternate: n.Expired()}),
		ch.QueueUnbind(n.EventQueue("fail"), "fail.it", n.Events(), nil),
		ch.QueueBind(n.EventQueue("fail"), "old.key", n.Events(), false, nil),
	}
	for _, queue := range []string{n.DeadQueue("fail"), n.EventQueue("fail")} {
		_, err := ch.QueueDelete(queue, false, false, false)
		steps = append(steps, err)
	}
	other := n.EventFunction(&contract.Descriptor{Name: "fail", Keys: []string{"old.key"}}, n.Events())
	other.Queues[1].Arguments["x-delivery-limit"] = int64(3)
	other.Queues[1].Arguments["x-max-length-bytes"] = int64(1 << 30)
	other.Queues, other.Bindings, other.Predeclared = other.Queues[1:], other.Bindings[1:], false
	if err := errors.Join(append(steps, other.Declare(ch))...); err != nil {
		t.Fatal(err)
	}
	queue := fmt.Sprintf("queue %q", n.EventQueue("fail"))
	wantAll := []string{
		fmt.Sprintf("differs  exchange %q: type topic where fanout is wanted", n.Expired()),
		fmt.Sprintf("differs  exchange %q: alternate-exchange %s where none is wanted", n.System(), n.Expired()),
		"differs  " + queue + ": x-delivery-limit 3 where 20 is wanted",
		"differs  " + queue + ": x-max-length-bytes 1073741824 where none is wanted",
		fmt.Sprintf("missing  queue %q", n.DeadQueue("fail")),
		fmt.Sprintf("missing  binding %q from exchange %q to queue %q", "fail", n.Dead(), n.DeadQueue("fail")),
		fmt.Sprintf("missing  binding %q from exchange %q to queue %q", "fail.it", n.Events(), n.EventQueue("fail")),
		fmt.Sprintf("missing  binding %q from exchange %q to queue %q", "", n.Expired(), n.Expired()),
		fmt.Sprintf("extra    binding %q from exchange %q to queue %q", "old.key", n.Events(), n.EventQueue("fail")),
	}
	list, _ := diff(t, whole, cfg, true)
	slices.Sort(list)
	slices.Sort(wantAll)
	if !slices.Equal(list, wantAll) {
		t.Errorf("by management: got\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(wantAll, "\n"))
	}
	list, _ = diff(t, whole, cfg, false)
	if len(list) != 4 || !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, "differs  "+queue+": x-") }) {
		t.Errorf("by AMQP: got\n%s\nwant two exchanges and a queue that differ, and a queue that is missing", strings.Join(list, "\n"))
	}

	// What is missing is declared again; what differs stands as it is, and is named.
	var made []string
	err := whole.Apply(within(t, 60*time.Second), cfg, func(what string) { made = append(made, what) })
	if err == nil || !strings.Contains(err.Error(), n.EventQueue("fail")) || !strings.Contains(err.Error(), n.Expired()) || !strings.Contains(err.Error(), "left as it is") {
		t.Errorf("Apply over drift: got %v, want an error that names what differs", err)
	}
	if want := []string{fmt.Sprintf("queue %q", n.DeadQueue("fail"))}; !slices.Equal(made, want) {
		t.Errorf("Apply over drift: made %s, want %s", made, want)
	}
	list, _ = diff(t, whole, cfg, true)
	slices.Sort(list)
	if want := wantAll[:5]; !slices.Equal(list, want) {
		t.Errorf("after Apply over drift: got\n%s\nwant what it may not change:\n%s", strings.Join(list, "\n"), strings.Join(want, "\n"))
	}
}

// What is exported is what the broker's own import makes of it, and enough for
// a worker that declares nothing.
func TestDefinitionsImported(t *testing.T) {
	n := ownNode(t)
	cfg, whole, fns := newTopology(t)
	cfg.URL, cfg.NoDeclare = n.URL(), true
	definitions, err := whole.Definitions("/")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(own.dir, "faulty", "definitions.json") // where the node can see it
	if err := os.WriteFile(file, definitions, 0o600); err != nil {
		t.Fatal(err)
	}
	ctl(t, n, "import_definitions", file)
	if list, _, err := whole.Diff(within(t, 60*time.Second), cfg, n.Management()); err != nil || len(list) > 0 {
		t.Errorf("after an import: got %v, %v; want no difference", list, err)
	}
	b := startCaller(t, cfg)
	startWorker(t, cfg, []*Broker{b}, fns...)
	reply, err := b.Call(within(t, 20*time.Second), contract.Call{Key: "echo.it", Body: []byte(`"there"`)})
	if err != nil || string(reply.Body) != `"there"` {
		t.Errorf("call: got %s, %v", reply.Body, err)
	}
	if err := b.Publish(t.Context(), contract.Event{Key: "fail.it", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	untilBuried(t, b, "fail", 1) // by way of a delay
}

// manageAs calls the management API with a JSON body.
func manageAs(t *testing.T, method, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(t, 60*time.Second), method, fromEnvironment(t, "RABBET_TEST_AMQP_MANAGEMENT_URL")+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

// asUser is cfg for a user of its own, with these permissions.
func asUser(t *testing.T, cfg Config, configure, write, read string) Config {
	t.Helper()
	name := "user-" + contract.NewID()
	manageAs(t, http.MethodPut, "/api/users/"+name, map[string]string{"password": "secret", "tags": ""})
	t.Cleanup(func() { management(t, http.MethodDelete, "/api/users/"+name, nil) })
	manageAs(t, http.MethodPut, "/api/permissions/%2F/"+name, map[string]string{"configure": configure, "write": write, "read": read})
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, "secret")
	cfg.URL = u.String()
	return cfg
}

// The permissions that the documentation names suffice for a worker and its
// callers, where nobody may declare anything; and for who looks after dead letters.
func TestNothingMayBeDeclared(t *testing.T) {
	cfg, whole, fns := newTopology(t)
	apply(t, whole, cfg)
	ns := regexp.QuoteMeta(cfg.Namespace)
	limited := asUser(t, cfg,
		`^(amq\.gen-.*|`+ns+`\.reply\..*)$`,
		`^(amq\.(default|gen-.*)|`+ns+`\.(requests|events|dead|system|delay\..*))$`,
		`^(amq\.gen-.*|`+ns+`\.(system|expired|due|delay\..*|reply\..*|request\..*|event\..*))$`)
	limited.NoDeclare = true
	keeper := asUser(t, cfg,
		`^(amq\.gen-.*|`+ns+`\.reply\..*)$`,
		`^(amq\.(default|gen-.*)|`+ns+`\.system)$`,
		`^(amq\.gen-.*|`+ns+`\.(system|expired|reply\..*|dead\..*|dead-functions))$`)
	keeper.NoDeclare = true
	k := openBroker(t, func(c *Config) { *c = keeper })

	b := openBroker(t, func(c *Config) { *c = limited })
	serve(t, b, fns...)
	reply, err := b.Call(within(t, 20*time.Second), contract.Call{Key: "echo.it", Body: []byte(`"there"`)})
	if err != nil || string(reply.Body) != `"there"` {
		t.Errorf("call: got %s, %v", reply.Body, err)
	}
	if err := b.Publish(t.Context(), contract.Event{Key: "fail.it", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	untilBuried(t, k, "fail", 1) // by way of a delay
	if err := b.Health(); err != nil {
		t.Errorf("Health: %v", err)
	}

	list, err := k.DeadLetterCounts(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "fail" {
		t.Errorf("DeadLetterCounts: got %v, %v; want fail", list, err)
	}
	if err := k.VisitDeadLetters(t.Context(), "fail", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionReplay, nil }); err != nil {
		t.Error(err)
	}
	untilBuried(t, k, "fail", 1) // again
}

func TestWhatIsInTheWay(t *testing.T) {
	cfg, whole, fns := newTopology(t)
	wantHealth := func(what string, b *Broker, want ...string) {
		t.Helper()
		var err error
		until(t, what, func(ctx context.Context) bool {
			changed := b.consume.Changed()
			if err = b.Health(); err != nil && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(err.Error(), w) }) {
				return true
			}
			select {
			case <-changed:
			case <-time.After(pollInterval): // other links may say it
			case <-ctx.Done():
				t.Logf("%s: Health: %v", what, err)
			}
			return false
		})
	}
	open := func(cfg Config) *Broker {
		t.Helper()
		b, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	fixed := cfg
	fixed.NoDeclare = true
	wantHealth("nothing is there", open(fixed), "NOT_FOUND", "rabbet topology apply")

	apply(t, whole, cfg)
	b := open(fixed)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Serve(ctx, append(fns, onEvent("newer", "newer.it", func(context.Context, *contract.Event) error { return nil })))
	}()
	wantHealth("a function that nobody applied", b, whole.plan.Names.EventQueue("newer"), "rabbet topology apply")
	cancel()
	if err := receive(t, "Serve ends", done); err != nil {
		t.Errorf("Serve: %v", err)
	}

	nothing := asUser(t, cfg, "^$", ".*", ".*")
	wantHealth("a user who may not declare", open(nothing), "no permission", "RABBET_DECLARE=false")
	nothing.NoDeclare = true
	wantHealth("a user without even a queue of its own", open(nothing), "a queue of this process's own", `^(amq\.gen-.*|`+cfg.Namespace+`\.reply\..*)$`)

	_, unchecked, err := whole.Diff(t.Context(), nothing, "")
	if err != nil || len(unchecked) < len(whole.plan.Queues) {
		t.Errorf("Diff of a user who may not declare: got %q, %v; want it to say what it could not compare", unchecked, err)
	}
	// A process that declares for itself does not get on with a queue that stays.
	self := open(cfg)
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- self.Serve(ctx, fns) }()
	until(t, "the queue that stays is in the way", func(ctx context.Context) bool {
		changed := self.work.Changed()
		if err := self.work.Health(); err != nil && strings.Contains(err.Error(), "RABBET_DECLARE=false") && strings.Contains(err.Error(), "x-expires none where 60000 is wanted") {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return false
	})
	cancel()
	receive(t, "Serve ends", done)
}
