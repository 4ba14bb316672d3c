package handlers_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src blob:; " +
	"form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// What browsers send, and what other clients do (RFC 9110, section 12.5.1).
func TestTheRootIsAPageForBrowsers(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	bare := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) { c.NoConsole = true })
	for name, tt := range map[string]struct {
		accept []string
		page   bool
	}{
		"Chromium":                          {[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"}, true},
		"Firefox":                           {[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, true},
		"over two lines":                    {[]string{"text/html", "*/*;q=0.8"}, true},
		"HTML alone":                        {[]string{"text/html"}, true},
		"in capitals":                       {[]string{"Text/HTML"}, true},
		"any text rather than JSON":         {[]string{"text/*;q=0.5, application/json;q=0.4"}, true},
		"HTML is named, JSON is not":        {[]string{"text/html, */*"}, true},
		"nothing":                           {nil, false},
		"curl":                              {[]string{"*/*"}, false},
		"an empty value":                    {[]string{""}, false},
		"JSON":                              {[]string{"application/json"}, false},
		"JSON rather than HTML":             {[]string{"text/html;q=0.8, application/json"}, false},
		"both":                              {[]string{"text/html, application/json"}, false},
		"both, in the other order":          {[]string{"application/json, text/html"}, false},
		"JSON is named, HTML is not":        {[]string{"application/json, */*"}, false},
		"anything rather than HTML":         {[]string{"text/html;q=0.2, */*;q=0.3"}, false},
		"no HTML":                           {[]string{"text/html;q=0, */*"}, false},
		"neither":                           {[]string{"text/html;q=0, application/json;q=0"}, false},
		"another type":                      {[]string{"image/png"}, false},
		"a weight that is none":             {[]string{"text/html;q=2"}, false},
		"JSON, though text in general more": {[]string{"application/json;q=0.9, text/*;q=0.8"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{"GET", "HEAD"} {
				header := http.Header{"Accept": tt.accept, "Accept-Encoding": {"identity"}}
				got := s.do(call{method: method, path: "/", header: header})
				wantType, wantVary := "application/json", "Origin, Accept"
				if tt.page {
					wantType, wantVary = "text/html; charset=utf-8", "Origin, Accept, Accept-Encoding"
				}
				if v := got.header.Get("Content-Type"); got.status != 200 || v != wantType {
					t.Errorf("%s: got %d %s, want 200 %s", method, got.status, v, wantType)
				}
				if v := strings.Join(got.header.Values("Vary"), ", "); v != wantVary {
					t.Errorf("%s: Vary is %q, want %q", method, v, wantVary)
				}
				if empty := got.body == ""; empty != (method == "HEAD") {
					t.Errorf("%s: the body is %q", method, got.body)
				}
				if got := bare.do(call{method: method, path: "/", header: header}); got.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s without a console: %d %v, want JSON", method, got.status, got.header)
				}
			}
		})
	}
}

// fromConsole asks for a file of the console as a browser does.
func (s *service) fromConsole(path string, header ...string) answer {
	h := http.Header{"Accept": {"text/html"}, "Accept-Encoding": {"identity"}}
	for field := range slices.Chunk(header, 2) {
		h.Set(field[0], field[1])
	}
	return s.do(call{method: "GET", path: path, header: h})
}

func TestServeTheConsole(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	page := s.fromConsole("/")
	for name, want := range map[string]string{
		"Content-Security-Policy":    consolePolicy,
		"Permissions-Policy":         "camera=(), geolocation=(), microphone=(self), payment=(), usb=()",
		"Cross-Origin-Opener-Policy": "same-origin",
		"X-Frame-Options":            "DENY",
		"X-Content-Type-Options":     "nosniff",
		"Referrer-Policy":            "no-referrer",
	} {
		if v := strings.Join(page.header.Values(name), " AND "); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	types := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}
	for _, name := range append(consoleFiles(t), "index.html") {
		path, file, want := "/console/"+name, readConsole(t, name), types[filepath.Ext(name)]
		if name == "index.html" {
			path = "/"
		}
		got := s.fromConsole(path)
		if got.status != 200 || got.body != file || got.header.Get("Content-Type") != want {
			t.Errorf("%s: got %d with %d bytes of %s, want the file as %s", path, got.status, len(got.body), got.header.Get("Content-Type"), want)
		}
		// Kept, but never used unasked: the next replica may have another version.
		if v := got.header.Get("Cache-Control"); v != "no-cache" {
			t.Errorf("%s: Cache-Control is %q, want no-cache", path, v)
		}
		if v := got.header.Get("Content-Length"); v != strconv.Itoa(len(file)) {
			t.Errorf("%s: Content-Length is %s, want %d", path, v, len(file))
		}
		etag := got.header.Get("Etag")
		same := s.fromConsole(path, "If-None-Match", etag)
		if same.status != 304 || same.body != "" || same.header.Get("Etag") != etag {
			t.Errorf("%s again: got %d %q with %s, want 304 with %s", path, same.status, same.body, same.header.Get("Etag"), etag)
		}
		if other := s.fromConsole(path, "If-None-Match", `"x"`); other.status != 200 {
			t.Errorf("%s after another one: got %d, want 200", path, other.status)
		}
		zipped := s.fromConsole(path, "Accept-Encoding", "gzip")
		if zipped.header.Get("Content-Encoding") != "gzip" || uncompressed(t, zipped) != file || zipped.header.Get("Etag") == etag {
			t.Errorf("%s compressed: got %d %v, want the file under another tag", path, zipped.status, zipped.header)
		}
	}
}

func TestTheConsoleHasNothingElse(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	bare := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) { c.NoConsole = true })
	none := problem(404, "not_found", "There is nothing at this path.", "")
	for _, path := range []string{"/console", "/console/", "/console/index.html", "/console/none.js", "/console/openapi.yaml", "/console/..%2fconsole.go", "/console/a/b"} {
		s.check(t, call{method: "GET", path: path}, none)
	}
	bare.check(t, call{method: "GET", path: "/console/main.js"}, none)
	for _, path := range []string{"/", "/console/main.js"} {
		got := s.do(call{method: "POST", path: path})
		if got.status != 405 || got.header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("POST %s: got %d %s, want 405 with what is allowed", path, got.status, got.header.Get("Allow"))
		}
	}
	preflight := http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"GET"}}
	for _, path := range []string{"/", "/health"} {
		if got := s.do(call{method: "OPTIONS", path: path, header: preflight}); got.status != 204 {
			t.Errorf("a preflight of %s: got %d, want 204", path, got.status)
		}
	}
}

// consoleFiles are the names of what the page is made of.
func consoleFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("console")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != "index.html" {
			names = append(names, entry.Name())
		}
	}
	return names
}

// The page names all that it is made of, so that a browser asks for it at once,
// and nothing else.
func TestTheConsoleIsAllOfItsFiles(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("console/index.html")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, link := range regexp.MustCompile(`(?:src|href)="console/([^"]+)"`).FindAllSubmatch(page, -1) {
		named = append(named, string(link[1]))
	}
	slices.Sort(named)
	if diff := cmp.Diff(consoleFiles(t), named); diff != "" {
		t.Errorf("files (-in the folder +in the page):\n%s", diff)
	}
	imported := regexp.MustCompile(`from "\./([a-z]+\.js)"`)
	used := map[string]bool{"main.js": true, "boot.js": true}
	for _, name := range named {
		for _, link := range imported.FindAllStringSubmatch(readConsole(t, name), -1) {
			used[link[1]] = true
			if !slices.Contains(named, link[1]) {
				t.Errorf("%s imports %s, which is not there", name, link[1])
			}
		}
	}
	for _, name := range named {
		if strings.HasSuffix(name, ".js") && !used[name] {
			t.Errorf("nothing imports %s", name)
		}
	}
}

func readConsole(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("console", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A text that a stranger wrote is never markup, nothing within the page is style
// or script, and nothing is asked of anybody else.
func TestTheConsoleTrustsNoText(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`\b(innerHTML|outerHTML|insertAdjacentHTML|setHTML\w*|createContextualFragment|DOMParser|srcdoc|eval|Function\s*\(|importScripts|Worker)\b|` +
		`document\.write|javascript:|<style|\sstyle=|\son[a-z]+=|setTimeout\("|import\(|` +
		`setAttribute\("(on|style|src|href)`)
	elsewhere := regexp.MustCompile(`["'(\s](?:https?|wss?):?//[^"'\s)]*|["'(]//[a-z]|@import|\burl\(`)
	for _, name := range append(consoleFiles(t), "index.html") {
		for number, line := range strings.Split(readConsole(t, name), "\n") {
			if found := forbidden.FindString(line); found != "" {
				t.Errorf("%s:%d has %q: %s", name, number+1, found, strings.TrimSpace(line))
			}
			for _, found := range elsewhere.FindAllString(line, -1) {
				if !strings.Contains(found, "http://www.w3.org/2000/svg") { // a name, where nothing is asked
					t.Errorf("%s:%d has %q: %s", name, number+1, found, strings.TrimSpace(line))
				}
			}
		}
	}
	if page := readConsole(t, "index.html"); regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(page) {
		t.Errorf("the page has a script within: %s", page)
	}
}

// What fits no screen is not read. The lines are as long as those of the Go code.
func TestTheConsolesFilesAreSmall(t *testing.T) {
	t.Parallel()
	total := 0
	for _, name := range consoleFiles(t) {
		text := readConsole(t, name)
		total += len(text)
		if lines := strings.Count(text, "\n"); lines > 400 {
			t.Errorf("%s has %d lines, want at most 400", name, lines)
		}
		if filepath.Ext(name) == ".js" && !strings.HasPrefix(text, "// "+name+" ") {
			t.Errorf("%s does not begin by saying what it is for", name)
		}
	}
	if total > 200_000 {
		t.Errorf("the console has %d bytes", total)
	}
}

// The codes that the console knows are those of the API.
func TestTheConsoleKnowsTheCodes(t *testing.T) {
	t.Parallel()
	d, err := description()
	if err != nil {
		t.Fatal(err)
	}
	described, err := json.Marshal(d.tree)
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`code [!=]==? "([a-z_]+)"`)
	found := 0
	for _, name := range consoleFiles(t) {
		for _, code := range codes.FindAllStringSubmatch(readConsole(t, name), -1) {
			found++
			if !strings.Contains(string(described), `"`+code[1]+`"`) {
				t.Errorf("%s knows a code %q, which no answer has", name, code[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("found %d codes, want some", found)
	}
}
