package handlers

import (
	"embed"
	"net/http"
)

// console is the page that a browser gets at /, and what it is made of: a client
// of the public API like any other. It is sent as it stands here.
//
//go:embed console/*.html console/*.css console/*.js console/*.svg
var console embed.FS

var consoleFiles = filesOf(console, "console")

// consolePolicy lets the console run its own modules, speak with its own server,
// and play what it got from there. Texts of models and of strangers are shown
// here, so the browser itself refuses to make markup of a string.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src blob:; " +
	"form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// consoleDevices are those of a browser's that the console may ask for: it takes
// recordings.
const consoleDevices = "camera=(), geolocation=(), microphone=(self), payment=(), usb=()"

// root answers GET /: a browser gets the console, anything else hears that the
// service answers.
func (s *server) root(w http.ResponseWriter, r *http.Request) error {
	if s.noConsole {
		return s.health(w, r)
	}
	h := w.Header()
	h.Add("Vary", "Accept")
	if !prefersPage(r.Header) {
		return s.health(w, r)
	}
	protectPage(h, consolePolicy)
	h.Set("Permissions-Policy", consoleDevices)
	return sendFile(w, r, consoleFiles, "index.html")
}

// consoleFile answers GET /console/{file}: what the console is made of.
func (s *server) consoleFile(w http.ResponseWriter, r *http.Request) error {
	name := infoOf(r).params.ByName("file")
	if s.noConsole || name == "index.html" {
		return errNoRoute
	}
	return sendFile(w, r, consoleFiles, name)
}
