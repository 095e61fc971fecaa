package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPageAndItsAssets(t *testing.T) {
	h := Handler()
	page := get(t, h, "GET", "/")
	html := body(t, page)
	if page.StatusCode != 200 || page.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("GET / = %d, %s", page.StatusCode, page.Header.Get("Content-Type"))
	}
	if got := page.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("the page's Cache-Control = %q, want no-cache", got)
	}
	assets := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(html, -1)
	if len(assets) != 3 {
		t.Fatalf("the page names %d assets, want script, style and icon", len(assets))
	}
	types := map[string]string{".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
	for _, m := range assets {
		r := get(t, h, "GET", m[1])
		if r.StatusCode != 200 || body(t, r) == "" {
			t.Errorf("GET %s = %d", m[1], r.StatusCode)
		}
		if !strings.Contains(r.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: Cache-Control = %q, want immutable", m[1], r.Header.Get("Cache-Control"))
		}
		if want := types[filepath.Ext(m[1])]; !strings.HasPrefix(r.Header.Get("Content-Type"), want) {
			t.Errorf("%s: Content-Type = %q, want %s", m[1], r.Header.Get("Content-Type"), want)
		}
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	h := Handler()
	for _, target := range []string{"/", "/nothing", "/assets/"} {
		r := get(t, h, "GET", target)
		if r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: no nosniff", target)
		}
		if r.Header.Get("Content-Security-Policy") != ContentSecurityPolicy {
			t.Errorf("%s: Content-Security-Policy = %q", target, r.Header.Get("Content-Security-Policy"))
		}
	}
}

func TestPageHasNothingInline(t *testing.T) {
	html := body(t, get(t, Handler(), "GET", "/"))
	for _, bad := range []string{`<script>`, `<style`, ` style=`, ` onclick=`, ` onload=`, `javascript:`, `http:`, `https:`} {
		if strings.Contains(html, bad) {
			t.Errorf("the page contains %q, which its policy forbids", bad)
		}
	}
}

func TestETag(t *testing.T) {
	h := Handler()
	tag := get(t, h, "GET", "/").Header.Get("ETag")
	if tag == "" {
		t.Fatal("no ETag")
	}
	if r := get(t, h, "GET", "/", "If-None-Match", tag); r.StatusCode != http.StatusNotModified || body(t, r) != "" {
		t.Errorf("with the page's own ETag: %d, want 304", r.StatusCode)
	}
	if r := get(t, h, "GET", "/", "If-None-Match", `"other"`); r.StatusCode != 200 {
		t.Errorf("with another ETag: %d, want 200", r.StatusCode)
	}
}

func TestOnlyFilesAndOnlyReads(t *testing.T) {
	h := Handler()
	for _, target := range []string{"/nothing", "/assets", "/assets/", "/../embed.go", "/%2e%2e/embed.go", "/dist/index.html"} {
		if r := get(t, h, "GET", target); r.StatusCode != 404 {
			t.Errorf("GET %s = %d, want 404", target, r.StatusCode)
		}
	}
	if r := get(t, h, "POST", "/"); r.StatusCode != 405 || r.Header.Get("Allow") == "" {
		t.Errorf("POST / = %d, want 405 with Allow", r.StatusCode)
	}
	if r := get(t, h, "HEAD", "/"); r.StatusCode != 200 || body(t, r) != "" {
		t.Errorf("HEAD / = %d, want 200 without a body", r.StatusCode)
	}
}

func TestDirHandlerServesWhatIsThereNow(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := DirHandler(dir)
	if err != nil {
		t.Fatal(err)
	}
	write("index.html", "one")
	first := get(t, h, "GET", "/")
	write("index.html", "two")
	second := get(t, h, "GET", "/")
	if body(t, first) != "one" || body(t, second) != "two" || first.Header.Get("ETag") == second.Header.Get("ETag") {
		t.Error("a changed file is not served as it is now")
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if r := get(t, h, "GET", "/out"); r.StatusCode != 404 {
		t.Errorf("a link out of the folder = %d, want 404", r.StatusCode)
	}
	if _, err := DirHandler(filepath.Join(dir, "none")); err == nil {
		t.Error("DirHandler of a missing folder returned no error")
	}
}
