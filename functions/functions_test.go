package functions

import (
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/faastest"
)

// TestEveryFileIsAFunction finds a file that does not run.
func TestEveryFileIsAFunction(t *testing.T) {
	faastest.CheckFiles(t, &All, "functions.go", "deps.go")
}
