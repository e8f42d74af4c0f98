package dev

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is noticed in every folder of the module.
func TestWatchedSource(t *testing.T) {
	w := &source{root: t.TempDir()}
	for _, dir := range []string{"functions/stores", "events", "runtime/cmd/rabbet"} {
		if err := os.MkdirAll(filepath.Join(w.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	watcher, err := w.watch()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	for _, name := range []string{"go.mod", "functions/functions.go", "functions/stores/one.sql", "events/one.go", "runtime/cmd/rabbet/hosting.go"} {
		path := filepath.Join(w.root, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-watcher.Events:
			if e.Name != path || !changes(e) {
				t.Errorf("got the event %v, want that of %s", e, name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the change is not noticed", name)
		}
	}
	if changes(fsnotify.Event{Name: filepath.Join(w.root, "functions", "one_test.go"), Op: fsnotify.Write}) {
		t.Error("a test is compiled into the functions")
	}
}
