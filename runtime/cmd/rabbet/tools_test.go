package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/rabbittest"
)

// A broker that blocks keeps workers from saying that they are there: nothing
// claims then that there is none.
func TestToolsDuringAlarm(t *testing.T) {
	node := rabbittest.New(t, rabbittest.Config{})
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
		if code != exitFailed || out != "" || !strings.Contains(notes, "low on memory") {
			t.Errorf("%v: exit code %d\n%s%s, want 1 and what is wrong", arguments, code, out, notes)
		}
	}
}
