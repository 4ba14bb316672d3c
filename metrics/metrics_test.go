package metrics_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/metrics"
	"parley/metrics/metricstest"
)

// all has every kind of thing happen once.
func all(s *metrics.Set) {
	s.Requests.Began()
	s.Requests.Answered("/livez", "GET", 200, time.Millisecond)
	s.Requests.Problem("not_found")
	s.Requests.Login("ok")
	s.Requests.Throttled("login")
	s.Replies.BackendFailed("backend_error")
	s.Replies.Ended("complete", time.Second, 3, 4)
	s.Gauge("parley_some_length", "How long it is.", metrics.Labels{"of": "it"}, func() float64 { return 7 })
	s.Counter("parley_some_total", "How often it was.", nil, func() float64 { return 8 })
}

func TestTheNamesAreThoseThatPrometheusWants(t *testing.T) {
	t.Parallel()
	set := metrics.New("1.2.3")
	all(set)
	metricstest.Lint(t, set)
	for name := range metricstest.Labels(t, set) {
		if !strings.HasPrefix(name, "parley_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not told to be ours", name)
		}
	}
}

func TestWhatHappensIsCounted(t *testing.T) {
	t.Parallel()
	type counts = map[string]float64
	for name, tt := range map[string]struct {
		happens func(*metrics.Set)
		want    counts
	}{
		"a request is under way": {
			func(s *metrics.Set) { s.Requests.Began() },
			counts{"parley_http_requests_in_flight": 1},
		},
		"a request is answered": {
			func(s *metrics.Set) {
				s.Requests.Began()
				s.Requests.Answered("/api/v1/chats/:id", "GET", 404, time.Millisecond)
			},
			counts{
				`parley_http_requests_total{method="GET",route="/api/v1/chats/:id",status="404"}`:    1,
				`parley_http_request_duration_seconds_count{method="GET",route="/api/v1/chats/:id"}`: 1,
			},
		},
		"a request is for nothing, by a method that the client made up": {
			func(s *metrics.Set) {
				s.Requests.Began()
				s.Requests.Answered("", "BREW", 404, time.Millisecond)
			},
			counts{
				`parley_http_requests_total{method="other",route="none",status="404"}`:    1,
				`parley_http_request_duration_seconds_count{method="other",route="none"}`: 1,
			},
		},
		"a request is refused": {
			func(s *metrics.Set) {
				s.Requests.Problem("overloaded")
				s.Requests.Throttled("messages")
			},
			counts{`parley_http_problems_total{code="overloaded"}`: 1, `parley_throttled_total{policy="messages"}`: 1},
		},
		"somebody signs in": {
			func(s *metrics.Set) { s.Requests.Login("ok") },
			counts{`parley_logins_total{outcome="ok"}`: 1},
		},
		"the backend sends three pieces of a reply": {
			func(s *metrics.Set) {
				s.Replies.Token(true, time.Second)
				s.Replies.Token(false, time.Millisecond)
				s.Replies.Token(false, time.Millisecond)
			},
			counts{"parley_reply_tokens_total": 3, "parley_reply_first_token_seconds_count": 1, "parley_reply_token_gap_seconds_count": 2},
		},
		"a reply ends": {
			func(s *metrics.Set) { s.Replies.Ended("stopped", time.Second, 30, 4) },
			counts{
				`parley_replies_ended_total{status="stopped"}`: 1, "parley_reply_duration_seconds_count": 1,
				`parley_model_tokens_total{direction="input"}`: 30, `parley_model_tokens_total{direction="output"}`: 4,
			},
		},
		"the backend fails": {
			func(s *metrics.Set) { s.Replies.BackendFailed("backend_busy") },
			counts{`parley_backend_errors_total{code="backend_busy"}`: 1},
		},
		"replies change hands": {
			func(s *metrics.Set) {
				s.Replies.TookOver(true)
				s.Replies.TookOver(false)
				s.Replies.TookOver(false)
				s.Replies.Released(4)
				s.Replies.Reset()
			},
			counts{
				`parley_reply_takeovers_total{from="ending"}`: 1, `parley_reply_takeovers_total{from="dead"}`: 2,
				"parley_replies_released_total": 4, "parley_reply_resets_total": 1,
			},
		},
		"streams open": {
			func(s *metrics.Set) {
				s.Replies.Opened(false, true)
				s.Replies.Opened(true, false)
				s.Replies.Stuck()
			},
			counts{
				`parley_streams_opened_total{kind="reply"}`: 1, `parley_streams_opened_total{kind="feed"}`: 1,
				`parley_stream_resumes_total{kind="reply"}`: 1, "parley_stuck_readers_total": 1,
			},
		},
		"replies are saved, and once not": {
			func(s *metrics.Set) {
				s.Replies.Flushed(5, time.Millisecond, nil)
				s.Replies.Flushed(5, time.Millisecond, errors.New("away"))
			},
			counts{"parley_flush_duration_seconds_count": 1, "parley_flush_rows_total": 5, "parley_flush_failures_total": 1},
		},
		"a password is hashed": {
			func(s *metrics.Set) { s.Passwords.Hashed(time.Millisecond) },
			counts{"parley_password_hash_duration_seconds_count": 1},
		},
		"mails go out, or not": {
			func(s *metrics.Set) {
				s.Mails.Sent()
				s.Mails.PutOff()
				s.Mails.PutOff()
				s.Mails.Dropped()
			},
			counts{`parley_mails_total{outcome="sent"}`: 1, `parley_mails_total{outcome="put_off"}`: 2, `parley_mails_total{outcome="dropped"}`: 1},
		},
		"something is read": {
			func(s *metrics.Set) {
				s.Gauge("parley_some_length", "How long it is.", metrics.Labels{"of": "it"}, func() float64 { return 7 })
				s.Counter("parley_some_total", "How often it was.", nil, func() float64 { return 8 })
			},
			counts{`parley_some_length{of="it"}`: 7, "parley_some_total": 8},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := metrics.New("1.2.3")
			before := metricstest.Values(t, set, "parley_")
			tt.happens(set)
			if diff := cmp.Diff(tt.want, metricstest.Changed(t, set, "parley_", before)); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAScrape(t *testing.T) {
	t.Parallel()
	set := metrics.New("1.2.3")
	set.Replies.Reset()
	server := httptest.NewServer(set.Handler(slog.New(slog.DiscardHandler)))
	defer server.Close()
	res, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	// The format's media type, as Prometheus documents it ("Exposition formats").
	if got, want := res.Header.Get("Content-Type"), "text/plain; version=0.0.4"; !strings.HasPrefix(got, want) {
		t.Errorf("the type is %q, want %q", got, want)
	}
	for _, line := range []string{
		"# TYPE parley_reply_resets_total counter\nparley_reply_resets_total 1\n",
		`version="1.2.3"} 1` + "\n",
		"\ngo_goroutines ",
		"\nprocess_open_fds ",
	} {
		if !strings.Contains(string(body), line) {
			t.Errorf("there is no %q in\n%s", line, body)
		}
	}
}

// What is given no registry counts for nobody.
func TestCountsThatNobodyReads(t *testing.T) {
	t.Parallel()
	metrics.NewRequests(nil).Login("ok")
	metrics.NewReplies(nil).Reset()
	metrics.NewPasswords(nil).Hashed(time.Second)
	metrics.NewMails(nil).Sent()
}

// OpenMetrics 1.0, section "Overall Structure": the text ends with # EOF.
func TestAScrapeAsOpenMetrics(t *testing.T) {
	t.Parallel()
	set := metrics.New("1.2.3")
	all(set)
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", http.NoBody)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	set.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text; version=1.0.0") || !strings.HasSuffix(w.Body.String(), "\n# EOF\n") {
		t.Errorf("got %s and\n%s", got, w.Body)
	}
}
