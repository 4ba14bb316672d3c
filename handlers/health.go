package handlers

import (
	"context"
	"net/http"
	"time"
)

// A Check is what /readyz tells of one thing that the service needs.
type Check struct {
	Name  string // such as database, migrations, draining, ai_backend
	State string // "ok", or what is wrong in words that anyone may read
	Fails bool   // this replica should get no requests
}

// readyTimeout is how long /readyz waits for its checks.
const readyTimeout = 2 * time.Second

// health answers GET /health and its kin: the process serves requests. It
// asks nothing of the database.
func (s *server) health(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, struct {
		Status  string `json:"status"`
		Service string `json:"service"`
		Version string `json:"version"`
	}{"ok", "parley", s.version})
}

// live answers GET /livez.
func (s *server) live(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// readiness answers GET /readyz: 200, or 503 when a check fails.
func (s *server) readiness(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	checks := make(map[string]string)
	ready := true
	for _, c := range s.ready(ctx) {
		checks[c.Name] = c.State
		ready = ready && !c.Fails
	}
	if !ready {
		return notReady(checks)
	}
	return reply(w, http.StatusOK, struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks"`
	}{"ok", checks})
}

// publicKeys answers GET /.well-known/jwks.json (RFC 7517, section 8.5.2).
func (s *server) publicKeys(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", "public, max-age=300")
	w.WriteHeader(http.StatusOK)
	w.Write(s.tokens.PublicKeys()) //nolint:errcheck // the client may be gone
	return nil
}
