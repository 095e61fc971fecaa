package crashfs

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCloneInUse renames a file to and fro, as Pebble does with its logs, while
// the file system is cloned. With a bare vfs.MemFS this never ends.
func TestCloneInUse(t *testing.T) {
	fs := New()
	f, err := fs.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close() // never fails
	const rounds = 20_000
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		from, to := "a", "b"
		for range rounds {
			f, err := fs.ReuseForWrite(from, to, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Error(err)
				return
			}
			_ = f.Close() // never fails
			from, to = to, from
		}
	})
	for range rounds {
		fs.CrashClone(vfs.CrashCloneCfg{})
	}
}
