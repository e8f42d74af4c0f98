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

func TestOneProcessorLeavesWhatIsGiven(t *testing.T) {
	t.Setenv("GOMAXPROCS", "3")
	if oneProcessor() != nil {
		t.Error("a GOMAXPROCS that is given is not respected")
	}
	t.Setenv("GOMAXPROCS", "")
	if oneProcessor() == nil {
		t.Error("there is no switch, though no GOMAXPROCS is given")
	}
}
