package reprise

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFileEnv); path != "" {
		saveUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}
