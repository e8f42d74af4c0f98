package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A change is noticed wherever the README sends somebody who writes a function.
func TestWatchedSource(t *testing.T) {
	w := &crew{root: t.TempDir()}
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
			if e.Name != path || !isSource(e.Name) {
				t.Errorf("got the event %v, want that of %s", e, name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nobody notices", name)
		}
	}
	if isSource(filepath.Join(w.root, "functions", "one_test.go")) {
		t.Error("a test is compiled into the functions")
	}
}
