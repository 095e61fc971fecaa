// Package web serves the chat page: the built files of web/app and web/sdk,
// embedded, so that a program which contains this package needs no Node.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// ContentSecurityPolicy is what the page is built to work under: scripts,
// styles and connections of its own origin only, nothing inline.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the embedded page. It is safe for concurrent use.
//
// Files in assets have their content's hash in their name and may be kept for
// ever; everything else is to be asked for again each time, by its ETag. Only
// GET and HEAD are answered, and only files: nothing is listed.
func Handler() http.Handler {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // The name is a constant and valid.
	}
	tags := make(map[string]string)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		tags[name] = etag(content)
		return err
	})
	if err != nil {
		panic(err) // The files are in memory.
	}
	return handler(files, func(name string) string { return tags[name] }, "public, max-age=31536000, immutable")
}

// DirHandler serves a folder in place of the embedded page, as it is at each
// request: for working on the page. Links that lead out of the folder are not
// followed.
func DirHandler(dir string) (http.Handler, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	files := root.FS()
	tag := func(name string) string {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return ""
		}
		return etag(content)
	}
	return handler(files, tag, "no-cache"), nil
}

// handler serves files; tag returns a file's ETag, or "" if there is no such
// file, and assetCache is the Cache-Control of files in assets.
func handler(files fs.FS, tag func(name string) string, assetCache string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Content-Security-Policy", ContentSecurityPolicy)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "use GET", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if name == "" {
			name = "index.html"
		}
		hash := tag(name)
		if hash == "" {
			http.NotFound(w, r)
			return
		}
		header.Set("ETag", hash)
		header.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") {
			header.Set("Cache-Control", assetCache)
		}
		// Not left to the machine's MIME tables, which differ.
		if kind, ok := contentTypes[path.Ext(name)]; ok {
			header.Set("Content-Type", kind)
		}
		serve(w, r, files, name)
	})
}

// serve answers with a file's content. http.ServeFileFS would redirect
// index.html to ./, which is the page itself.
func serve(w http.ResponseWriter, r *http.Request, files fs.FS, name string) {
	content, err := fs.ReadFile(files, name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	// Embedded files have no times: the zero time sends none.
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

func etag(content []byte) string {
	sum := sha256.Sum256(content)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
}
