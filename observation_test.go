package main_test

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A scrape is what /metrics said, by series as Prometheus writes them.
type scrape map[string]float64

// scrapeOf reads the metrics at a URL.
func scrapeOf(t *testing.T, url string) scrape {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: got %d, want 200", url, res.StatusCode)
	}
	found := make(scrape)
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		series, number, ok := strings.Cut(lines.Text(), "} ")
		if ok {
			series += "}"
		} else if series, number, ok = strings.Cut(lines.Text(), " "); !ok {
			continue
		}
		if value, err := strconv.ParseFloat(number, 64); err == nil {
			found[series] = value
		}
	}
	return found
}

// want compares some series.
func (s scrape) want(t *testing.T, want scrape) {
	t.Helper()
	for series, value := range want {
		if got, there := s[series]; got != value || !there {
			t.Errorf("%s is %v (told: %t), want %v", series, got, there, value)
		}
	}
}

// atLeast wants some series to be as high as that.
func (s scrape) atLeast(t *testing.T, want scrape) {
	t.Helper()
	for series, value := range want {
		if got := s[series]; !(got >= value) {
			t.Errorf("%s is %v, want %v or more", series, got, value)
		}
	}
}

func TestMetricsAtAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		said := dictate(t)
		s := start(t, with(with(settings, said.settings...), "METRICS_ADDR=127.0.0.1:0", "AI_MAX_REPLIES=7")...)
		you := signUp(t, s)
		nobody.ask(t, s, "POST", "/api/v1/auth/login", credentials).want(t, 200)
		nobody.ask(t, s, "GET", "/metrics", "").want(t, 404)
		for path, want := range map[string]int{"": 200, "/": 404, "x": 404, "/../livez": 404} {
			res, err := client.Get(s.seen + path)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s there: got %d, want %d", path, res.StatusCode, want)
			}
		}
		r := you.say(t, s, "Hello")
		said.say("Well")
		r.has(len("Well"))
		// What is counted at the end of a handler is a moment after its answer.
		eventually(t, "the send is counted", func() bool {
			return scrapeOf(t, s.seen)[`parley_http_requests_total{method="POST",route="/api/v1/messages",status="200"}`] == 1
		})
		pool := map[bool]string{true: "all", false: "write"}[strings.Contains(settings[0], "postgres")]
		running := scrapeOf(t, s.seen)
		running.want(t, scrape{
			`parley_streams_open{kind="reply"}`: 1, `parley_streams_open{kind="feed"}`: 0,
			"parley_replies_running": 1, "parley_replies_queued": 0, "parley_replies_limit": 7, "parley_reply_tokens_total": 1,
			"parley_draining": 0, "parley_backend_down": 0, "parley_outbox_mails": 0,
			"parley_password_hash_duration_seconds_count": 2, "parley_password_hashers_busy": 0, "parley_password_queue_length": 0,
			`parley_logins_total{outcome="ok"}`: 1,
		})
		running.atLeast(t, scrape{
			"parley_password_hashers":                                       1,
			"parley_pressure_ratio":                                         0,
			"parley_revocations_age_seconds":                                0,
			fmt.Sprintf("parley_database_connections_limit{pool=%q}", pool): 1,
			fmt.Sprintf("parley_database_waits_total{pool=%q}", pool):       0,

			"go_goroutines":             1,
			"process_open_fds":          1,
			"parley_reply_resets_total": 0,
		})

		// The metrics are there until the end, and end with it.
		s.signal(t, syscall.SIGTERM)
		eventually(t, "it is told that the replica is ending", func() bool { return scrapeOf(t, s.seen)["parley_draining"] == 1 })
		scrapeOf(t, s.seen).want(t, scrape{"parley_replies_running": 1})
		said.say(" then.")
		close(said.words)
		if code := s.exitCode(t); code != 0 {
			t.Errorf("it ended with %d", code)
		}
		if res, err := client.Get(s.seen); err == nil {
			res.Body.Close()
			t.Error("the metrics are there after the end")
		}
	})
}

func TestMetricsOnThePublicPort(t *testing.T) {
	t.Parallel()
	s := start(t, database(t, "sqlite")...)
	scrapeOf(t, s.url+"/metrics").want(t, scrape{"parley_draining": 0})
	nobody.ask(t, s, "GET", "/metrics", "", "X-Forwarded-For: 198.51.100.7").want(t, 404)
	if s.seen != "" {
		t.Errorf("they are at %s too", s.seen)
	}
}

// Mail that nobody can send is seen to wait.
func TestTheOutboxIsSeen(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, "METRICS_ADDR=127.0.0.1:0", "SMTP_URL=smtp://127.0.0.1:1", "MAIL_FROM=parley@example.com")...)
		signUp(t, s)
		nobody.ask(t, s, "POST", "/api/v1/auth/reset-password-request", `{"email":"you@example.com"}`).want(t, 200)
		eventually(t, "the mail is put off", func() bool { return scrapeOf(t, s.seen)[`parley_mails_total{outcome="put_off"}`] > 0 })
		eventually(t, "the mail is counted", func() bool { return scrapeOf(t, s.seen)["parley_outbox_mails"] == 1 })
	})
}

// Go's own figure tells that the collector leaves room, and that who sets GOGC has
// the last word.
func TestTheCollectorIsSet(t *testing.T) {
	t.Parallel()
	for gogc, want := range map[string]float64{"": 200, "70": 70, "off": math.MaxInt32} {
		t.Run("GOGC="+gogc, func(t *testing.T) {
			t.Parallel()
			s := start(t, "GOGC="+gogc)
			var got float64
			eventually(t, "the collector is set", func() bool {
				got = scrapeOf(t, s.url+"/metrics")["go_gc_gogc_percent"]
				return got != 100
			})
			if got < want {
				t.Errorf("the collector waits for %v %%, want %v %%", got, want)
			}
		})
	}
}
