package scaffold

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProjectsNeedTheGoOfRabbet(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "\ngo "+minGo+"\n") {
		t.Errorf("go.mod does not say go %s: change minGo", minGo)
	}
}

func TestRequirement(t *testing.T) {
	published := (&requirement{version: "v1.2.3"}).files("example.org/shop")
	if len(published) != 1 || string(published[0].content) != "module example.org/shop\n\ngo "+minGo+"\n\nrequire github.com/rabbet-fn/rabbet v1.2.3\n" {
		t.Errorf("a published version: got %+v", published)
	}
	checkout, err := findRequirement(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if root, err := filepath.Abs(filepath.Join("..", "..", "..", "..")); err != nil || checkout.checkout != root {
		t.Errorf("in a checkout: got %q, want %q", checkout.checkout, root)
	}
	files := checkout.files("example.org/shop")
	if len(files) != 2 || files[1].name != "go.sum" || !strings.HasSuffix(string(files[0].content), "replace github.com/rabbet-fn/rabbet => "+checkout.checkout+"\n") {
		t.Errorf("a checkout: got %+v", files)
	}
	if got := quote("/a folder/b"); got != `"/a folder/b"` {
		t.Errorf("got %s, want it quoted", got)
	}
	for version, want := range map[string]bool{"v1.2.3": true, "(devel)": false, "v0.0.0-20260101000000-0123456789ab+dirty": false, "": false} {
		if got := isReleased(version); got != want {
			t.Errorf("%q: got %v, want %v", version, got, want)
		}
	}
}
