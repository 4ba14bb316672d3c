package handlers

import (
	"net/http"
	"strings"
)

// answerPolicy is for answers that are no pages: a browser that is made to show
// one as a page runs nothing in it, loads nothing for it, and puts it in no
// frame (Content Security Policy Level 3). A page sets one of its own.
const answerPolicy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// secureFor is for how long a browser speaks only TLS with this host once it has
// done so, in seconds: a year (RFC 6797, section 6.1.1).
const secureFor = "31536000"

// protect sets what browsers are told for the safety of users on every answer.
func (s *server) protect(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", answerPolicy)
	h.Set("Referrer-Policy", "no-referrer") // paths hold tickets and reset tokens
	h.Set("X-Frame-Options", "DENY")        // for browsers that know no frame-ancestors
	// Whether a page of another origin may read an answer CORS says; this keeps it
	// from using one unread, as an image or a script.
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if strings.HasPrefix(s.publicURL, "https://") {
		h.Set("Strict-Transport-Security", "max-age="+secureFor)
	}
}

// protectPage is protect for a page, which needs what policy lets it have, and
// none of a browser's devices.
func protectPage(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}
