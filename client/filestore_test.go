package reprise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, path string) *FileStore {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFileStoreKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions")
	f := open(t, path)
	place := Place{
		Position: Position{Room: "a", Incarnation: "i2", Offset: 1 << 60, Earlier: []Stretch{{"i1", 7}}},
		Moved:    true,
		Gaps:     []Gap{{Room: "a", First: 2, Last: 4, Reason: GapReplayLimit, Incarnation: "i1", Recoverable: true}},
	}
	key := SessionKey{ID: "s_1", ResumeKey: "rk_1", Checkpoint: "cp_1"}
	for _, u := range []Update{
		{Session: &key, Places: []Place{{Position: Position{Room: "b", Offset: 1}}, {Position: Position{Room: "a"}}}},
		{Places: []Place{place}, Closed: []string{"b"}},
	} {
		if err := f.Save(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: the file holds a secret", info.Mode(), err)
	}
	f.Close()
	want := Saved{Session: key, Places: []Place{place}}
	if got, err := open(t, path).Load(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFileStoreIsForOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions")
	f := open(t, path)
	if _, err := OpenFile(path); !errors.Is(err, ErrStoreLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("second open: %v", err)
	}
	f.Close()
	open(t, path)
}

// A file that is known under two names is locked once, and a link stays a link.
func TestFileStoreBehindALink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "positions"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(link); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a link to nothing: %v", err)
	}
	open(t, file).Close()
	if err := os.WriteFile(file, []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, link)
	if _, err := OpenFile(file); !errors.Is(err, ErrStoreLocked) {
		t.Errorf("opened under its other name: %v", err)
	}
	key := SessionKey{ID: "s_1", ResumeKey: "rk_1"}
	if err := f.Save(t.Context(), Update{Session: &key}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got, err := open(t, file).Load(t.Context()); err != nil || got.Session != key {
		t.Errorf("under its own name: %+v, %v", got, err)
	}
	if to, err := os.Readlink(link); err != nil || to != file {
		t.Errorf("the link is now %q: %v", to, err)
	}
}

func TestFileStoreRefusesWhatItCannotRead(t *testing.T) {
	for _, content := range []string{"", "{", `{"version":2}`} {
		path := filepath.Join(t.TempDir(), "positions")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("content %q: %v", content, err)
		}
	}
}

// A save that fails leaves what was saved before, on disk and in Load.
func TestFileStoreFailedSave(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "positions")
	f := open(t, path)
	if err := f.Save(t.Context(), offsetUpdate(1)); err != nil {
		t.Fatal(err)
	}
	hidden := dir + ".hidden"
	if err := os.Rename(dir, hidden); err != nil {
		t.Fatal(err)
	}
	err := f.Save(t.Context(), offsetUpdate(2))
	if restored := os.Rename(hidden, dir); restored != nil {
		t.Fatal(restored)
	}
	if err == nil {
		t.Fatal("saved into a directory that is not there")
	}
	if saved, _ := f.Load(t.Context()); saved.Places[0].Position.Offset != 1 {
		t.Errorf("loaded %+v", saved)
	}
	if files, _ := filepath.Glob(path + ".tmp-*"); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func offsetUpdate(offset uint64) Update {
	// Many rooms, so that a write takes long enough to be killed in.
	u := Update{Session: &SessionKey{ID: "s_1", ResumeKey: "rk_1"}}
	for i := range 500 {
		u.Places = append(u.Places, Place{Position: Position{Room: fmt.Sprint("room", i), Offset: offset}})
	}
	return u
}

const crashFileEnv = "REPRISE_TEST_CRASH_FILE"

// saveUntilKilled is the child of TestFileStoreSurvivesKill: it says on its
// standard output what it has saved.
func saveUntilKilled(path string) {
	f, err := OpenFile(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	saved, err := f.Load(context.Background())
	var offset uint64
	if len(saved.Places) > 0 {
		offset = saved.Places[0].Position.Offset
	}
	for ; err == nil; fmt.Println(offset) {
		offset++
		err = f.Save(context.Background(), offsetUpdate(offset))
	}
	fmt.Println(err)
	os.Exit(1)
}

// Killed at any moment, the file holds all of the last update that was
// confirmed, or all of the one after it; never a part.
func TestFileStoreSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions")
	for range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashFileEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var confirmed uint64
		for want := 1 + rand.IntN(5); want > 0 && lines.Scan(); want-- {
			fmt.Sscan(lines.Text(), &confirmed)
		}
		time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { cmd.Process.Kill() })
		for lines.Scan() {
			fmt.Sscan(lines.Text(), &confirmed)
		}
		cmd.Wait()
		f, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		saved, _ := f.Load(t.Context())
		f.Close()
		if len(saved.Places) != 500 || confirmed == 0 {
			t.Fatalf("%d places, confirmed %d", len(saved.Places), confirmed)
		}
		for _, p := range saved.Places {
			if got := p.Position.Offset; got != saved.Places[0].Position.Offset || got < confirmed || got > confirmed+1 {
				t.Fatalf("saved %d, where %d was confirmed", got, confirmed)
			}
		}
	}
}
