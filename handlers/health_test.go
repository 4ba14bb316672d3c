package handlers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

func TestReadiness(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		checks []handlers.Check
		want   wanted
	}{
		"all is well": {
			[]handlers.Check{{Name: "database", State: "ok"}, {Name: "ai_backend", State: "ok"}},
			wanted{200, `{"status":"ok","checks":{"ai_backend":"ok","database":"ok"}}`, nil},
		},
		"the AI backend is down: accounts and history work": {
			[]handlers.Check{{Name: "database", State: "ok"}, {Name: "ai_backend", State: "unreachable"}},
			wanted{200, `{"status":"ok","checks":{"ai_backend":"unreachable","database":"ok"}}`, nil},
		},
		"the database is down": {
			[]handlers.Check{{Name: "database", State: "unreachable", Fails: true}, {Name: "draining", State: "no"}},
			wanted{
				503, `{"type":"about:blank","title":"Service Unavailable","status":503,` +
					`"detail":"This replica takes no requests at the moment; checks says why.","code":"not_ready",` +
					`"message":"This replica takes no requests at the moment; checks says why.","request_id":"<id>",` +
					`"checks":{"database":"unreachable","draining":"no"}}`,
				map[string]string{"Retry-After": "1", "Content-Type": "application/problem+json"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) {
				c.Ready = func(context.Context) []handlers.Check { return tt.checks }
			})
			s.check(t, call{method: "GET", path: "/readyz"}, tt.want)
			level := map[int]string{200: "DEBUG", 503: "WARN"}[tt.want.status]
			if lines := s.requests(); len(lines) != 1 || lines[0]["level"] != level {
				t.Errorf("lines are %v, want one of level %s", lines, level)
			}
		})
	}
}

// A handler that panics answers 500, leaves one line with its stack, and takes
// nothing with it.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) {
		c.Ready = func(context.Context) []handlers.Check { panic("a secret of the inside") }
	})
	s.check(t, call{method: "GET", path: "/readyz"}, problem(500, "internal_error", "Something went wrong on our side.", ""))
	s.check(t, call{method: "GET", path: "/livez"}, wanted{200, `{"status":"ok"}`, nil})
	lines := s.requests()
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2: %v", len(lines), lines)
	}
	stack, _ := lines[0]["stack"].(string)
	if lines[0]["level"] != "ERROR" || lines[0]["error"] != "panic: a secret of the inside" || !strings.Contains(stack, "health_test.go") {
		t.Errorf("the line is %v, want an error with the stack", lines[0])
	}
}

// requests are the lines of the access log so far.
func (s *service) requests() []map[string]any {
	s.t.Helper()
	var out []map[string]any
	for r := bufio.NewScanner(strings.NewReader(s.log.String())); r.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(r.Bytes(), &line); err != nil {
			s.t.Fatal(err)
		}
		if line["msg"] == "request" {
			out = append(out, line)
		}
	}
	return out
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	s := start(t, db, says("Private words."))
	ann := s.signup("ann@example.com")
	id := http.Header{"X-Request-Id": {"abc"}, "X-Forwarded-For": {"198.51.100.7"}}
	s.do(call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"a wrong one"}`, header: id})
	s.do(call{method: "POST", path: "/api/v1/messages?ticket=hidden", token: ann.Access, body: `{"message":"A diary"}`})
	s.do(call{method: "GET", path: "/api/v1/chats/1?ticket=hidden", token: ann.Access})
	s.do(call{method: "GET", path: "/reset/hidden"})
	s.do(call{method: "GET", path: "/health"})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s.do(call{method: "GET", path: "/api/v1/chats", token: ann.Access})

	// What is in every line, and what not is in some.
	got := s.requests()
	for _, line := range got {
		for _, name := range []string{"time", "duration_ms", "request_id", "client"} {
			if line[name] == nil || line[name] == "" {
				t.Errorf("%v has no %s", line, name)
			}
		}
		if line["error"] != nil {
			line["error"] = "<error>"
		}
		delete(line, "time")
		delete(line, "duration_ms")
		if line["request_id"] != "abc" {
			delete(line, "request_id")
		}
	}
	const local = "127.0.0.1"
	want := []map[string]any{
		{"level": "INFO", "msg": "request", "method": "POST", "route": "/api/v1/auth/signup", "status": 201., "client": local},
		{"level": "INFO", "msg": "request", "method": "POST", "route": "/api/v1/auth/login", "status": 401., "client": "198.51.100.7", "request_id": "abc", "code": "invalid_credentials"},
		{"level": "INFO", "msg": "request", "method": "POST", "route": "/api/v1/messages", "status": 200., "client": local, "user_id": 1.},
		{"level": "INFO", "msg": "request", "method": "GET", "route": "/api/v1/chats/:id", "status": 200., "client": local, "user_id": 1.},
		{"level": "INFO", "msg": "request", "method": "GET", "status": 404., "client": local, "code": "not_found"},
		{"level": "DEBUG", "msg": "request", "method": "GET", "route": "/health", "status": 200., "client": local},
		{"level": "ERROR", "msg": "request", "method": "GET", "route": "/api/v1/chats", "status": 503., "client": local, "user_id": 1., "code": "unavailable", "error": "<error>"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for _, secret := range []string{"hidden", "diary", "Private", "a wrong one", password, ann.Access, ann.Refresh, "ann@example.com"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// A client that goes away is no error of anybody's.
func TestAClientThatGoesAway(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s, api := build(t, db, says())
		gone, leave := context.WithCancel(t.Context())
		leave()
		r := httptest.NewRequestWithContext(gone, "GET", "/api/v1/chats", http.NoBody)
		r.Header.Set("Authorization", "Bearer "+s.tokenOf(1))
		api.ServeHTTP(httptest.NewRecorder(), r)
		lines := s.requests()
		if len(lines) != 1 || lines[0]["level"] != "DEBUG" || lines[0]["status"] != 499. {
			t.Errorf("lines are %v, want one at debug level with status 499", lines)
		}
	})
}

// breaking is a ResponseWriter that panics when the answer has begun.
type breaking struct{ *httptest.ResponseRecorder }

func (breaking) Write([]byte) (int, error) { panic("in the middle") }

// Half an answer must not look like a whole one: the connection is cut.
func TestPanicInTheMiddleOfAnAnswer(t *testing.T) {
	t.Parallel()
	s, api := build(t, modelstest.New(t, models.SQLite), says())
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("panic with %v, want what makes net/http cut the connection", p)
		}
		if w.Code != http.StatusOK || w.Body.Len() > 0 {
			t.Errorf("sent %d %q, want the half that there was", w.Code, w.Body)
		}
		if lines := s.requests(); len(lines) != 1 || lines[0]["level"] != "ERROR" || lines[0]["stack"] == nil {
			t.Errorf("lines are %v, want one with the stack", lines)
		}
	}()
	api.ServeHTTP(breaking{w}, httptest.NewRequestWithContext(t.Context(), "GET", "/livez", http.NoBody))
}
