// Package archtest holds the arrows between the packages of this module. It
// has tests only.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/reprise-chat/reprise"
	gen    = "gen/reprise/v1"
	grpc   = "google.golang.org/grpc"
)

// A layer is what the packages below one folder may import.
type layer struct {
	// dir is the folder, and speaks for everything below it that no longer
	// dir in the table matches.
	dir string
	// may are the folders of this module that it may import, each with
	// everything below; itself is always allowed.
	may []string
	// grpc says that it may import gRPC, and so the generated services.
	// Importing gen for its messages is something else, and is said in may.
	grpc bool
}

// layers is the whole module: a package that no entry matches fails the test,
// so that a new one gets its place here first. The arrows are
//
//	cmd → server → rpc, gateway → attach → session, room → store
var layers = []layer{
	{dir: "cmd", may: []string{"client", "server", gen}, grpc: true},
	{dir: "client", may: []string{gen}, grpc: true},
	{dir: "gen", may: nil, grpc: true},
	{dir: "web", may: nil},

	{dir: "server", may: []string{"server/internal", "web", gen}, grpc: true},
	{dir: "server/internal/rpc", may: with(
		"server/internal/attach", "server/internal/session", "server/internal/room",
		"server/internal/auth", "server/internal/reason", "server/internal/store", "server/internal/event", gen,
	), grpc: true},
	// The gateway gives a browser's request to a grpc.Server of its own: the
	// one package beside rpc that has to know gRPC.
	{dir: "server/internal/gateway", may: with("server/internal/auth", "server/internal/reason", "web"), grpc: true},
	// What both edges say when they refuse: gRPC's codes and details.
	{dir: "server/internal/reason", may: nil, grpc: true},
	// Its tests drive it with a service of their own.
	{dir: "server/internal/gateway/webtest", may: []string{gen}, grpc: true},
	{dir: "server/internal/attach", may: with(
		"server/internal/session", "server/internal/room", "server/internal/store", "server/internal/event", gen,
	)},
	{dir: "server/internal/session", may: with("server/internal/store")},
	{dir: "server/internal/room", may: with("server/internal/store", "server/internal/event", gen)},
	{dir: "server/internal/auth", may: with()},
	// The engines alone know how records lie on disk.
	{dir: "server/internal/store", may: with("server/internal/event", gen, "gen/reprise/store")},

	// Vocabulary: every package of the server may use these, and they use
	// nothing.
	{dir: "server/internal/clock", may: nil},
	{dir: "server/internal/fault", may: nil},
	{dir: "server/internal/forwarded", may: nil},
	{dir: "server/internal/limit", may: []string{"server/internal/fault"}},
	{dir: "server/internal/listen", may: []string{"server/internal/forwarded", "server/internal/limit"}},
	{dir: "server/internal/metrics", may: nil},
	{dir: "server/internal/name", may: nil},
	{dir: "server/internal/event", may: []string{gen}},

	// Tests only.
	{dir: "internal", may: []string{"client", "server", gen}, grpc: true},
}

// with returns dirs and the vocabulary of the server.
func with(dirs ...string) []string {
	return append(dirs, "server/internal/clock", "server/internal/fault", "server/internal/forwarded", "server/internal/limit", "server/internal/metrics", "server/internal/name")
}

// TestArrows holds the imports of every package that is not a test's.
func TestArrows(t *testing.T) {
	for pkg, imports := range importsOf(t, "../..") {
		l, ok := layerOf(pkg)
		if !ok {
			t.Errorf("package %s has no place in the table of layers: give it one", pkg)
			continue
		}
		for _, imported := range imports {
			if !l.allows(imported) {
				t.Errorf("%s imports %s, which the arrows forbid", pkg, imported)
			}
		}
	}
}

// TestArrowsCanFail is the control of TestArrows: each of these imports is
// against a rule that the table must hold.
func TestArrowsCanFail(t *testing.T) {
	for _, c := range []struct{ pkg, imports string }{
		{"client", module + "/server"},
		{"client", module + "/server/internal/event"},
		{"server", module + "/client"},
		{"server", module + "/cmd/reprise"},
		{"server/internal/room", module + "/server/internal/session"},
		{"server/internal/session", module + "/server/internal/room"},
		{"server/internal/session", module + "/" + gen},
		{"server/internal/session", grpc},
		{"server/internal/room", grpc + "/metadata"},
		{"server/internal/attach", grpc},
		{"server/internal/attach", module + "/server/internal/rpc"},
		{"server/internal/store/pebble", module + "/server/internal/room"},
		{"server/internal/gateway", module + "/server/internal/rpc"},
		{"server/internal/rpc", module + "/server/internal/gateway"},
		{"gen/reprise/v1", module + "/server"},
	} {
		if l, ok := layerOf(c.pkg); !ok || l.allows(c.imports) {
			t.Errorf("the table lets %s import %s", c.pkg, c.imports)
		}
	}
	if l, ok := layerOf("elsewhere"); ok {
		t.Errorf("the table has a place for a package it does not name: %v", l)
	}
}

// TestBenchIsItsOwnModule keeps the load generator's dependencies, which are
// its peers, out of this module.
func TestBenchIsItsOwnModule(t *testing.T) {
	if _, err := os.Stat("../../bench"); os.IsNotExist(err) {
		t.Skip("there is no bench yet")
	}
	if _, err := os.Stat("../../bench/go.mod"); err != nil {
		t.Error("bench has no go.mod: ", err)
	}
}

func (l layer) allows(imported string) bool {
	if within(imported, grpc) {
		return l.grpc
	}
	local, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return true
	}
	return within(local, l.dir) || slices.ContainsFunc(l.may, func(dir string) bool { return within(local, dir) })
}

// layerOf returns the entry with the longest dir that pkg is within.
func layerOf(pkg string) (layer, bool) {
	var best layer
	for _, l := range layers {
		if within(pkg, l.dir) && len(l.dir) > len(best.dir) {
			best = l
		}
	}
	return best, best.dir != ""
}

func within(pkg, dir string) bool {
	return pkg == dir || strings.HasPrefix(pkg, dir+"/")
}

// importsOf reads the imports of every Go file below root that is neither a
// test nor of another module. It parses instead of asking the go command, so
// that the files are known as inputs of the test and a cached result is never
// a stale one.
func importsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	imports := make(map[string][]string)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skip(root, file, d.Name())
		case !strings.HasSuffix(file, ".go"), strings.HasSuffix(file, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := path.Clean(filepath.ToSlash(dir))
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(imports[pkg], name) {
				imports[pkg] = append(imports[pkg], name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) == 0 {
		t.Fatal("found no package: is the module not two folders up?")
	}
	return imports
}

// skip leaves out folders that hold no package of this module.
func skip(root, dir, name string) error {
	if dir == root {
		return nil
	}
	if strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}
