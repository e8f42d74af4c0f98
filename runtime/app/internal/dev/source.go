package dev

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// A source is the code that this program was built from.
type source struct {
	root        string // folder of the module
	mainPackage string // import path
}

// findSource finds the source around the working directory. It fails if the
// working directory is not in the module of this program, or Go is not installed.
func findSource() (*source, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Path == "" || info.Path == "command-line-arguments" {
		return nil, errors.New("this program was not built from a package: build it with go build and a folder, not a file")
	}
	list := exec.Command("go", "list", "-f", "{{with .Module}}{{if .Main}}{{.Dir}}{{end}}{{end}}", info.Path)
	out, err := list.Output()
	root := strings.TrimSpace(string(out))
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("the go command is not installed")
	}
	if err != nil || root == "" {
		return nil, fmt.Errorf("the working directory is not in the module of %s", info.Path)
	}
	return &source{root, info.Path}, nil
}

// functionsDir is the folder of the functions, by convention.
func (s *source) functionsDir() string { return filepath.Join(s.root, "functions") }

// build compiles the source to the file binary.
func (s *source) build(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, s.mainPackage)
	cmd.Dir = s.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("it does not compile:\n%s", out)
	}
	return nil
}

// ignored lists the files of functions that Go leaves out of a build here.
func (s *source) ignored() []string {
	pkg, err := build.ImportDir(s.functionsDir(), 0)
	if err != nil {
		return nil // there is no such folder, or it is being changed
	}
	return pkg.IgnoredGoFiles
}

// watch begins to watch all folders of the module.
func (s *source) watch() (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := s.watchBelow(watcher, s.root); err != nil {
		watcher.Close()
		return nil, err
	}
	return watcher, nil
}

// watchBelow adds dir and the folders below it, but for those that Go ignores.
func (s *source) watchBelow(watcher *fsnotify.Watcher, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case path != s.root && ignoredDir(d.Name()):
			return filepath.SkipDir
		}
		if err := watcher.Add(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
}

// follow watches the folder that e says is new, if e does.
func (s *source) follow(watcher *fsnotify.Watcher, e fsnotify.Event) error {
	if !e.Has(fsnotify.Create) || ignoredDir(filepath.Base(e.Name)) {
		return nil
	}
	if info, err := os.Stat(e.Name); err != nil || !info.IsDir() {
		return nil //nolint:nilerr // it is gone again
	}
	return s.watchBelow(watcher, e.Name)
}

// ignoredDir reports whether a folder of that name holds no code that is built.
func ignoredDir(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules"
}

// changes reports whether e may change what is built: code, what it embeds, and
// which modules there are.
func changes(e fsnotify.Event) bool {
	if strings.HasSuffix(e.Name, "_test.go") || !e.Has(fsnotify.Create|fsnotify.Write|fsnotify.Remove|fsnotify.Rename) {
		return false
	}
	switch filepath.Ext(e.Name) {
	case ".go", ".sql", ".html", ".tmpl", ".mod", ".sum", ".work":
		return true
	}
	return false
}
