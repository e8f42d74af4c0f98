package faastest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestProblemsAreFound(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"good_one.go":      "package functions\n",
		"silent.go":        "package functions\n",
		"shared.go":        "package functions\n",
		"misnamed.go":      "package functions\n",
		"send_to_linux.go": "package functions\n",
		"call_js.go":       "package functions\n",
		"tagged.go":        "//go:build production\n\npackage functions\n",
		"speed_test.go":    "package functions\n\nfunc init() { faas.OnEvent" + "(&All, \"speed-test\", f) }\n",
		"fine_test.go":     "package functions\n",
		"_hidden.go":       "package functions\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := checkFiles(dir, map[string][]string{
		"good_one.go": {"good-one"}, "misnamed.go": {"other-name"}, "send_to_linux.go": {"send-to-linux"},
	}, []string{"shared.go"})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"silent.go", "misnamed.go", "send_to_linux.go", "call_js.go", "tagged.go", "speed_test.go", "_hidden.go"} {
		if !slices.ContainsFunc(found, func(p string) bool { return strings.HasPrefix(p, file+":") }) {
			t.Errorf("nothing is said about %s", file)
		}
	}
	if len(found) != 7 {
		t.Errorf("got %q, want one for each of 7 files", found)
	}
}
