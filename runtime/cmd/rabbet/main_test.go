package main

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the command, for the tests that need a
// process of it.
func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		if file := os.Getenv(tallyFile); file != "" {
			registerTally(file)
		}
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

const asCommand = "TEST_AS_RABBET"
