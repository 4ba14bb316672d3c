package handlers_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
	"parley/handlers"
	"parley/metrics"
	"parley/metrics/metricstest"
	"parley/models"
	"parley/models/modelstest"
)

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		set := metrics.New("1.2.3")
		s := start(t, db, says("Hello"), func(c *handlers.Config) {
			c.Metrics = set.Requests
			c.Limits.LoginAccountNetwork = auth.Limit{Quota: 2, Window: time.Hour}
			c.Limits.Messages = auth.Limit{Quota: 1, Window: time.Hour}
			c.Limits.ResetMails = auth.Limit{Quota: 1, Window: time.Hour}
		})
		ann := s.signup("ann@example.com")
		for _, word := range []string{password, "a wrong one", "another wrong one", password} {
			s.do(call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"` + word + `"}`})
		}
		for range 2 {
			s.do(call{method: "POST", path: "/api/auth/reset-password-request", body: `{"email":"ann@example.com"}`})
			s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		}
		for _, path := range []string{"/api/v1/messages/2", "/api/v1/messages/3?ticket=x", "/api/v1/nothing/at/all", "/api/v1/chats/anything"} {
			s.do(call{method: "GET", path: path, token: ann.Access})
		}
		s.do(call{method: "PROPFIND", path: "/api/v1/chats"})

		// The last answer may be counted a moment after it is read.
		var got map[string]float64
		want := map[string]float64{
			`parley_http_requests_total{method="POST",route="/api/v1/auth/signup",status="201"}`:                 1,
			`parley_http_requests_total{method="POST",route="/api/v1/auth/login",status="200"}`:                  1,
			`parley_http_requests_total{method="POST",route="/api/v1/auth/login",status="401"}`:                  2,
			`parley_http_requests_total{method="POST",route="/api/v1/auth/login",status="429"}`:                  1,
			`parley_http_requests_total{method="POST",route="/api/auth/reset-password-request",status="200"}`:    2,
			`parley_http_requests_total{method="POST",route="/api/v1/messages",status="200"}`:                    1,
			`parley_http_requests_total{method="POST",route="/api/v1/messages",status="429"}`:                    1,
			`parley_http_requests_total{method="GET",route="/api/v1/messages/:id",status="200"}`:                 1,
			`parley_http_requests_total{method="GET",route="/api/v1/messages/:id",status="404"}`:                 1,
			`parley_http_requests_total{method="GET",route="/api/v1/chats/:id",status="404"}`:                    1,
			`parley_http_requests_total{method="GET",route="none",status="404"}`:                                 1,
			`parley_http_requests_total{method="other",route="none",status="405"}`:                               1,
			`parley_http_request_duration_seconds_count{method="POST",route="/api/v1/auth/signup"}`:              1,
			`parley_http_request_duration_seconds_count{method="POST",route="/api/v1/auth/login"}`:               4,
			`parley_http_request_duration_seconds_count{method="POST",route="/api/auth/reset-password-request"}`: 2,
			`parley_http_request_duration_seconds_count{method="POST",route="/api/v1/messages"}`:                 2,
			`parley_http_request_duration_seconds_count{method="GET",route="/api/v1/messages/:id"}`:              2,
			`parley_http_request_duration_seconds_count{method="GET",route="/api/v1/chats/:id"}`:                 1,
			`parley_http_request_duration_seconds_count{method="GET",route="none"}`:                              1,
			`parley_http_request_duration_seconds_count{method="other",route="none"}`:                            1,
			`parley_http_requests_in_flight`:                         0,
			`parley_http_problems_total{code="invalid_credentials"}`: 2,
			`parley_http_problems_total{code="too_many_attempts"}`:   1,
			`parley_http_problems_total{code="too_many_messages"}`:   1,
			`parley_http_problems_total{code="not_found"}`:           3,
			`parley_http_problems_total{code="method_not_allowed"}`:  1,
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			got = metricstest.Values(t, set, "parley_http_")
			if cmp.Equal(want, got) || time.Now().After(end) {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		got = metricstest.Values(t, set, "parley_logins_")
		maps.Copy(got, metricstest.Values(t, set, "parley_throttled_"))
		if diff := cmp.Diff(map[string]float64{
			`parley_logins_total{outcome="ok"}`:                  1,
			`parley_logins_total{outcome="invalid_credentials"}`: 2,
			`parley_logins_total{outcome="too_many_attempts"}`:   1,
			`parley_throttled_total{policy="login"}`:             1,
			`parley_throttled_total{policy="messages"}`:          1,
			`parley_throttled_total{policy="reset-mails"}`:       1,
		}, got); diff != "" {
			t.Errorf("logins and what was throttled (-want +got):\n%s", diff)
		}
		metricstest.Lint(t, set)
	})
}

// The metrics are for those who ask on this machine; for everybody else there is
// nothing at their path.
func TestWhoMayScrape(t *testing.T) {
	t.Parallel()
	const mine, theirs = "127.0.0.1:4711", "198.51.100.7:4711"
	for name, tt := range map[string]struct {
		method, peer, host string
		header             http.Header
		want               int
	}{
		"somebody on this machine":               {"GET", mine, "127.0.0.1:8080", nil, 200},
		"who only looks if it is there":          {"HEAD", mine, "127.0.0.1:8080", nil, 200},
		"by its name":                            {"GET", mine, "localhost:8080", nil, 200},
		"by its name without a port":             {"GET", mine, "LocalHost", nil, 200},
		"over IPv6":                              {"GET", "[::1]:4711", "[::1]:8080", nil, 200},
		"over IPv4 in IPv6":                      {"GET", "[::ffff:127.0.0.1]:4711", "[::1]", nil, 200},
		"somebody elsewhere":                     {"GET", theirs, "127.0.0.1:8080", nil, 404},
		"on the same network":                    {"GET", "10.0.0.7:4711", "10.0.0.1:8080", nil, 404},
		"who says to be here":                    {"GET", theirs, "localhost", http.Header{"X-Forwarded-For": {"127.0.0.1"}}, 404},
		"a proxy here that says so":              {"GET", mine, "localhost", http.Header{"X-Forwarded-For": {"198.51.100.7"}}, 404},
		"even of one here":                       {"GET", mine, "localhost", http.Header{"X-Forwarded-For": {"127.0.0.1"}}, 404},
		"a proxy that says so as RFC 7239":       {"GET", mine, "localhost", http.Header{"Forwarded": {"for=198.51.100.7"}}, 404},
		"a proxy that says so as RFC 9110":       {"GET", mine, "localhost", http.Header{"Via": {"1.1 proxy"}}, 404},
		"nginx as many set it up":                {"GET", mine, "localhost", http.Header{"X-Real-Ip": {"198.51.100.7"}}, 404},
		"an empty field":                         {"GET", mine, "localhost", http.Header{"X-Forwarded-For": {""}}, 404},
		"a proxy that passes the name on":        {"GET", mine, "chat.example.org", nil, 404},
		"a proxy that is known to be one":        {"GET", "127.0.0.2:4711", "localhost", nil, 404},
		"a page whose name leads here":           {"GET", mine, "localhost.example.org", nil, 404},
		"nobody's name":                          {"GET", mine, "", nil, 404},
		"no address":                             {"GET", "@", "localhost", nil, 404},
		"somebody here with another method":      {"POST", mine, "localhost", nil, 404},
		"somebody elsewhere with another method": {"OPTIONS", theirs, "localhost", nil, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, api := build(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) {
				c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
				c.Scrape = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "parley_up 1\n") })
			})
			r := httptest.NewRequestWithContext(t.Context(), tt.method, "/metrics", http.NoBody)
			r.RemoteAddr, r.Host = tt.peer, tt.host
			maps.Copy(r.Header, tt.header)
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("got %d, want %d", w.Code, tt.want)
			}
			if told := strings.Contains(w.Body.String(), "parley_up"); told != (tt.want == 200) {
				t.Errorf("got %q", w.Body)
			}
			// As for any other path where nothing is.
			other := httptest.NewRequestWithContext(t.Context(), tt.method, "/nothing", http.NoBody)
			nothing := httptest.NewRecorder()
			api.ServeHTTP(nothing, other)
			if tt.want == 404 && stable(w.Body.String()) != stable(nothing.Body.String()) {
				t.Errorf("got %q, elsewhere %q", w.Body, nothing.Body)
			}
			if lines := s.requests(); tt.want == 200 && lines[0]["level"] != "DEBUG" {
				t.Errorf("a scrape is logged as %v, want one at debug level", lines[0])
			}
		})
	}
}

// Without something to show there is nothing, for nobody.
func TestMetricsAtAnotherAddress(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) { c.TrustedProxies = nil })
	s.check(t, call{method: "GET", path: "/metrics"}, problem(404, "not_found", "There is nothing at this path.", ""))
}

// A span is made of each request, which has its context, and ends with the pattern
// of the route and the status; a stream is sent all the same.
func TestRequestsAreTraced(t *testing.T) {
	t.Parallel()
	type span struct {
		Name   string
		Status int
		Ours   bool
	}
	var (
		mu    sync.Mutex
		spans []span
	)
	s := start(t, modelstest.New(t, models.SQLite), says("Hello"), func(c *handlers.Config) {
		c.Trace = func(r *http.Request, id string, ours bool) (context.Context, func(string, int)) {
			if id != r.Header.Get("X-Request-Id") {
				t.Errorf("the id is %q", id)
			}
			return r.Context(), func(route string, status int) {
				mu.Lock()
				defer mu.Unlock()
				spans = append(spans, span{r.Method + " " + route, status, ours})
			}
		}
	})
	id := http.Header{"X-Request-Id": {"a"}}
	body := `{"email":"ann@example.com","password":"` + password + `"}`
	ann := s.accountOf(s.do(call{method: "POST", path: "/api/v1/auth/signup", body: body, header: id}))
	streamed := s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: id})
	if !strings.Contains(streamed.body, "event: message_complete") {
		t.Errorf("the stream is %q", streamed.body)
	}
	s.do(call{method: "GET", path: "/api/v1/messages/7/stream?ticket=hidden", header: id})
	s.do(call{method: "GET", path: "/reset/hidden", header: id})
	want := []span{
		{"POST /api/v1/auth/signup", 201, true},
		{"POST /api/v1/messages", 200, true},
		{"GET /api/v1/messages/:id/stream", 401, true},
		{"GET ", 404, true},
	}
	var got []span
	for end := time.Now().Add(time.Minute); len(got) < len(want) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		mu.Lock()
		got = slices.Clone(spans)
		mu.Unlock()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}
