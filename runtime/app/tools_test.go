package app_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/app"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/brokertest/rabbitmq"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

// shareBroker shares a broker at the socket at which the commands of this test expect the
// one of rabbet dev. It returns what is published there under the key "later", as
// it is delivered.
func shareBroker(t *testing.T) <-chan contract.Event {
	t.Helper()
	clearEnv(t)
	dir := t.TempDir()
	t.Setenv(config.Prefix+"DIR", dir)
	if err := os.Mkdir(filepath.Join(dir, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", (&config.Config{Dir: dir}).Socket())
	if err != nil {
		t.Fatal(err)
	}
	b := memory.New(memory.Config{})
	delivered := make(chan contract.Event, 10)
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "react", func(_ context.Context, _ *struct{}, e contract.Event) error {
		delivered <- e
		return nil
	}, faas.Keys("later"))
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- b.Share(t.Context(), l) }()
	go func() { ended <- b.Serve(t.Context(), fns) }()
	t.Cleanup(func() {
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		b.Close()
	})
	await(t, "the function is hosted", func() bool { f, _ := b.Directory().Find("react"); return len(f.Workers) == 1 })
	return delivered
}

func TestPublishLater(t *testing.T) {
	delivered := shareBroker(t)
	const delay = 100 * time.Millisecond
	for _, tt := range []struct {
		when  func(now time.Time) []string
		delay time.Duration
	}{
		{func(time.Time) []string { return []string{"--in", delay.String()} }, delay},
		{func(now time.Time) []string { return []string{"--at", now.Add(delay).Format(time.RFC3339Nano)} }, delay},
		{func(now time.Time) []string { return []string{"--at", now.Add(-time.Hour).Format(time.RFC3339)} }, 0},
		{func(time.Time) []string { return nil }, 0},
	} {
		began := time.Now()
		args := append([]string{"publish", "later", `{"id":"42"}`}, tt.when(began)...)
		if code := app.Run(functions.Product, args...); code != 0 {
			t.Fatalf("%q: got exit code %d, want 0", args, code)
		}
		e := <-delivered
		if took := time.Since(began); took < tt.delay || string(e.Body) != `{"id":"42"}` {
			t.Errorf("%q: got %s after %v, want it no sooner than after %v", args, e.Body, took, tt.delay)
		}
	}
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--in=-1s"}, app.ExitUsage},
		{[]string{"--in", "soon"}, app.ExitUsage},
		{[]string{"--at", "tomorrow"}, app.ExitUsage},
		{[]string{"--in", "1s", "--at", "2030-01-31T09:00:00+01:00"}, app.ExitUsage},
		{[]string{"--in", "721h"}, app.ExitFailed},
	} {
		if code := app.Run(functions.Product, append([]string{"publish", "later", "{}"}, tt.args...)...); code != tt.want {
			t.Errorf("%q: got exit code %d, want %d", tt.args, code, tt.want)
		}
	}
	if len(delivered) > 0 {
		t.Errorf("what was refused is delivered: %+v", <-delivered)
	}
}

// A broker that blocks keeps workers from saying that they are there: nothing
// claims then that there is none.
func TestToolsDuringAlarm(t *testing.T) {
	node := rabbitmq.New(t, rabbitmq.Config{})
	env := []string{
		"RABBET_BROKER_URL=" + node.URL(), "RABBET_FUNCTIONS=get-profile",
		"RABBET_DATABASE_URL=sqlite://" + filepath.Join(t.TempDir(), "test.db"),
	}
	newPart(t, "worker", env...).start()
	if out, notes, code := command(t, env, "functions"); code != 0 || !strings.Contains(out, "get-profile") {
		t.Errorf("functions: exit code %d\n%s%s", code, out, notes)
	}
	if _, err := node.Ctl(t.Context(), "set_vm_memory_high_watermark", "0.000001"); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{{"functions"}, {"functions", "--json"}, {"call", "get-profile"}} {
		out, notes, code := command(t, env, arguments...)
		if code != app.ExitFailed || out != "" || !strings.Contains(notes, "low on memory") {
			t.Errorf("%v: exit code %d\n%s%s, want 1 and what is wrong", arguments, code, out, notes)
		}
	}
}
