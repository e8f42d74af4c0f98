package scaffold

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/terminal"
)

// rabbetModule is the module that a project requires.
const rabbetModule = "github.com/rabbet-fn/rabbet"

// minGo is the Go version of a project; that of the go.mod of Rabbet.
const minGo = "1.26.0"

// A requirement is how a project gets Rabbet: a published version, or the checkout in a
// folder.
type requirement struct {
	version  string
	checkout string     // "" for the published version
	requires []required // of the checkout's go.mod
	goSum    []byte     // of the checkout
}

type required struct{ Path, Version string }

func (r *requirement) String() string {
	if r.checkout != "" {
		return "Rabbet from " + r.checkout + ", by a replace in go.mod"
	}
	return "Rabbet " + r.version
}

// findRequirement returns the requirement of the Rabbet in replace, or else of the one
// that this program was built with.
func findRequirement(ctx context.Context, replace string) (*requirement, error) {
	if replace != "" {
		return ofCheckout(ctx, replace)
	}
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, dep := range info.Deps {
			if dep.Path == rabbetModule && dep.Replace == nil {
				return &requirement{version: dep.Version}, nil
			}
		}
	}
	// It was built from a folder, which is where this file was.
	_, self, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(self), "..", "..", "..", "..")
	if filepath.IsAbs(self) && !strings.Contains(self, "@v") {
		if r, err := ofCheckout(ctx, dir); err == nil {
			return r, nil
		}
	}
	if info != nil && info.Main.Path == rabbetModule && isReleased(info.Main.Version) {
		return &requirement{version: info.Main.Version}, nil
	}
	return nil, terminal.Usage(errors.New("this program does not know which version of Rabbet it is: give the folder of a checkout with --replace DIR"))
}

// isReleased reports whether version is one that can be downloaded.
func isReleased(version string) bool {
	return strings.HasPrefix(version, "v") && !strings.Contains(version, "+dirty")
}

// ofCheckout reads the go.mod and go.sum of the checkout in dir.
func ofCheckout(ctx context.Context, dir string) (*requirement, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "edit", "-json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("the go command is not installed: see https://go.dev/dl/")
	}
	var mod struct {
		Module  struct{ Path string }
		Require []required
	}
	if err != nil || json.Unmarshal(out, &mod) != nil || mod.Module.Path != rabbetModule {
		return nil, fmt.Errorf("%s is not a checkout of Rabbet: name the folder with the go.mod of %s", dir, rabbetModule)
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return nil, err
	}
	return &requirement{version: "v0.0.0-00010101000000-000000000000", checkout: dir, requires: mod.Require, goSum: sum}, nil
}

// complete reports whether files can be built as they are, without 'go mod tidy'.
func (r *requirement) complete() bool { return r.checkout != "" }

// files returns go.mod, and go.sum if it is known. With a checkout, go.mod requires what
// the checkout requires, so that the project can be built without a network.
func (r *requirement) files(module string) []file {
	var mod bytes.Buffer
	fmt.Fprintf(&mod, "module %s\n\ngo %s\n\nrequire %s %s\n", module, minGo, rabbetModule, r.version)
	if r.checkout == "" {
		return []file{{"go.mod", mod.Bytes(), 0o644}}
	}
	fmt.Fprint(&mod, "\nrequire (\n")
	for _, q := range r.requires {
		fmt.Fprintf(&mod, "\t%s %s\n", q.Path, q.Version)
	}
	fmt.Fprintf(&mod, ")\n\nreplace %s => %s\n", rabbetModule, quote(r.checkout))
	return []file{{"go.mod", mod.Bytes(), 0o644}, {"go.sum", r.goSum, 0o644}}
}

// quote returns a path as go.mod wants it.
func quote(path string) string {
	if strings.ContainsAny(path, " \t\"'`(),") {
		return fmt.Sprintf("%q", path)
	}
	return path
}
