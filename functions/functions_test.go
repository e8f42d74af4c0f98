package functions

import (
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryFileIsAFunction catches a file that is here and does not run.
func TestEveryFileIsAFunction(t *testing.T) {
	if err := All.Err(); err != nil {
		t.Fatal(err)
	}
	registered := map[string][]string{}
	for name, file := range All.Sources() {
		registered[file] = append(registered[file], name)
	}
	for _, problem := range problems(t, ".", registered) {
		t.Error(problem)
	}
}

func TestProblemsAreFound(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"good_one.go":      "package functions\n",
		"silent.go":        "package functions\n",
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
	found := problems(t, dir, map[string][]string{
		"good_one.go": {"good-one"}, "misnamed.go": {"other-name"}, "send_to_linux.go": {"send-to-linux"},
	})
	for _, file := range []string{"silent.go", "misnamed.go", "send_to_linux.go", "call_js.go", "tagged.go", "speed_test.go", "_hidden.go"} {
		if !slices.ContainsFunc(found, func(p string) bool { return strings.HasPrefix(p, file+":") }) {
			t.Errorf("nothing is said about %s", file)
		}
	}
	if len(found) != 7 {
		t.Errorf("got %q, want one for each of 7 files", found)
	}
}

// problems says what is wrong with the files in dir, given which functions
// each of them registers.
func problems(t *testing.T, dir string, registered map[string][]string) (found []string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("list %s: %d files, %v", dir, len(files), err)
	}
	for _, path := range files {
		if problem := problemOf(t, path, registered[filepath.Base(path)]); problem != "" {
			found = append(found, filepath.Base(path)+": "+problem)
		}
	}
	return found
}

func problemOf(t *testing.T, path string, names []string) string {
	dir, file := filepath.Split(path)
	if strings.HasSuffix(file, "_test.go") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if own := "(&All, "; strings.Contains(string(text), "faas.OnRequest"+own) || strings.Contains(string(text), "faas.OnEvent"+own) {
			return "Go builds files that end in _test.go for tests only: give the function another name"
		}
		return ""
	}
	// On a system that nobody has, only what depends on no system is built.
	nowhere := build.Default
	nowhere.GOOS, nowhere.GOARCH = "nowhere", "none"
	if built, err := nowhere.MatchFile(dir, file); err != nil || !built {
		return "Go leaves it out of some builds, for its build tag or the ending of its name (_linux, _js, _arm64 …): rename it"
	}
	if file == "functions.go" || file == "deps.go" {
		return ""
	}
	want := strings.ReplaceAll(strings.TrimSuffix(file, ".go"), "_", "-")
	if !slices.Equal(names, []string{want}) {
		return fmt.Sprintf("it registers %q, want the one function %q (what functions share goes into functions.go, or into a package below functions/)", names, want)
	}
	return ""
}
