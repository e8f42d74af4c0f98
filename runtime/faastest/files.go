package faastest

import (
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// CheckFiles reports an error for each Go file in the working directory, the folder of
// a test's package, that is not a function of set: it registers none, or one that is
// not named after the file, or Go leaves it out of some builds. shared are the files
// that register no function on purpose. CheckFiles also reports functions that cannot
// run as they are registered.
func CheckFiles[D any](t testing.TB, set *faas.Set[D], shared ...string) {
	t.Helper()
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	registered := map[string][]string{}
	for name, file := range set.Sources() {
		registered[file] = append(registered[file], name)
	}
	problems, err := checkFiles(".", registered, shared)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Error(problem)
	}
}

// checkFiles returns what is wrong with the files in dir. registered are the functions
// of each file.
func checkFiles(dir string, registered map[string][]string, shared []string) (problems []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no Go file in %s", dir)
	}
	for _, path := range files {
		file := filepath.Base(path)
		problem, err := checkFile(path, registered[file], slices.Contains(shared, file))
		if err != nil {
			return nil, err
		}
		if problem != "" {
			problems = append(problems, file+": "+problem)
		}
	}
	return problems, nil
}

func checkFile(path string, names []string, shared bool) (problem string, err error) {
	dir, file := filepath.Split(path)
	if strings.HasSuffix(file, "_test.go") {
		text, err := os.ReadFile(path)
		if own := "(&All, "; strings.Contains(string(text), "faas.OnRequest"+own) || strings.Contains(string(text), "faas.OnEvent"+own) {
			return "Go builds files that end in _test.go for tests only: give the function another name", nil
		}
		return "", err
	}
	// For a system that does not exist, Go builds only what depends on no system.
	nowhere := build.Default
	nowhere.GOOS, nowhere.GOARCH = "nowhere", "none"
	if built, err := nowhere.MatchFile(dir, file); !built || err != nil {
		return "Go leaves it out of some builds, for its build tag or the ending of its name (_linux, _js, _arm64 …): rename it", nil //nolint:nilerr // a file that cannot be read is not built
	}
	if shared {
		return "", nil
	}
	want := strings.ReplaceAll(strings.TrimSuffix(file, ".go"), "_", "-")
	if !slices.Equal(names, []string{want}) {
		return fmt.Sprintf("it registers %q, want the one function %q (put what functions share into functions.go, or into a package below functions/)", names, want), nil
	}
	return "", nil
}
