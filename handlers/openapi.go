package handlers

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// described holds the description of the API (openapi.yaml) and the page that
// shows it. Files that end in .gz are compressed ones; fetch.sh says where those
// that are not ours came from, and those in .txt are their licences.
//
//go:embed openapi/openapi.yaml openapi/docs.html openapi/docs.css openapi/docs.js openapi/*.gz openapi/*.txt
var described embed.FS

// docsPolicy lets the page run the viewer, which shows what this server says of
// itself and tries requests to it, and nothing else: no script or style within
// the page, and no frame around it. The viewer draws its icons as data.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'none'; frame-ancestors 'none'; base-uri 'none'"

// mediaTypes are those of the files, by their endings.
var mediaTypes = map[string]string{
	".yaml": "application/yaml", // RFC 9512
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// description answers GET /openapi.yaml.
func (s *server) description(w http.ResponseWriter, r *http.Request) error {
	return sendFile(w, r, describedFiles, "openapi.yaml")
}

// showDocs answers GET /docs: the description for people.
func (s *server) showDocs(w http.ResponseWriter, r *http.Request) error {
	protectPage(w.Header(), docsPolicy)
	return sendFile(w, r, describedFiles, "docs.html")
}

// docsFile answers GET /docs/{file}: what that page is made of.
func (s *server) docsFile(w http.ResponseWriter, r *http.Request) error {
	name := infoOf(r).params.ByName("file")
	if name == "docs.html" || name == "openapi.yaml" {
		return errNoRoute
	}
	return sendFile(w, r, describedFiles, name)
}

// A file is an embedded one. A client gets it compressed if it takes that.
type file struct {
	mediaType     string
	plain, zipped []byte // plain is nil where only the other one is kept
	etag          string // without the quotes
}

// describedFiles are those of described.
var describedFiles = filesOf(described, "openapi")

// filesOf returns what reads, once, the files of a folder by the names that
// clients know them under.
func filesOf(folder embed.FS, dir string) func() (map[string]file, error) {
	return sync.OnceValues(func() (map[string]file, error) {
		entries, err := folder.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("embedded files: %w", err)
		}
		all := make(map[string]file)
		for _, entry := range entries {
			data, err := folder.ReadFile(path.Join(dir, entry.Name()))
			if err != nil {
				return nil, fmt.Errorf("embedded files: %w", err)
			}
			name, zipped := strings.CutSuffix(entry.Name(), ".gz")
			sum := sha256.Sum256(data)
			f := file{mediaType: mediaTypes[path.Ext(name)], etag: base64.RawURLEncoding.EncodeToString(sum[:12])}
			f.zipped = data
			if !zipped {
				f.plain = data
				if f.zipped, err = zip(data); err != nil {
					return nil, fmt.Errorf("embedded file %s: %w", name, err)
				}
			}
			all[name] = f
		}
		return all, nil
	})
}

func zip(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// sendFile answers with the file of that name, which a client may keep if it
// asks each time whether it is still the one (RFC 9110, section 13.1.2).
func sendFile(w http.ResponseWriter, r *http.Request, files func() (map[string]file, error), name string) error {
	all, err := files()
	if err != nil {
		return err
	}
	f, ok := all[name]
	if !ok {
		return errNoRoute
	}
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	coded := acceptsGzip(r.Header.Values("Accept-Encoding"))
	etag := `"` + f.etag + `"`
	if coded {
		etag = `"` + f.etag + `-gzip"`
	}
	h.Set("ETag", etag)
	if matchesETag(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", f.mediaType)
	body := f.plain
	switch {
	case coded:
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	case body == nil:
		if body, err = unzip(f.zipped); err != nil {
			return fmt.Errorf("embedded file %s: %w", name, err)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	w.Write(body) //nolint:errcheck // the client may be gone
	return nil
}

func unzip(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// matchesETag reports whether If-None-Match holds etag, compared weakly, or "*".
func matchesETag(values []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3). A client that
// has no wish gets what every client can read.
func acceptsGzip(values []string) bool {
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, parameter, _ := strings.Cut(element, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		_, weight, weighted := strings.Cut(parameter, "=")
		q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		return !weighted || err == nil && q > 0
	}
	return false
}
