package app_test

import (
	"os"
	"testing"

	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/app"
)

// TestMain lets the test binary be the command, for the tests that need a
// process of it.
func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		if file := os.Getenv(tallyFile); file != "" {
			registerTally(file)
		}
		os.Exit(app.Run(functions.Product, os.Args[1:]...))
	}
	os.Exit(m.Run())
}

const asCommand = "TEST_AS_RABBET"

// The standard input of a test is not a terminal.
func TestDeadAsksOnATerminalOnly(t *testing.T) {
	if code := app.Run(functions.Product, "dead", "discard", "--all"); code != app.ExitUsage {
		t.Errorf("rabbet dead discard --all without a terminal: got exit code %d, want %d", code, app.ExitUsage)
	}
}
