package app_test

import (
	"context"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/app"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func TestHelpEnvShowsTheSettingsOfTheProduct(t *testing.T) {
	out, notes, code := command(t, []string{"RABBET_GRACE=soon"}, "help", "env") // help must work even then
	for _, want := range []string{"RABBET_BROKER_URL ", "[memory://]", "RABBET_DATABASE_URL ", "RABBET_SMTP_URL "} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("got exit code %d, %s%s, want %q in it", code, out, notes, want)
		}
	}
}

// A product without dependencies and settings needs its functions only.
func TestProductOfFunctionsOnly(t *testing.T) {
	clearEnv(t)
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "react", func(context.Context, *struct{}, contract.Event) error { return nil }, faas.Keys("a"))
	product := app.Product[struct{}]{Functions: &set}
	if _, err := app.Configure(product); err != nil {
		t.Error(err)
	}
	if code := app.Run(product, "topology", "export"); code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
}

func TestFunctionsThatCannotRunAreRefused(t *testing.T) {
	clearEnv(t)
	var set faas.Set[functions.Deps]
	for range 2 {
		faas.OnEvent(&set, "twice", func(context.Context, *functions.Deps, contract.Event) error { return nil }, faas.Keys("a"))
	}
	if code := app.Run(app.Product[functions.Deps]{Functions: &set}, "topology", "export"); code != app.ExitFailed {
		t.Errorf("got exit code %d, want %d", code, app.ExitFailed)
	}
}

func TestBadSettingsAreAnErrorOfUsage(t *testing.T) {
	for _, env := range []string{"RABBET_GRACE=soon", "RABBET_BROKER_URL=nats://host", "RABBET_DATABASE_URL=mysql://me:secret@host/db"} {
		variable, _, _ := strings.Cut(env, "=")
		_, notes, code := command(t, []string{env}, "topology", "export")
		if code != app.ExitUsage || !strings.HasPrefix(notes, "rabbet: "+variable+"=") || strings.Contains(notes, "secret") {
			t.Errorf("%s: got exit code %d and %q", env, code, notes)
		}
	}
}
