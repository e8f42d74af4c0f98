package remote

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	runAsWorker()
	goleak.VerifyTestMain(m)
}
